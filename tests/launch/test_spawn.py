"""Functions on new processes of this machine: what they return, and how they fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.ranks import Seen, fail_on, hang_on_others, look, return_unpicklable
from treenail.adapters.launch import RankFailedError, spawn
from treenail.kernel import ConfigError

ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import sys
from pathlib import Path
from tests.launch.ranks import wait_for_ever
from treenail.adapters.launch import spawn

if __name__ == "__main__":
    spawn(wait_for_ever, 1, Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = multiprocessing.active_children()  # of other tests
    yield
    assert [each for each in multiprocessing.active_children() if each not in before] == []


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_ranks_value_comes_back_in_rank_order_and_all_is_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = spawn(look, 3, "said")
    threads = max(len(os.sched_getaffinity(0)) // 3, 1)
    sockets = seen[0].listening
    assert sockets >= 2  # the store's, and gloo's
    assert [each._replace(listening=sockets) for each in seen] == [
        Seen(rank, 3, 3.0, "gloo", "said", threads, "pytorch", sockets, []) for rank in range(3)
    ]


@pytest.mark.parametrize(
    ("processes", "how", "message", "code"),
    [
        (2, "kill", "rank 1 of 2 was killed by SIGKILL; ", 137),
        (1, "leave", "rank 0 of 1 failed: it ended before the function returned", 0),
    ],
)
def test_a_rank_that_ends_without_a_word_is_named_and_ends_the_others(
    processes: int, how: str, message: str, code: int
) -> None:
    last = processes - 1
    with pytest.raises(RankFailedError, match=message) as caught:
        spawn(fail_on, processes, last, how, timeout=60)
    assert (caught.value.rank, caught.value.exit_code, caught.value.remote_traceback) == (last, code, "")


def test_ranks_that_would_wait_for_ever_are_ended_soon_after_one_raised() -> None:
    start = time.monotonic()
    with pytest.raises(RankFailedError, match="rank 1 of 2 failed: ValueError: image 3 is torn") as caught:
        spawn(hang_on_others, 2, 1)
    assert time.monotonic() - start < 300  # it would be 600
    assert (caught.value.rank, caught.value.exit_code) == (1, 1)
    assert "in hang_on_others" in caught.value.remote_traceback
    assert "in hang_on_others" in str(caught.value.__cause__)


def test_a_value_that_cannot_be_pickled_is_an_error() -> None:
    with pytest.raises(RankFailedError, match="'return_unpicklable' returned what cannot be sent back"):
        spawn(return_unpicklable, 1)


def test_a_function_that_cannot_be_pickled_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"<lambda>' cannot be sent to other processes.*at the top level of a module"):
        spawn(lambda: 0, 2)


def test_an_argument_that_cannot_be_pickled_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="the arguments of 'look' cannot be sent to other processes"):
        spawn(look, 2, threading.Lock())


@pytest.mark.parametrize("processes", [0, -1])
def test_a_world_of_zero_is_an_error(processes: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot start {processes} processes; a world has at least 1"):
        spawn(look, processes, None)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("glo", "torch knows no backend 'glo'; did you mean 'gloo'"),
        ("cpu:gloo,cuda:nkkl", "torch knows no backend 'nkkl'"),
    ],
)
def test_an_unknown_backend_is_refused_before_anything_starts(backend: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spawn(look, 2, None, backend=backend)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    ranks = tmp_path / "ranks"
    ranks.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(ranks)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    file = ranks / "0"
    wait_until(lambda: file.exists() and file.read_text())
    pid = int(file.read_text())
    if number is signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does it
    else:
        parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert errors.count("KeyboardInterrupt") == (1 if number is signal.SIGINT else 0)  # the rank's own is not shown
    wait_until(lambda: not alive(pid))

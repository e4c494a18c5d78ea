"""`treenail launch` as a user calls it: real ranks, their failures, and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.launch.listening import free_port, is_loopback, listening_addresses
from treenail.adapters.cli import main
from treenail.adapters.launch import Machines
from treenail.adapters.launch import launch as launch_ranks

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "digits.yaml"

# Only where ranks talk to each other does a script import torch, which costs seconds.
TALK = """
import json, os, sys
import torch, torch.distributed as dist
from tests.launch.listening import free_port, is_loopback, listening_addresses
dist.init_process_group()
total = torch.tensor(float(dist.get_rank()))
dist.all_reduce(total)
listening = listening_addresses(os.getpid()) + listening_addresses(os.getppid())
dist.barrier()
beyond = [address for address in listening if not is_loopback(address)]
said = [sys.argv, sys.path[0], __name__, total.item(), os.environ["OMP_NUM_THREADS"], len(listening) > 2, beyond]
print(json.dumps(said) + "\\n", end="")
dist.destroy_process_group()
"""
FAIL = """
import os, signal, subprocess, sys, time
if os.environ["RANK"] == "1":
    how = sys.argv[1]
    if how == "raise": raise ValueError("image 3 is torn")
    if how == "exit": sys.exit(7)
    if how == "say": sys.exit("no images")
    if how == "child":  # its own words are its own
        sys.exit(subprocess.run([sys.executable, "-m", "treenail.adapters.cli", "config", "show", "absent.yaml"]).returncode)
    if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""
RECOVER = """
import os, sys, time
from pathlib import Path
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if os.environ["RANK"] == "1": raise ValueError("image 3 is torn")
    time.sleep(600)
print("recovered\\n", end="")
"""
STOP = """
import os, signal, sys, time
from pathlib import Path
def stop(number, frame):
    time.sleep(1)
    (Path(sys.argv[1]) / f"saved-{os.environ['RANK']}").write_text(str(number))
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, stop)
(Path(sys.argv[1]) / f"ready-{os.environ['RANK']}").write_text(str(os.getpid()))
"""
WAIT = "time.sleep(600)"
# As in a collective that waits for a rank that is gone: the main thread is in C, where no handler of Python runs.
WAIT_IN_C = """
if os.environ["RANK"] == "1":
    import ctypes
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(mutex)
time.sleep(600)
"""
# A rank that some scheduler, or its user, asks to stop.
STOP_ONE = """
if os.environ["RANK"] == "0":
    while not (other := Path(sys.argv[1]) / "ready-1").exists() or not other.read_text(): time.sleep(0.05)
    os.kill(int(other.read_text()), signal.SIGTERM)
time.sleep(600)
"""
# Counts up until its third attempt, on as many ranks as there are; a signal to one of them stops and saves all, as
# `treenail train` does.
COUNT = """
import os, signal, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from tests.launch.listening import is_loopback, listening_addresses
from treenail.adapters.launch import LAUNCH_ID, detect, process_group
directory, asked = Path(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
saved = directory / os.environ[LAUNCH_ID]
with process_group(detect(), timeout=60):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        with (directory / "attempts").open("a") as file: print(world_size, saved.exists(), file=file)
    step = first = int(saved.read_text()) if saved.exists() else 0
    stop = torch.zeros(())
    while not stop and not (world_size == 1 and first):
        stop = torch.tensor(float(bool(asked)))
        dist.all_reduce(stop)
        step += 1
        time.sleep(0.05)
        if world_size == 2 and step == first + 5: (directory / f"counted-{rank}").write_text(str(step))
    beyond = [each for each in listening_addresses(os.getppid()) if not is_loopback(each)]
    if beyond: raise ValueError(beyond)
    dist.barrier()
    if rank == 0: saved.write_text(str(step))
if stop: sys.exit(143)
"""


FRESH = (sys.executable, "-m", "treenail.adapters.cli")


class Called(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Calls the command in this process; its ranks are processes of their own."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Called:
        self._capture.readouterr()
        code = main(["launch", *(str(argument) for argument in arguments)])
        return Called(code, *self._capture.readouterr())


@pytest.fixture
def launch(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Command(capfd)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Launchers of a test; those that a failed test leaves are ended."""
    launchers: list[subprocess.Popen[str]] = []
    yield launchers
    for launcher in launchers:
        launcher.terminate()
        launcher.wait(timeout=60)


def write(directory: Path, program: str) -> Path:
    path = directory / "script.py"
    path.write_text(program)
    return path


def wait_for(*files: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


def wait_for_lines(file: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() or file.read_text().count("\n") < lines:
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_script_runs_on_every_rank_and_nothing_listens_beyond_loopback(
    launch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    (tmp_path / "below").mkdir()
    script = write(tmp_path / "below", TALK)
    before = dict(os.environ)
    done = launch("--nproc", "2", "below/script.py", "--lr", "3e-4", "--", "-x")
    threads = max(len(os.sched_getaffinity(0)) // 2, 1)
    line = f'[["below/script.py", "--lr", "3e-4", "--", "-x"], "{script.parent}", "__main__", 1.0, "{threads}", true, []]\n'
    assert (done.code, done.out) == (0, line * 2), done.err
    assert done.err == ""
    assert dict(os.environ) == before
    assert [address for address in listening_addresses(os.getpid()) if not is_loopback(address)] == []


def test_a_module_runs_with_the_working_directory_first(launch: Command, tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "train.py").write_text("import os, sys\nprint(os.environ['RANK'], sys.argv[1:], sys.path[0])\n")
    done = launch("--", "-m", "mine.train", "--lr", "1")
    assert done == Called(0, f"0 ['--lr', '1'] {tmp_path}\n", "")


@pytest.mark.parametrize(
    ("how", "message", "code"),
    [
        ("raise", "rank 1 of 2 failed: ValueError: image 3 is torn", 1),
        ("exit", "rank 1 of 2 ended with exit code 7; its own output says why", 7),
        ("say", "rank 1 of 2 failed: no images", 1),
        ("child", "absent.yaml: ", 2),
        ("kill", "rank 1 of 2 was killed by SIGKILL; nothing in it did that; where memory ran out", 137),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_is_named_in_one_line(
    launch: Command, tmp_path: Path, how: str, message: str, code: int
) -> None:
    done = launch("--nproc", "2", write(tmp_path, FAIL), how)
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == code
    assert len(errors) == (2 if how == "child" else 1)
    assert errors[0].startswith(f"error: {message}")
    if how == "raise":  # the rank's own traceback begins with the user's code
        assert done.err.startswith(
            f'Traceback (most recent call last):\n  File "{tmp_path}/script.py", line 5, in <module>\n'
        )
    else:
        assert "Traceback" not in done.err


def test_ranks_are_started_again_after_one_failed(launch: Command, tmp_path: Path) -> None:
    done = launch("--nproc", "2", "--max-restarts", "1", write(tmp_path, RECOVER))
    assert (done.code, done.out) == (0, "recovered\n" * 2)
    host = socket.gethostname()
    assert done.err.endswith(f"{host}: rank 1 of 2 failed: ValueError: image 3 is torn; restart 1 of 1\n")


def test_when_no_restarts_are_left_the_last_failure_is_shown(launch: Command, tmp_path: Path) -> None:
    done = launch("--nproc", "1", "--max-restarts", "1", write(tmp_path, "import sys; sys.exit(5)"))
    failure = "rank 0 of 1 ended with exit code 5; its own output says why"
    assert done == Called(5, "", f"{socket.gethostname()}: {failure}; restart 1 of 1\nerror: {failure}\n")


def test_ranks_that_were_asked_to_stop_are_not_started_again(launch: Command, tmp_path: Path) -> None:
    done = launch("--nproc", "2", "--max-restarts", "3", write(tmp_path, STOP + STOP_ONE), tmp_path)
    assert done == Called(128 + signal.SIGTERM, "", "")
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in (0, 1)] == [str(int(signal.SIGTERM))] * 2


def start(tmp_path: Path, program: str, *options: str, command: Sequence[str | Path] = FRESH) -> subprocess.Popen[str]:
    """Start a launcher of its own, with a session of its own as at a terminal."""
    return subprocess.Popen(
        [*command, "launch", *options, write(tmp_path, program), tmp_path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_end(*pids: int) -> None:
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "is_detached"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_signal_to_the_launcher_lets_the_ranks_save_their_work(
    number: signal.Signals, is_detached: bool, tmp_path: Path, scripts: Path, started: list[subprocess.Popen[str]]
) -> None:
    command = ("nohup", *FRESH) if is_detached else (scripts / "treenail",)
    launcher = start(tmp_path, STOP + WAIT, "--nproc", "2", command=command)
    started.append(launcher)
    pids = wait_for(tmp_path / "ready-0", tmp_path / "ready-1")
    if is_detached:  # nohup ignores it
        launcher.send_signal(signal.SIGHUP)
        time.sleep(0.5)
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=60)
    saved = [(tmp_path / f"saved-{rank}").read_text() for rank in (0, 1)]
    assert saved == [str(int(number))] * 2  # they were waited for
    assert (launcher.returncode, errors) == (128 + number, "")
    wait_for_end(*pids)


def test_ranks_of_a_killed_launcher_save_their_work_or_end_when_they_cannot(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    launcher = start(tmp_path, STOP + WAIT_IN_C, "--nproc", "2", "--grace", "2")
    started.append(launcher)
    pids = wait_for(tmp_path / "ready-0", tmp_path / "ready-1")
    launcher.kill()
    wait_for_end(*pids)
    assert (tmp_path / "saved-0").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "saved-1").exists()


def test_ranks_that_do_not_stop_in_time_are_killed(
    tmp_path: Path, scripts: Path, started: list[subprocess.Popen[str]]
) -> None:
    program = STOP.replace("time.sleep(1)", "return") + WAIT
    launcher = start(tmp_path, program, "--grace", "1", command=[scripts / "treenail"])
    started.append(launcher)
    pids = wait_for(tmp_path / "ready-0")
    launcher.terminate()
    assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert not any(alive(pid) for pid in pids)


def test_two_machines_meet_at_the_first_one(
    launch: Command, tmp_path: Path, scripts: Path, started: list[subprocess.Popen[str]]
) -> None:
    program = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(os.environ['MASTER_PORT'])"
    )
    options = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    second = start(tmp_path, program, *options, "--node-rank", "1", command=[scripts / "treenail"])
    started.append(second)
    assert launch(*options, "--node-rank", "0", tmp_path / "script.py", tmp_path) == Called(0, "", "")
    assert second.wait(timeout=60) == 0
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()


def test_a_machine_that_joins_and_one_that_leaves_restart_the_ranks_where_they_were(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scripts: Path,
    started: list[subprocess.Popen[str]],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    endpoint = f"localhost:{free_port()}"

    def come_and_go() -> None:
        wait_for_lines(tmp_path / "attempts", 1)
        options = ["--nnodes", "1:2", "--rdzv-endpoint", endpoint]
        started.append(start(tmp_path, COUNT, *options, command=[scripts / "treenail"]))
        wait_for(tmp_path / "counted-0", tmp_path / "counted-1")
        started[0].terminate()

    script = write(tmp_path, COUNT)
    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    try:
        code = launch_ranks(
            ["script", str(script), str(tmp_path)], 1, Machines(1, 2, endpoint=endpoint, last_call=3), max_restarts=1
        )
    finally:
        visitor.join()
    assert (code, started[0].wait(timeout=60)) == (0, 128 + signal.SIGTERM)
    # One launch of three attempts: each began where the one before had stopped.
    assert (tmp_path / "attempts").read_text().splitlines() == ["1 False", "2 True", "1 True"]
    line = f"{socket.gethostname()}: the number of machines changes, and the ranks start again\n"
    assert capfd.readouterr().err == line * 2


def test_a_rank_of_srun_is_the_process_itself(tmp_path: Path) -> None:
    script = write(tmp_path, "import os; print(os.getpid(), os.environ['RANK'], os.environ['MASTER_PORT'])")
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "n1",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }
    command = [sys.executable, "-m", "treenail.adapters.cli", "launch", "--launcher", "slurm", "--master-port", "29876"]
    process = subprocess.Popen([*command, str(script)], env=os.environ | step, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=60)
    assert (output, process.returncode) == (f"{process.pid} 1 29876\n", 0)


def test_a_mistake_in_a_config_is_said_once(launch: Command, tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("optimiser: {type: sgd}\n")
    done = launch("--nproc", "2", "train", config)
    errors = done.err.splitlines()
    assert done.code == 2
    # A rank that is slower to find it is ended by then.
    assert re.match(r"error: (all 2 ranks|rank [01] of 2) failed: ", errors[0])
    assert all(line.startswith("error: ") for line in errors)
    assert done.err.count("Run takes no 'optimiser'; did you mean 'optimizer'?") == 1


def test_a_taken_port_is_an_error_that_says_so(launch: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = launch("--master-port", str(port), write(tmp_path, ""))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: 127.0.0.1:{port}: port {port} is taken by another process; choose another one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to launch"),
        (["--"], "there is nothing to launch"),
        (["--", "-m"], "-m names no module"),
        (["trian", "x.yaml"], "'trian' is neither a command of treenail nor a Python script; did you mean 'train'?"),
        (["digits.yaml"], "'digits.yaml' is neither a command of treenail nor a Python script"),
        (["launch", "train"], "a launch cannot launch another one"),
        (["absent.py"], "absent.py: there is no such script"),
        (["--nproc", "0", "s.py"], "cannot start 0 processes; a world has at least 1"),
        (["--nproc", "two", "s.py"], "--nproc: 'two' is no number of processes"),
        (["--nproc", "-1", "s.py"], "--nproc: '-1' is no number of processes"),
        (["--nnodes", "0", "s.py"], "0 to 0 machines are no range"),
        (["--nnodes", "3:2", "--rdzv-endpoint", "a:1", "s.py"], "3 to 2 machines are no range"),
        (["--nnodes", "x", "s.py"], "--nnodes: 'x' is no number of machines"),
        (["--nnodes", "2", "s.py"], "several machines have to find each other; add --node-rank"),
        (
            ["--nnodes", "2:4", "--node-rank", "0", "--master-addr", "a", "--master-port", "1", "s.py"],
            "2 to 4 machines meet at a common place, and none is given; add --rdzv-endpoint",
        ),
        (
            ["--nnodes", "2", "--node-rank", "2", "--master-addr", "a", "--master-port", "1", "s.py"],
            "there is no machine 2 of 2",
        ),
        (
            ["--rdzv-endpoint", "a:1", "--node-rank", "0", "s.py"],
            "--rdzv-endpoint is a meeting place without a first machine",
        ),
        (
            ["--nnodes", "1:2", "--rdzv-endpoint", "node0", "s.py"],
            "--rdzv-endpoint: 'node0' has no port; give HOST:PORT, the same on all machines: node0:29500",
        ),
        (["--grace", "-1", "s.py"], "-1 s is no time to stop in"),
        (["--max-restarts", "-1", "s.py"], "-1 restarts are not possible"),
        (
            ["--launcher", "slurm", "s.py"],
            "launcher 'slurm' needs the environment variables SLURM_PROCID, SLURM_NTASKS",
        ),
        (["--launcher", "mpi", "s.py"], "launcher 'mpi' needs the environment variables OMPI_COMM_WORLD_RANK"),
        (["--launcher", "slurm", "--nproc", "2", "s.py"], "--nproc cannot be said with --launcher slurm"),
        (
            ["--launcher", "spawn", "--nnodes", "2", "--rdzv-endpoint", "a:1", "s.py"],
            "--launcher spawn starts processes",
        ),
    ],
)
def test_wrong_arguments_are_one_line(launch: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "s.py").write_text("raise SystemExit('it was started')\n")
    (tmp_path / "digits.yaml").write_text("")
    done = launch(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"error: {message}")


def test_a_mistake_in_the_launched_commands_arguments_ends_before_anything_starts(launch: Command) -> None:
    done = launch("--nproc", "2", "train", CONFIG, "--resmue")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("error: unrecognized arguments: --resmue\n")

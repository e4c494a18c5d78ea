"""`treenail launch` as a user calls it: real ranks, their failures, and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.launch.listening import free_port, is_loopback, listening_addresses
from treenail.adapters.cli import main

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
time.sleep(600)
"""


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
    assert done.err.endswith("rank 1 failed: ValueError: image 3 is torn; restart 1 of 1\n")


def test_when_no_restarts_are_left_the_last_failure_is_shown(launch: Command, tmp_path: Path) -> None:
    done = launch("--nproc", "1", "--max-restarts", "1", write(tmp_path, "import sys; sys.exit(5)"))
    restart = "a rank ended without a word; restart 1 of 1\n"
    assert done == Called(5, "", restart + "error: rank 0 of 1 ended with exit code 5; its own output says why\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_launcher_lets_the_ranks_save_their_work(
    number: signal.Signals, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    command = [
        sys.executable,
        "-m",
        "treenail.adapters.cli",
        "launch",
        "--nproc",
        "2",
        str(write(tmp_path, STOP)),
        str(tmp_path),
    ]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    started.append(launcher)
    pids = wait_for(tmp_path / "ready-0", tmp_path / "ready-1")
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=60)
    saved = [tmp_path / "saved-0", tmp_path / "saved-1"]
    if number is signal.SIGKILL:  # nobody waits for the ranks then, but they hear of it
        assert wait_for(*saved) == [signal.SIGTERM] * 2
    else:
        assert [file.read_text() for file in saved] == [str(int(number))] * 2  # they were waited for
        assert (launcher.returncode, errors) == (128 + number, "")
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ranks_that_do_not_stop_in_time_are_killed(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    stubborn = STOP.replace("time.sleep(1)", "return")
    command = [
        sys.executable,
        "-m",
        "treenail.adapters.cli",
        "launch",
        "--grace",
        "1",
        str(write(tmp_path, stubborn)),
        str(tmp_path),
    ]
    launcher = subprocess.Popen(command, start_new_session=True, text=True)
    started.append(launcher)
    pids = wait_for(tmp_path / "ready-0")
    launcher.terminate()
    assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert not any(alive(pid) for pid in pids)


def test_a_hangup_is_ignored_under_nohup(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    command = [
        "nohup",
        sys.executable,
        "-m",
        "treenail.adapters.cli",
        "launch",
        str(write(tmp_path, STOP)),
        str(tmp_path),
    ]
    launcher = subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True
    )
    started.append(launcher)
    wait_for(tmp_path / "ready-0")
    launcher.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    launcher.terminate()
    assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved-0").read_text() == str(int(signal.SIGTERM))


def test_two_machines_meet_at_the_first_one(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    script, port = write(tmp_path, TALK), free_port()
    command = [sys.executable, "-m", "treenail.adapters.cli", "launch", "--nproc", "1", "--nnodes", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    machines = [
        subprocess.Popen(
            [*command, "--node-rank", str(rank), str(script)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    started += machines
    outputs = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert all(re.search(r'"__main__", 1.0, "\d+", (true|false), \[\]\]\n$', output) for output in outputs)


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
    assert errors[0].startswith("error: all 2 ranks failed: ")
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


def test_a_mistake_in_the_launched_commands_arguments_ends_before_anything_starts(
    launch: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        launch("--nproc", "2", "train", CONFIG, "--resmue")
    assert ended.value.code == 2
    assert "unrecognized arguments: --resmue" in capfd.readouterr().err

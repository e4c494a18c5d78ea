"""Two processes do not write one place."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from treenail.adapters.files import LocalFiles, MemoryFiles
from treenail.adapters.runtime.locks import LOCK, Holder, locked, locked_checkpoints
from treenail.kernel import ConfigError, FileBackend

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_file_that_a_run_misses_is_told_and_the_lock_released(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"), locked(tmp_path):
        (tmp_path / "no-such-file").read_bytes()
    assert not (tmp_path / LOCK).exists()


def test_a_work_directory_is_held_once_and_released(tmp_path: Path) -> None:
    refusals: list[str] = []

    def another() -> None:  # a lock of an open file keeps others of the same process out, too
        try:
            with locked(tmp_path):
                pass
        except ConfigError as error:
            refusals.append(str(error))

    with locked(tmp_path):
        another()
    assert len(refusals) == 1
    assert f"on {HOST} is writing this work directory; wait for it, or choose another --work-dir" in refusals[0]
    assert not (tmp_path / LOCK).exists()
    another()
    assert len(refusals) == 1


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(
    tmp_path: Path, ended: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LOCK).write_text(f"process {ended} on {HOST}")
    with locked(tmp_path):
        assert f"process {ended} on {HOST} was killed; its lock is taken over" in capfd.readouterr().err
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_another_machine_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 12 on elsewhere.example")
    message = rf"process 12 on elsewhere\.example has not released this work directory.*if it is over, delete .*/{LOCK}"
    with pytest.raises(ConfigError, match=message), locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == "process 12 on elsewhere.example"


def test_a_requeued_job_takes_over_what_it_left_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    files = MemoryFiles()
    for job, restart, is_over in (("4711", 1, True), ("4711", 2, False), ("4712", 1, False), ("", 0, False)):
        left = Holder("elsewhere.example", 12, "token", job, restart)
        (tmp_path / LOCK).write_text(str(left))
        files.write(LOCK, msgspec.json.encode(left))
        for held in (locked(tmp_path), locked_checkpoints(files)):
            with nullcontext() if is_over else pytest.raises(ConfigError, match="12 on elsewhere"), held:
                pass
        assert ("is taken over" in capfd.readouterr().err) == is_over
    (tmp_path / LOCK).unlink()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().endswith(f"on {HOST}, restart 2 of Slurm job 4711")


def test_a_file_system_without_locks_is_told_from_one_that_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    def refuse(file: object, operation: int) -> None:  # as flock(2) of such a mount
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(f"process {ended} on {HOST}")
    with locked(tmp_path):
        pass
    (tmp_path / LOCK).write_text(f"process {os.getppid()} on {HOST}")
    with pytest.raises(ConfigError, match=f"process {os.getppid()} on {HOST} is writing"), locked(tmp_path):
        pass


def hold(work_dir: Path) -> None:
    with locked(work_dir):
        pass


def test_a_directory_that_takes_no_lock_is_told_of_by_name(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a disk without room
    try:
        with pytest.raises(
            ConfigError, match=f"{LOCK}: the work directory cannot be written: File too large; make room"
        ):
            hold(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / LOCK).exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        hold(tmp_path / "file")


def test_a_lock_that_cannot_be_removed_hides_no_error_of_the_run(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path):
            (tmp_path / LOCK).unlink()
            (tmp_path / LOCK).mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        fail()


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_place_of_checkpoints_is_held_once_and_released(
    kind: str, tmp_path: Path, ended: int, capfd: pytest.CaptureFixture[str]
) -> None:
    files: FileBackend = MemoryFiles() if kind == "memory" else LocalFiles(tmp_path)
    with locked_checkpoints(files):
        holder = msgspec.json.decode(files.read(LOCK), type=Holder)
        assert holder.host == HOST
    assert list(files.list()) == []
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as alive:
        for number, host in ((alive.pid, HOST), (ended, "elsewhere.example")):
            left = msgspec.json.encode(Holder(host, number, "token"))
            files.write(LOCK, left)
            refused = (
                rf"process {number} on {host} is saving its checkpoints there; wait .* delete the file 'lock' there"
            )
            with pytest.raises(ConfigError, match=refused), locked_checkpoints(files):
                pass
            assert files.read(LOCK) == left
        alive.communicate(b"\n")
    files.write(LOCK, b"nonsense")
    with pytest.raises(ConfigError, match="another process is saving"), locked_checkpoints(files):
        pass
    files.write(LOCK, msgspec.json.encode(Holder(HOST, ended, "token")))
    with locked_checkpoints(files):
        assert "has ended; its lock is taken over" in capfd.readouterr().err
    assert list(files.list()) == []

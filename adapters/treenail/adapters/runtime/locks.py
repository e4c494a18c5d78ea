"""Locks of the places that one run at a time writes: its work directory, and where its checkpoints lie."""

from __future__ import annotations

import errno
import os
import re
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from treenail.adapters.files import file_exists, lock, redacted
from treenail.adapters.logging import terminal_logger
from treenail.contracts.files import CreatesFiles
from treenail.kernel import ConfigError, FileBackend, FileError, FileMissingError

LOCK: Final = "lock"
"""Name of the file that says which process writes a place."""


_HELD: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""By what the system says that another one holds a lock; any other error says that there are no locks."""


class Holder(msgspec.Struct, frozen=True):
    """The process that writes a place.

    Args:
        host: Its machine.
        process: Its number there.
        token: Tells it from a process that has the same number later.
        job: The Slurm job that it belongs to, if to one.
        restart: How often the job had been requeued.
    """

    host: str
    process: int
    token: str = ""
    job: str = ""
    restart: int = 0

    @staticmethod
    def own() -> Holder:
        """Return what this process is."""
        job, restart = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "")
        return Holder(socket.gethostname(), os.getpid(), uuid4().hex, job, int(restart) if restart.isdecimal() else 0)

    @staticmethod
    def read(text: str) -> Holder | None:
        """Return the holder that was written as `str` does; None of any other text."""
        found = re.fullmatch(r"process (\d+) on ([^,]+)(?:, restart (\d+) of Slurm job (.+))?", text)
        return Holder(found[2], int(found[1]), "", found[4] or "", int(found[3] or 0)) if found else None

    def is_over(self) -> bool:
        """Return whether the process is known to have ended; that of another machine is where its job was requeued since."""
        ours = Holder.own()
        if self.job and self.job == ours.job and self.restart < ours.restart:
            return True
        return self.host == ours.host and (self.process == ours.process or not is_alive(self.process))

    def __str__(self) -> str:
        job = f", restart {self.restart} of Slurm job {self.job}" if self.job else ""
        return f"process {self.process} on {self.host}{job}"


def is_alive(process: int) -> bool:
    """Return whether a process of this machine may be running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Hold a work directory for this process; the lock ends with the process, however it ends.

    A lock that a killed process of this machine left, or this Slurm job before it was requeued, is taken over with a notice.

    Raises:
        ConfigError: It is held, by this process, too; or a process of another machine left it; the message says which. Or it
            cannot be written.
    """
    path = work_dir / LOCK
    with _opened(path) as (file, is_locked):
        if left := _content(file):
            _take_over(left, path, is_locked=is_locked)
        try:
            try:
                file.truncate(0)
                file.write(str(Holder.own()).encode())
            except OSError as error:
                raise _unwritable(path, error) from error
            yield
        finally:
            with suppress(OSError):  # it may be read only by now; the run's own end counts
                path.unlink()  # while it is still held


@contextmanager
def _opened(path: Path) -> Iterator[tuple[FileIO, bool]]:
    """Open the lock file and lock it; give it, and whether it is locked: some network file systems have no locks."""
    while True:
        try:
            opened = path.open("a+b", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error
        with opened as file:
            _close_in_children(file)
            is_locked = True
            try:
                lock(file, wait=False)
            except OSError as error:
                if error.errno in _HELD:
                    raise _is_written(_content(file) or "another process", path) from None
                is_locked = False
            if _is_named(file, path):
                yield file, is_locked
                return


def _is_named(file: FileIO, path: Path) -> bool:
    """Return whether a lock file is still there: whoever held it may have removed it, and one without a name locks nothing."""
    if os.name == "nt":
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _content(file: FileIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the work directory cannot be written: {error.strerror or error}",
        where=str(path),
        mend="make room and check permissions there, or choose another --work-dir",
    )


def _is_written(holder: str, path: Path) -> ConfigError:
    mend = "wait for it, or choose another --work-dir"
    return ConfigError(f"{holder} is writing this work directory", where=str(path.parent), mend=mend)


def _take_over(left: str, path: Path, *, is_locked: bool) -> None:
    """Take over what a holder left; without locks it may be there, and what it wrote must say that it is not.

    Raises:
        ConfigError: It is there, or may be on another machine.
    """
    holder = Holder.read(left)
    if holder is not None and not holder.is_over():
        if holder.host != socket.gethostname():
            raise ConfigError(
                f"{left} has not released this work directory: it was killed, or is running where locks of files do not reach",
                where=str(path.parent),
                mend=f"if it is over, delete {path}; else wait for it, or choose another --work-dir",
            )
        if not is_locked:
            raise _is_written(left, path)
    terminal_logger().warning(f"{path.parent}: {left} was killed; its lock is taken over")


def _close_in_children(file: FileIO) -> None:
    """Let no forked process keep a lock: a loader's workers live on for seconds when their parent is killed."""
    known = weakref.ref(file)

    def close() -> None:
        if (opened := known()) is not None:
            opened.close()

    if hasattr(os, "register_at_fork"):  # POSIX only
        os.register_at_fork(after_in_child=close)


@contextmanager
def locked_checkpoints(files: FileBackend) -> Iterator[None]:
    """Hold a place of checkpoints for this process; for any store, where nothing but a file can say so.

    A lock that a killed process of this machine left, or this Slurm job before it was requeued, is taken over with a notice.

    Raises:
        ConfigError: Another process holds it, or may do so on another machine; the message says which.
        FileError: The store failed.
    """
    ours = Holder.own()
    content = msgspec.json.encode(ours)
    if not create(files, LOCK, content):
        theirs = _holder(files)
        if theirs is None or not theirs.is_over():
            raise ConfigError(
                f"{theirs or 'another process'} is saving its checkpoints there",
                where=redacted(files.uri),
                mend=f"wait for it, choose another place in files.checkpoints, or, if it is over, delete the file '{LOCK}' there",
            )
        terminal_logger().warning(f"{redacted(files.uri)}: {theirs} has ended; its lock is taken over")
        files.write(LOCK, content)
    if _holder(files) != ours:  # two took it over, or a store without conditional writes let both in
        raise ConfigError(
            "another process took this place at the same time", where=redacted(files.uri), mend="try again"
        )
    try:
        yield
    finally:
        with suppress(FileError):  # the run's own end counts
            if _holder(files) == ours:
                files.delete(LOCK)


def _holder(files: FileBackend) -> Holder | None:
    try:
        return msgspec.json.decode(files.read(LOCK), type=Holder)
    except (FileMissingError, msgspec.DecodeError):
        return None


def create(files: FileBackend, path: str, content: bytes) -> bool:
    """Write a file where there is none; return whether there was none."""
    if isinstance(files, CreatesFiles):
        return files.create(path, content)
    if file_exists(files, path):
        return False
    files.write(path, content)
    return True

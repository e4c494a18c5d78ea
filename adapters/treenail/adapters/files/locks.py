"""Locks between processes that end with their process: flock(2), and what Windows has in its place."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol


class OpenFile(Protocol):
    """What has a file descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def lock(file: OpenFile, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until it is unlocked, or closed by all processes that have it open.

    Args:
        file: What is locked.
        shared: Let others share it (POSIX only; elsewhere it is held alone).
        wait: Wait for whoever holds it.

    Raises:
        OSError: It is held, and `wait` is False.
    """
    if os.name == "nt":
        # Only on Windows is there a msvcrt, and only there does mypy know its contents.
        msvcrt = importlib.import_module("msvcrt")
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # POSIX only

        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def unlock(file: OpenFile) -> None:
    """Unlock an open file, also where a process that was forked meanwhile still has it open."""
    if os.name == "nt":
        msvcrt = importlib.import_module("msvcrt")
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl  # POSIX only

        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold a lock file for the block, and give it; it is made where there is none, and stays."""
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        lock(file)
        try:
            file.seek(0)
            yield file
            file.flush()
        finally:
            unlock(file)

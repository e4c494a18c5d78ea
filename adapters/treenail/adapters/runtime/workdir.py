"""Where a run keeps its files."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO
from uuid import uuid4

from treenail.adapters.documents import replace_text
from treenail.adapters.files import LocalFiles
from treenail.kernel import CheckpointError, ConfigError, FileError

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
_LAUNCH = "launch-id"


class Place(NamedTuple):
    """Where a run keeps its files, and whether it goes on there."""

    work_dir: Path
    resume: bool


def choose_place(config: Path, given: Path | None, *, resume: bool, launch: str | None) -> Place:
    """Choose the directory of a run; one that `treenail launch` started again goes on where its last attempt was.

    Args:
        config: The config's path.
        given: The directory that the user asked for.
        resume: Whether the user asked to go on.
        launch: What no other launch has, and all attempts of this one have.

    Raises:
        ConfigError: As `choose_work_dir`.
        CheckpointError: As `choose_work_dir`.
    """
    if launch is not None and (before := _launched(config, given, launch)):
        return Place(before, has_checkpoint(before))
    work_dir = choose_work_dir(config, given, resume=resume)
    if launch is not None:
        replace_text(work_dir / _LAUNCH, launch)
    return Place(work_dir, resume)


def _launched(config: Path, given: Path | None, launch: str) -> Path | None:
    """Return the directory that an earlier attempt of a launch chose."""
    directories = _runs(config) if given is None else [given]
    for directory in reversed(directories):
        path = directory / _LAUNCH
        if path.is_file() and path.read_text(encoding="utf-8") == launch:
            return directory
    return None


def _runs(config: Path) -> list[Path]:
    parent = Path("work_dirs") / config.stem.rpartition("::")[2]
    return sorted((each for each in parent.glob("[0-9]*") if each.name.isdigit()), key=lambda each: int(each.name))


def choose_work_dir(config: Path, given: Path | None, *, resume: bool) -> Path:
    """Return the directory of a run: the given one, or ``work_dirs/CONFIG/001``, ``002`` … in the current directory.

    Args:
        config: The config's path; its name without suffix names the directory.
        given: What the user asked for.
        resume: Go on in the given directory, or in the newest one that has a checkpoint.

    Raises:
        ConfigError: The directory already holds a run and `resume` is False, or cannot be written.
        CheckpointError: There is nothing to resume.
    """
    if given is None:
        parent = Path("work_dirs") / config.stem.rpartition("::")[2]
        runs = _runs(config)
        if resume:
            resumable = [each for each in runs if has_checkpoint(each)]
            if not resumable:
                raise CheckpointError(
                    "there is no checkpoint to resume from",
                    where=str(parent),
                    mend="leave --resume out, or name a --work-dir",
                )
            return resumable[-1]
        number = int(runs[-1].name) if runs else 0
        while True:  # two runs that begin at once must not share a directory
            number += 1
            given = parent / f"{number:03d}"
            try:
                given.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unwritable(given, error.strerror or str(error)) from None
            return given
    elif resume and not has_checkpoint(given):
        raise CheckpointError("there is no checkpoint to resume from", where=str(given), mend="leave --resume out")
    elif not resume and has_checkpoint(given):
        raise ConfigError(
            "this directory holds a run already",
            where=str(given),
            mend="go on with --resume, or choose another --work-dir",
        )
    _probe(given)
    return given


@contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Hold a work directory for this process; the lock ends with the process, however it ends.

    Raises:
        ConfigError: Another process holds it; the message says which.
    """
    path = work_dir / "lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"{holder} is writing this work directory",
                where=str(work_dir),
                mend="wait for it, or choose another --work-dir",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still held


def _lock(file: TextIO) -> None:
    if os.name == "nt":
        # Only on Windows is there a msvcrt, and only there does mypy know its contents.
        msvcrt = importlib.import_module("msvcrt")
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def has_checkpoint(work_dir: Path) -> bool:
    """Return whether there is something to resume."""
    return (work_dir / CHECKPOINTS / "latest").is_file()


def _probe(work_dir: Path) -> None:
    files = LocalFiles(work_dir)
    try:
        probe = f"probe-{uuid4().hex}"
        files.write(probe, b"")
        files.delete(probe)
    except FileError as error:
        raise _unwritable(work_dir, error.message.removeprefix("cannot write: ")) from None


def _unwritable(work_dir: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"the work directory cannot be written: {cause}", where=str(work_dir), mend="choose another --work-dir"
    )

"""Where a run keeps its files."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

import msgspec

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.documents import Location, replace_text
from treenail.adapters.files import LocalFiles, backend_at, current_mounts, file_exists, redacted
from treenail.adapters.runtime.locks import create, is_alive
from treenail.kernel import CheckpointError, ConfigError, FileBackend, FileError, FileMissingError

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
CLAIM = "run"
"""Name of the file beside checkpoints that says whose they are."""
_LAUNCH = "launch-id"


class Place(NamedTuple):
    """Where a run keeps its files.

    Args:
        work_dir: Its directory.
        resume: Whether it goes on there.
        saved: Whether an earlier attempt of the same launch has saved a checkpoint there.
    """

    work_dir: Path
    resume: bool
    saved: bool = False


def checkpoint_files(work_dir: Path, elsewhere: str | None = None) -> FileBackend:
    """Return where the checkpoints of a run lie.

    Args:
        work_dir: The run's directory, in which they lie by default.
        elsewhere: Directory or URI in which they lie instead.

    Raises:
        ConfigError: The place is one that cannot be written.
        FileError: Nothing serves the URI.
    """
    if elsewhere is None:
        return LocalFiles(work_dir / CHECKPOINTS)
    files = backend_at(current_mounts().resolve(elsewhere))
    if not files.capabilities.writable:
        raise _unwritable_checkpoints(files, "this store is read only")
    return files


def own_name(checkpoint: str, work_dir: Path, elsewhere: str | None = None) -> str | None:
    """Return the name of a checkpoint in the place of a run's own; None where it is a path or URI that leads elsewhere.

    Args:
        checkpoint: A pointer or a directory's name; or the path or URI of one.
        work_dir: The run's directory.
        elsewhere: As `checkpoint_files` takes it.

    Raises:
        FileError: Nothing serves the URI.
    """
    if not is_path(checkpoint):
        return checkpoint
    place = current_mounts().resolve(checkpoint)
    parent, _, name = place.path.rpartition("/")
    return name if backend_at(place._replace(path=parent)).uri == checkpoint_files(work_dir, elsewhere).uri else None


def is_path(checkpoint: str) -> bool:
    """Return whether a checkpoint is named by a path or URI."""
    return "/" in checkpoint or os.sep in checkpoint


def probe_checkpoints(files: FileBackend) -> None:
    """Write and delete a small file where checkpoints shall lie, so that hours later they can be saved.

    Raises:
        ConfigError: One of them is not possible.
    """
    try:
        _write_and_delete(files)
    except FileError as error:
        raise _unwritable_checkpoints(files, error.message) from error


@contextmanager
def claimed(files: FileBackend, run: str, work_dir: Path, *, resume: bool) -> Iterator[None]:
    """Say that a place of checkpoints is a run's, for as long as it has checkpoints there, or goes on.

    Args:
        files: The place.
        run: Identity of the run.
        work_dir: Its directory.
        resume: Whether it goes on from a checkpoint there, whose claim it then takes over.

    Raises:
        ConfigError: It is another run's.
        FileError: The store failed.
    """
    ours = _Claim(run, socket.gethostname(), os.getpid(), str(work_dir.absolute()))
    content = msgspec.json.encode(ours)
    if resume:
        files.write(CLAIM, content)
    elif (saved := file_exists(files, "latest")) or not create(files, CLAIM, content):
        theirs = _claim(files)
        # A run that ended before its first checkpoint, in this work directory or on this machine, needs the place no more.
        if saved or not (theirs is None or theirs.work_dir == ours.work_dir or theirs.is_over()):
            holder = (
                "another run" if theirs is None else f"run {theirs.run} (process {theirs.process} on {theirs.host})"
            )
            raise ConfigError(
                f"{holder} keeps its checkpoints there" + (f", begun in {theirs.work_dir}" if theirs else ""),
                where=redacted(files.uri),
                mend="choose another place in files.checkpoints, or go on with --resume"
                if saved
                else f"choose another place in files.checkpoints, or delete the file '{CLAIM}' there if that run is over",
            )
        files.write(CLAIM, content)
    try:
        yield
    finally:
        with suppress(FileError):  # the run's own end counts
            if not file_exists(files, "latest"):
                files.delete(CLAIM)


class _Claim(msgspec.Struct, frozen=True):
    """Who keeps checkpoints at a place."""

    run: str
    host: str
    process: int
    work_dir: str

    def is_over(self) -> bool:
        """Return whether the process is known to have ended."""
        return self.host == socket.gethostname() and not is_alive(self.process)


def _claim(files: FileBackend) -> _Claim | None:
    try:
        return msgspec.json.decode(files.read(CLAIM), type=_Claim)
    except (FileMissingError, msgspec.DecodeError):
        return None


def make_work_dir(work_dir: Path) -> None:
    """Make a run's directory where there is none.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(work_dir, error.strerror or str(error)) from None


def choose_place(
    config: Location,
    given: Path | None,
    *,
    resume: bool | Literal["auto"],
    launch: str | None,
    checkpoints: str | None = None,
    fork: bool = False,
) -> Place:
    """Choose the directory of a run; one that `treenail launch` started again goes on where its last attempt was.

    Args:
        config: Where the config lies.
        given: The directory that the user asked for.
        resume: Whether the user asked to go on; ``"auto"``: where there is something to go on from.
        launch: What no other launch has, and all attempts of this one have.
        checkpoints: Where the config keeps checkpoints, if it says so.
        fork: Whether the user asked to go on from a checkpoint elsewhere, which another run begins with.

    Raises:
        ConfigError: As `choose_work_dir`.
        CheckpointError: As `choose_work_dir`.
    """
    if launch is not None and (found := _launched(config, given, launch)):
        before, last = found
        saved = _last_saved(before, checkpoints) not in ("", last)
        return Place(before, has_checkpoint(before, checkpoints), saved)
    if fork and given is not None and has_checkpoint(given, checkpoints):
        raise ConfigError(
            "this directory holds a run already, and one that goes on from elsewhere is another",
            where=str(given),
            mend="leave out --checkpoint to go on with it, or choose another --work-dir",
        )
    if resume == "auto":
        resume = _is_resumable(config, given, checkpoints)
    resume = resume and not fork
    work_dir = choose_work_dir(config, given, resume=resume, checkpoints=checkpoints)
    if launch is not None:
        replace_text(work_dir / _LAUNCH, f"{launch}\n{_last_saved(work_dir, checkpoints)}")
    return Place(work_dir, resume)


def _launched(config: Location, given: Path | None, launch: str) -> tuple[Path, str] | None:
    """Return the directory that an earlier attempt of a launch chose, and the last checkpoint that it found there."""
    directories = _runs(config) if given is None else [given]
    for directory in reversed(directories):
        path = directory / _LAUNCH
        if path.is_file():
            found, _, last = path.read_text(encoding="utf-8").partition("\n")
            if found == launch:
                return directory, last
    return None


def _last_saved(work_dir: Path, checkpoints: str | None) -> str:
    """Return what the pointer to the last checkpoint says; nothing where there is none."""
    try:
        return checkpoint_files(work_dir, checkpoints).read("latest").decode(errors="replace")
    except FileMissingError:
        return ""


def _is_resumable(config: Location, given: Path | None, checkpoints: str | None) -> bool:
    """Return whether `choose_work_dir` finds something to resume."""
    directories = _runs(config) if given is None else [given]
    places = directories if checkpoints is None else [Path()]
    return any(has_checkpoint(each, checkpoints) for each in places)


def _runs(config: Location) -> list[Path]:
    parent = Path("work_dirs") / config.stem.rpartition("::")[2]
    return sorted((each for each in parent.glob("[0-9]*") if each.name.isdigit()), key=lambda each: int(each.name))


def choose_work_dir(config: Location, given: Path | None, *, resume: bool, checkpoints: str | None = None) -> Path:
    """Return the directory of a run: the given one, or ``work_dirs/CONFIG/001``, ``002`` … in the current directory.

    Args:
        config: The config's path; its name without suffix names the directory.
        given: What the user asked for.
        resume: Go on in the given directory, or in the newest one that has a checkpoint.
        checkpoints: Where the config keeps checkpoints, if it says so; a run that goes on from there may begin a
            directory, as on another machine.

    Raises:
        ConfigError: The directory already holds a run and `resume` is False, or cannot be written.
        CheckpointError: There is nothing to resume.
    """
    found = checkpoints is not None and has_checkpoint(Path(), checkpoints)
    if checkpoints is not None and found and not resume:
        raise ConfigError(
            "the checkpoints of a run lie there already",
            where=redacted(checkpoints),
            mend="go on with --resume, or choose another place in files.checkpoints",
        )
    if given is None:
        parent = Path("work_dirs") / config.stem.rpartition("::")[2]
        runs = _runs(config)
        if resume:
            resumable = [each for each in runs if found or has_checkpoint(each, checkpoints)]
            if resumable:
                return resumable[-1]
            if not found:
                raise CheckpointError(
                    "there is no checkpoint to resume from",
                    where=str(parent) if checkpoints is None else redacted(checkpoints),
                    mend="leave --resume out, take --auto-resume, or name a --work-dir",
                )
        return _new_directory(parent, int(runs[-1].name) if runs else 0)
    if resume and not has_checkpoint(given, checkpoints):
        where = str(given) if checkpoints is None else redacted(checkpoints)
        raise CheckpointError(
            "there is no checkpoint to resume from", where=where, mend="leave --resume out, or take --auto-resume"
        )
    if not resume and has_checkpoint(given):
        raise ConfigError(
            "this directory holds a run already",
            where=str(given),
            mend="go on with --resume, or choose another --work-dir",
        )
    _probe(given)
    return given


def _new_directory(parent: Path, number: int) -> Path:
    """Make the first directory after a number that nobody else makes at the same time."""
    while True:
        number += 1
        made = parent / f"{number:03d}"
        try:
            made.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(made, error.strerror or str(error)) from None
        return made


def has_checkpoint(work_dir: Path, elsewhere: str | None = None) -> bool:
    """Return whether there is something to resume, in a work directory or where the config keeps checkpoints."""
    files = checkpoint_files(work_dir, elsewhere)
    return file_exists(files, "latest") or any(CheckpointStore(files).manifests())


def _probe(work_dir: Path) -> None:
    try:
        _write_and_delete(LocalFiles(work_dir))
    except FileError as error:
        raise _unwritable(work_dir, error.message.removeprefix("cannot write: ")) from None


def _write_and_delete(files: FileBackend) -> None:
    probe = f"probe-{uuid4().hex}"
    files.write(probe, b"")
    files.delete(probe)


def _unwritable_checkpoints(files: FileBackend, cause: str) -> ConfigError:
    return ConfigError(
        f"files.checkpoints cannot be written: {cause.removeprefix('cannot write: ')}",
        where=redacted(files.uri),
        mend="choose another place in files.checkpoints",
    )


def _unwritable(work_dir: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"the work directory cannot be written: {cause}", where=str(work_dir), mend="choose another --work-dir"
    )

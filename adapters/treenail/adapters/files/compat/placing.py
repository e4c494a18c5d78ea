"""What Python's `os` and `shutil` do to files and trees, done to places of any two stores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from treenail.adapters.files import derived
from treenail.adapters.files.compat.errors import (
    AbsentError,
    ArgumentTypeError,
    DirectoryError,
    NoDirectoryError,
    SameFileError,
    StoreFailedError,
    TakenError,
    like,
)
from treenail.adapters.files.local.durable import UNFINISHED
from treenail.adapters.files.mounts import Place
from treenail.contracts.files import HasDirectories, HasLocalPaths
from treenail.kernel import FileError


def local_path(place: Place) -> Path | None:
    """Return where a place lies on this machine's disks; None where it does not."""
    if not isinstance(place.backend, HasLocalPaths):
        return None
    return place.backend.local_path(place.path) if place.path else place.backend.local_path("x").parent


def is_file(place: Place) -> bool:
    """Return whether a file lies there."""
    return bool(place.path) and derived.file_exists(place.backend, place.path)


def is_directory(place: Place) -> bool:
    """Return whether a directory lies there."""
    return derived.is_directory(place.backend, place.path)


def exists(place: Place) -> bool:
    """Return whether anything lies there."""
    return is_file(place) or is_directory(place)


def below(place: Place, name: str) -> Place:
    """Return the place of a name in a directory."""
    return place._replace(path=f"{place.path}/{name}" if place.path else name)


def forget(place: Place) -> None:
    """Let no local copy stand for what was there before."""
    if place.cache is not None:
        place.cache.forget(place.backend, place.path)


def absent(place: Place, *, directory: bool = False) -> StoreFailedError:
    """Return the error that says why there is no such file, or directory, as the system would."""
    local = local_path(place)
    if local is not None:
        try:
            found = local.is_dir() or not local.stat()
        except OSError as error:
            return like(error)(f"cannot be read: {error.strerror}", where=place.uri)
        if found is not directory:
            kind = DirectoryError if found else NoDirectoryError
            return kind(f"this is a {'directory' if found else 'file'}", where=place.uri)
    elif not directory and is_directory(place):
        return DirectoryError("this is a directory", where=place.uri)
    elif directory and is_file(place):
        return NoDirectoryError("this is a file", where=place.uri)
    return AbsentError(f"there is no such {'directory' if directory else 'file'}", where=place.uri)


def copy_file(origin: Place, place: Place) -> Place:
    """Copy a file with its permissions, as `shutil.copy` does, and return where it lies; missing directories are made.

    Raises:
        AbsentError: There is no such source.
        DirectoryError: The source is a directory.
        SameFileError: Both are the same file.
        FileError: A store failed; the target is as it was.
    """
    if is_directory(place):
        place = below(place, PurePosixPath(origin.path).name)
    if not is_file(origin):
        raise absent(origin)
    source, target = local_path(origin), local_path(place)
    both_local = source is not None and target is not None
    if (origin.backend, origin.path) == (place.backend, place.path) or (
        source is not None and target is not None and target.exists() and source.samefile(target)
    ):
        raise SameFileError("source and target are the same file", where=place.uri, mend="copy it to another name")
    derived.copy(origin.backend, origin.path, place.backend, place.path)
    forget(place)
    if both_local and source is not None and target is not None:
        shutil.copymode(source, target)
    return place


def copy_tree(origin: Place, place: Place) -> None:
    """Copy a directory; between local disks with permissions, times and empty directories, and whole or not at all.

    Raises:
        AbsentError: There is no such source.
        NoDirectoryError: It is a file.
        TakenError: The target exists.
        FileError: The target lies within the source, or a store failed.
    """
    if not is_directory(origin):
        raise absent(origin, directory=True)
    if exists(place):
        raise TakenError("the target exists", where=place.uri, mend="remove it first, or copy to another name")
    if origin.backend is place.backend and f"{place.path}/".startswith(f"{origin.path}/" if origin.path else ""):
        raise FileError("the target lies within the source", where=place.uri, mend="copy to another place")
    source, target = local_path(origin), local_path(place)
    if source is not None and target is not None:
        _copy_local_tree(source, target)
        return
    if isinstance(place.backend, HasDirectories):
        place.backend.make_directory(place.path)
    lead = len(origin.path) + 1 if origin.path else 0
    for each in origin.backend.list(origin.path):
        copied = below(place, each[lead:])
        derived.copy(origin.backend, each, copied.backend, copied.path)
        forget(copied)


def list_entries(
    place: Place, *, directories: bool, files: bool, suffix: str | tuple[str, ...] | None, recursive: bool
) -> Iterator[str]:
    """Yield what lies in a directory, relative to it, without hidden entries; a suffix asks for files only.

    Raises:
        AbsentError: There is no such directory; a store without directories yields nothing.
    """
    directories = directories and suffix is None
    top = local_path(place)
    found = _remote_entries(place, recursive) if top is None else _local_entries(os.fspath(top), "", recursive)
    for path, directory in found:
        if (directories if directory else files) and (directory or suffix is None or path.endswith(suffix)):
            yield path


def check_suffix(suffix: object) -> None:
    """Raise where a suffix is neither a text, nor texts, nor None."""
    texts = suffix if isinstance(suffix, tuple) else (suffix,)
    if suffix is not None and not all(isinstance(each, str) for each in texts):
        raise ArgumentTypeError(f"a suffix is a string or a tuple of them, not {suffix!r}")


def _local_entries(top: str, lead: str, recursive: bool) -> Iterator[tuple[str, bool]]:
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield lead + entry.name, False
            elif entry.is_dir():
                yield lead + entry.name, True
                if recursive:
                    yield from _local_entries(entry.path, f"{lead}{entry.name}/", recursive)


def _remote_entries(place: Place, recursive: bool) -> Iterator[tuple[str, bool]]:
    lead = len(place.path) + 1 if place.path else 0
    seen: set[str] = set()
    for each in place.backend.list(place.path):
        parts = each[lead:].split("/")
        if any(part.startswith(".") for part in parts):
            continue
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            directory = "/".join(parts[:depth])
            if directory not in seen:
                seen.add(directory)
                yield directory, True
        if recursive or len(parts) == 1:
            yield each[lead:], False


def _copy_local_tree(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NoDirectoryError("a file stands in the way", where=str(target)) from error
    unfinished = target.with_name(f".{os.urandom(8).hex()}{UNFINISHED}")
    try:
        shutil.copytree(source, unfinished, copy_function=_copy_durably)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_durably(source: str, target: str) -> None:
    shutil.copy2(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())

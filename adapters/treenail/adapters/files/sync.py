"""One directory made equal to another, over any two stores; only what changed is copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import NamedTuple

import msgspec

from treenail.adapters.files import derived
from treenail.adapters.files.batches import in_order
from treenail.adapters.files.locks import locked
from treenail.adapters.files.mounts import Mounts, Place, current_mounts
from treenail.adapters.files.operations import AnyPath, forget, is_within
from treenail.contracts.files import HasLocalPaths
from treenail.kernel import FileError, FileMissingError, FileStat

RECORD = ".treenail-sync"
"""Name of the file in the target that says what was copied; it is no part of what is synchronised."""
_COARSEST = 2.0
"""Seconds of the coarsest clock of a store (FAT's)."""


class Synced(NamedTuple):
    """What `sync` did: paths below the two directories."""

    copied: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: int


class _Copied(msgspec.Struct, frozen=True, array_like=True):
    """How both files were after a copy."""

    source: FileStat
    target: FileStat


def sync(
    source: AnyPath,
    target: AnyPath,
    *,
    delete: bool = False,
    concurrency: int = 8,
    progress: Callable[[str, int], None] | None = None,
    mounts: Mounts | None = None,
) -> Synced:
    """Make the files below one directory equal to those below another.

    A file is left alone only when its size, time and version are those that both sides had after its last copy; so an
    edit that keeps the size is noticed, on either side. A target on a local disk is synchronised by one process at a
    time; another one waits, and then finds nothing to do. Killed at any instant, each file is the old or the new one.

    Args:
        source: The directory that is copied.
        target: The directory that becomes equal.
        delete: Remove from the target what is not in the source.
        concurrency: How many files are copied at once.
        progress: Called with (path, bytes) after each copy.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no source.
        FileError: One directory lies within the other, or a store failed; the rest was copied.
    """
    table = current_mounts() if mounts is None else mounts
    origin, place = table.resolve(source), table.resolve(target)
    _check_apart(origin, place)
    if not derived.is_directory(origin.backend, origin.path):
        raise FileMissingError("there is no such directory", where=origin.uri)
    with _alone(place):
        record = _record(place)
        after: dict[str, _Copied] = {}
        before = {path: stat for path, stat in _below(place) if path != RECORD}
        wanted = {path: stat for path, stat in _below(origin) if path != RECORD}
        changed = []
        for path, stat in wanted.items():
            known = record.get(path)
            if known is not None and path in before and known == _Copied(stat, before[path]):
                after[path] = known
            else:
                changed.append(path)
        errors: list[FileError] = []

        def copy(path: str) -> tuple[str, _Copied | FileError]:
            try:
                return path, _copy(origin, place, path)
            except FileError as error:
                return path, error

        copied: list[str] = []
        try:
            with ThreadPoolExecutor(concurrency, thread_name_prefix="treenail-sync") as pool:
                for path, result in in_order(copy, changed, pool, concurrency):
                    if isinstance(result, FileError):
                        errors.append(result)
                        continue
                    copied.append(path)
                    if time.time() - result.source.modified > _COARSEST:  # else a later edit could look the same
                        after[path] = result
                    if progress is not None:
                        progress(path, result.target.size)
            gone = sorted(before.keys() - wanted.keys()) if delete and not errors else []
            for path in gone:
                with suppress(FileMissingError):
                    place.backend.delete(_join(place, path))
                forget(place._replace(path=_join(place, path)))
        finally:
            place.backend.write(_join(place, RECORD), msgspec.json.encode(after))
    if errors:
        more = f" (and {len(errors) - 1} other files)" if len(errors) > 1 else ""
        raise FileError(f"could not be copied{more}: {errors[0].message}", where=errors[0].where, mend=errors[0].mend)
    return Synced(tuple(copied), tuple(gone), len(wanted) - len(changed))


def _copy(origin: Place, place: Place, path: str) -> _Copied:
    """Copy a file, again when it changed meanwhile, so that what is recorded of it is true."""
    for _ in range(3):
        before = origin.backend.stat(_join(origin, path))
        derived.copy(origin.backend, _join(origin, path), place.backend, _join(place, path))
        forget(place._replace(path=_join(place, path)))
        if origin.backend.stat(_join(origin, path)) == before:
            return _Copied(before, place.backend.stat(_join(place, path)))
    raise FileError("the file changed during each of 3 copies", where=f"{origin.uri}/{path}", mend="sync it later")


def _below(place: Place) -> Iterator[tuple[str, FileStat]]:
    lead = len(place.path) + 1 if place.path else 0
    for path, stat in derived.scan(place.backend, place.path):
        yield path[lead:], stat


def _join(place: Place, path: str) -> str:
    return f"{place.path}/{path}" if place.path else path


def _record(place: Place) -> dict[str, _Copied]:
    try:
        return msgspec.json.decode(place.backend.read(_join(place, RECORD)), type=dict[str, _Copied])
    except (FileMissingError, msgspec.DecodeError):
        return {}  # all is copied anew


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Let no other process of this machine synchronise the same local directory."""
    if isinstance(place.backend, HasLocalPaths):
        directory = place.backend.local_path(place.path)
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            guard: AbstractContextManager[object] = locked(directory.parent / f".{directory.name}{RECORD}.lock")
        except OSError as error:
            raise FileError(f"cannot write: {error.strerror or error}", where=str(directory)) from error
    else:
        guard = nullcontext()
    with guard:
        yield


def _check_apart(origin: Place, place: Place) -> None:
    if is_within(origin, place) or is_within(place, origin):
        raise FileError("source and target lie within each other", where=place.uri, mend="sync to another directory")

"""One directory made equal to another, over any two stores; only what changed is copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePosixPath
from typing import NamedTuple

import msgspec

from treenail.adapters.files import derived
from treenail.adapters.files.batches import check_concurrency, in_order
from treenail.adapters.files.local.durable import failure
from treenail.adapters.files.locks import locked
from treenail.adapters.files.mounts import Mounts, Place, resolved
from treenail.adapters.files.operations import AnyPath, is_within, links_not_followed
from treenail.adapters.files.workers import Workers
from treenail.contracts.files import HasDirectories
from treenail.kernel import FileError, FileMissingError, FileStat

RECORD = ".treenail-sync"
"""Name of the file in the target that says what was copied; it is no part of what is synchronised."""
_LOCK = f"{RECORD}.lock"
"""Name of the file in a local target that one process at a time holds; no part of it either."""
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
        concurrency: How many files are copied at once, at least 1.
        progress: Called with (path, bytes) after each copy.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no source.
        FileError: One directory lies within the other, the source has a symbolic link that leads to a directory or
            nowhere, or a store failed; the rest was copied.
    """
    check_concurrency(concurrency)
    origin, place = resolved(source, mounts), resolved(target, mounts)
    _check_apart(origin, place)
    if not derived.is_directory(origin.backend, origin.path):
        raise FileMissingError("there is no such directory", where=origin.uri)
    with _alone(place):
        before, wanted = dict(_below(place)), dict(_below(origin))
        after = _unchanged(_record(place), wanted, before)
        changed = [path for path in wanted if path not in after]
        surplus = before.keys() - wanted.keys() if delete else set[str]()
        if delete:
            _clear(place, changed, surplus)
        errors = list(links_not_followed(origin))

        def copy(path: str) -> tuple[str, _Copied | FileError]:
            try:
                return path, _copy(origin.below(path), place.below(path))
            except FileError as error:
                return path, error

        copied: list[str] = []
        with _recorded(place, after):
            with Workers(concurrency, "treenail-sync") as pool:
                for path, result in in_order(copy, changed, pool, concurrency):
                    if isinstance(result, FileError):
                        errors.append(result)
                        continue
                    copied.append(path)
                    if time.time() - result.source.modified > _COARSEST:  # else a later edit could look the same
                        after[path] = result
                    if progress is not None:
                        progress(path, result.target.size)
            gone = [] if errors else sorted(surplus)
            for path in gone:
                _delete(place.below(path))
    if errors:
        more = f" (and {len(errors) - 1} other files)" if len(errors) > 1 else ""
        raise FileError(f"could not be copied{more}: {errors[0].message}", where=errors[0].where, mend=errors[0].mend)
    return Synced(tuple(copied), tuple(gone), len(wanted) - len(changed))


def _copy(source: Place, target: Place) -> _Copied:
    """Copy a file, again when it changed meanwhile, so that what is recorded of it is true."""
    for _ in range(3):
        before = source.backend.stat(source.path)
        derived.copy(source.backend, source.path, target.backend, target.path)
        target.forget()
        if source.backend.stat(source.path) == before:
            return _Copied(before, target.backend.stat(target.path))
    raise FileError("the file changed during each of 3 copies", where=source.uri, mend="sync it later")


def _unchanged(
    record: dict[str, _Copied], wanted: dict[str, FileStat], before: dict[str, FileStat]
) -> dict[str, _Copied]:
    """Return which of the recorded copies still are what both sides have."""
    return {
        path: known
        for path, known in record.items()
        if path in wanted and path in before and known == _Copied(wanted[path], before[path])
    }


def _clear(place: Place, wanted: Iterable[str], surplus: Set[str]) -> None:
    """Remove from the target the files where directories are to be, and the directories where files are to be."""
    around = {str(parent) for path in wanted for parent in PurePosixPath(path).parents}
    for path in sorted(around & surplus):
        _delete(place.below(path))
    backend = place.backend
    if not isinstance(backend, HasDirectories):  # there, both may have one name
        return
    for path in wanted:
        target = place.below(path).path
        if not backend.is_directory(target):
            continue
        if derived.is_link(backend, target):
            backend.delete(target)
        else:
            backend.delete_directory(target)


def _delete(place: Place) -> None:
    with suppress(FileMissingError):
        place.backend.delete(place.path)
    place.forget()


def _below(place: Place) -> Iterator[tuple[str, FileStat]]:
    lead = len(place.path) + 1 if place.path else 0
    for path, stat in derived.scan(place.backend, place.path):
        if path[lead:] not in {RECORD, _LOCK}:
            yield path[lead:], stat


def _record(place: Place) -> dict[str, _Copied]:
    try:
        return msgspec.json.decode(place.backend.read(place.below(RECORD).path), type=dict[str, _Copied])
    except (FileMissingError, msgspec.DecodeError):
        return {}  # all is copied anew


@contextmanager
def _recorded(place: Place, after: Mapping[str, _Copied]) -> Iterator[None]:
    """Write what was copied, however the block ends; but Ctrl-C does not wait for a store that may stall."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or place.local is not None:
            _record_as(place, after)
        raise
    _record_as(place, after)


def _record_as(place: Place, after: Mapping[str, _Copied]) -> None:
    place.backend.write(place.below(RECORD).path, msgspec.json.encode(after))


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Let no other process of this machine synchronise the same local directory."""
    with ExitStack() as held:
        if (directory := place.local) is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(directory / _LOCK))
            except OSError as error:
                raise failure("write", directory, error) from error
        yield


def _check_apart(origin: Place, place: Place) -> None:
    if is_within(origin, place) or is_within(place, origin):
        raise FileError("source and target lie within each other", where=place.uri, mend="sync to another directory")

"""Many files concurrently, behind functions that are not asynchronous; memory is bounded by what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from treenail.adapters.files import derived
from treenail.adapters.files.contents import check_content
from treenail.adapters.files.mounts import Mounts, Place, current_mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.workers import Workers
from treenail.contracts.files import ReadsMany
from treenail.kernel import FileError, TreenailError

T = TypeVar("T")
R = TypeVar("R")

_WINDOW = 1024


class Written(NamedTuple):
    """What became of one file of `put_many`."""

    path: AnyPath
    error: FileError | None


def get_many(
    paths: Iterable[AnyPath], *, concurrency: int = 32, mounts: Mounts | None = None
) -> Iterator[bytes | FileError]:
    """Yield the content of each file, in order, or the error that reading it raised.

    Args:
        paths: Paths and URIs, of any stores; they may be endless.
        concurrency: How many are read at once.
        mounts: Where backends are found.

    Raises:
        FileError: concurrency is below 1.
    """
    check_concurrency(concurrency)
    return _got(iter(paths), concurrency, current_mounts() if mounts is None else mounts)


def _got(remaining: Iterator[AnyPath], concurrency: int, table: Mounts) -> Iterator[bytes | FileError]:
    with Workers(concurrency, "treenail-get") as pool:
        while window := [_resolved(path, table) for path in islice(remaining, _WINDOW)]:
            for backend, places in groupby(window, _reads_many):
                if backend is not None:
                    below = [place.path for place in places if isinstance(place, Place)]
                    yield from backend.read_many(below, concurrency=concurrency)
                else:
                    yield from in_order(_read, places, pool, concurrency)


def put_many(
    files: Iterable[tuple[bytes | Path, AnyPath]], *, concurrency: int = 32, mounts: Mounts | None = None
) -> Iterator[Written]:
    """Write files, and yield for each, in order, whether it was written.

    Args:
        files: (content, or a local file of it; path or URI).
        concurrency: How many are written at once.
        mounts: Where backends are found.

    Raises:
        FileError: concurrency is below 1.
    """
    check_concurrency(concurrency)
    table = current_mounts() if mounts is None else mounts

    def write(item: tuple[bytes | Path, AnyPath]) -> Written:
        content, path = item
        try:
            place = table.resolve(path)
            if isinstance(content, Path):
                derived.upload(content, place.backend, place.file())
            else:
                check_content(content, place.uri)
                place.backend.write(place.file(), content)
            place.forget()
        except TreenailError as error:
            return Written(path, _as_file_error(error))
        return Written(path, None)

    return _put(write, iter(files), concurrency)


def _put(
    write: Callable[[tuple[bytes | Path, AnyPath]], Written],
    files: Iterator[tuple[bytes | Path, AnyPath]],
    concurrency: int,
) -> Iterator[Written]:
    with Workers(concurrency, "treenail-put") as pool:
        yield from in_order(write, files, pool, concurrency)


def in_order(
    function: Callable[[T], R], items: Iterable[T], pool: Workers, concurrency: int, *, ahead: int = 2
) -> Iterator[R]:
    """Yield function(item) for each item, in order; at most ahead × concurrency are under way or wait to be taken."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead * concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _resolved(path: AnyPath, mounts: Mounts) -> Place | FileError:
    try:
        return mounts.resolve(path)
    except TreenailError as error:
        return _as_file_error(error)


def _reads_many(place: Place | FileError) -> ReadsMany | None:
    """Return the backend that reads a file along with its neighbours; None where each is read by itself."""
    if isinstance(place, Place) and place.cache is None and isinstance(place.backend, ReadsMany):
        return place.backend
    return None


def _read(place: Place | FileError) -> bytes | FileError:
    if isinstance(place, FileError):
        return place
    try:
        return place.read()
    except TreenailError as error:
        return _as_file_error(error)


def _as_file_error(error: TreenailError) -> FileError:
    if isinstance(error, FileError):
        return error
    wrapped = FileError(error.message, where=error.where, mend=error.mend)  # a package that is not installed
    wrapped.__cause__ = error
    return wrapped


def check_concurrency(concurrency: int) -> None:
    """Raise `FileError` where fewer than one file at once is asked for."""
    if concurrency < 1:
        raise FileError(f"concurrency is {concurrency}", mend="it is at least 1")

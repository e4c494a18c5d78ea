"""What any backend can do, by its own ability or else by the primitives of the port."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from treenail.adapters.files.paths import check_path
from treenail.contracts.files import (
    CopiesFiles,
    HasDirectories,
    ScansFiles,
    StreamsFiles,
)
from treenail.kernel import FileBackend, FileError, FileMissingError, FileStat

CHUNK = 8 * 1024 * 1024


def file_exists(backend: FileBackend, path: str) -> bool:
    """Return whether `path` is a file."""
    try:
        backend.stat(path)
    except FileMissingError:
        return False
    return True


def is_directory(backend: FileBackend, path: str) -> bool:
    """Return whether `path` ("" is the root) is a directory: one of the store's own, or what has files below it."""
    if isinstance(backend, HasDirectories):
        return backend.is_directory(path)
    return next(iter(backend.list(path)), None) is not None


def stream(backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield the bytes that `read` would return, in chunks.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed, or the file changed while it was read.
    """
    if isinstance(backend, StreamsFiles):
        yield from backend.stream(path, start, length)
        return
    before = backend.stat(path)
    if not backend.capabilities.ranges or before.size <= CHUNK:
        yield backend.read(path, start, length)
        return
    end = before.size if length is None else min(before.size, start + length)
    for position in range(start, end, CHUNK):
        yield backend.read(path, position, min(CHUNK, end - position))
    if backend.stat(path) != before:
        raise FileError("the file changed while it was read", where=f"{backend.uri}/{path}", mend="read it again")


def scan(backend: FileBackend, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
    """Yield (path, stat) of all files below the directory `prefix`, in order of their names' bytes."""
    if isinstance(backend, ScansFiles):
        yield from backend.scan(prefix)
        return
    for path in backend.list(prefix):
        with suppress(FileMissingError):  # deleted since it was listed
            yield path, backend.stat(path)


def copy(source: FileBackend, path: str, target: FileBackend, target_path: str) -> None:
    """Make a file of one backend hold what a file of another, or the same, holds."""
    if source is target and isinstance(target, CopiesFiles):
        target.copy(path, target_path)
        return
    chunks = stream(source, path)
    first = next(chunks, b"")  # a missing source must not begin a write
    target.write(target_path, _chained(first, chunks))


def download(backend: FileBackend, path: str, target: Path) -> None:
    """Make a local file hold what `path` holds; it appears whole, or not at all.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed, or the local file cannot be written.
    """
    temporary = target.with_name(f".{uuid4().hex}.treenail-unfinished")
    try:
        with temporary.open("xb") as file:
            for chunk in stream(backend, path):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise FileError(f"cannot write: {error.strerror or error}", where=str(target)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def upload(source: Path, backend: FileBackend, path: str) -> None:
    """Make `path` hold what a local file holds.

    Raises:
        FileMissingError: There is no such local file.
        FileError: It cannot be read, or the store failed.
    """
    check_path(path, backend.uri)
    try:
        file = source.open("rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileMissingError("there is no such file", where=str(source)) from error
    except OSError as error:
        raise FileError(f"cannot read: {error.strerror or error}", where=str(source)) from error
    with file:
        backend.write(path, iter(lambda: file.read(CHUNK), b""))


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest

"""What any backend can do, by its own ability or else by the primitives of the port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.local.durable import Unfinished, failure, replace_file
from treenail.adapters.files.paths import check_path, check_range, join_uri, path_below, redacted
from treenail.contracts.files import (
    CopiesFiles,
    HasLocalPaths,
    ListsEntries,
    ScansFiles,
    StreamsFiles,
    TellsDirectories,
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
    if isinstance(backend, TellsDirectories):
        return backend.is_directory(path)
    try:
        return next(iter(backend.list(path)), None) is not None
    except FileMissingError:  # the archive or the database that would hold it is not there
        return False


def identity(backend: FileBackend) -> str:
    """Return what tells a store from every other one."""
    # To ask whether it is a HasIdentity would take longer than all else of a hit in the cache.
    own = getattr(backend, "identity", None)
    return own if isinstance(own, str) else backend.uri


def stream(backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield the bytes that `read` would return, in chunks.

    Raises:
        FileMissingError: There is no such file.
        FileError: The range is negative, the store failed, or the file changed while it was read.
    """
    check_range(path, start, length)
    if isinstance(backend, StreamsFiles):
        yield from backend.stream(path, start, length)
        return
    before = backend.stat(path)
    if not backend.capabilities.ranges or before.size <= CHUNK:
        yield backend.read(path, start, length)
        return
    end = before.size if length is None else min(before.size, start + length)
    position = start
    while position < end:
        wanted = min(CHUNK, end - position)
        chunk = backend.read(path, position, wanted)
        if len(chunk) != wanted:
            break
        yield chunk
        position += wanted
    if position < end or backend.stat(path) != before:
        where = join_uri(redacted(backend.uri), path)
        raise FileError("the file changed while it was read", where=where, mend="read it again")


def scan(backend: FileBackend, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
    """Yield (path, stat) of all files below the directory `prefix`, in order of their names' bytes."""
    if isinstance(backend, ScansFiles):
        yield from backend.scan(prefix)
        return
    for path in backend.list(prefix):
        with suppress(FileMissingError):  # deleted since it was listed
            yield path, backend.stat(path)


def entries(backend: FileBackend, path: str = "", *, recursive: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (path relative to the directory, whether it is a directory) of what lies in it, each directory before its content.

    Args:
        backend: Where it lies.
        path: The directory; where there is none, nothing is yielded.
        recursive: Go down into directories; into symbolic links to directories, never.
    """
    if isinstance(backend, ListsEntries):
        waiting = [""]
        while waiting:
            lead = waiting.pop()
            below: list[str] = []
            for name, directory in backend.entries(path_below(path, lead.rstrip("/"))):
                yield lead + name, directory
                if recursive and directory and not is_link(backend, path_below(path, lead + name)):
                    below.append(f"{lead}{name}/")
            waiting += reversed(below)
        return
    skipped = len(path) + 1 if path else 0
    seen: tuple[str, ...] = ()  # the directories around the file before: what is sorted leaves a directory for ever
    for each in backend.list(path):
        parts = each[skipped:].split("/")
        around = tuple(parts[:-1])
        common = next((i for i, pair in enumerate(zip(seen, around, strict=False)) if pair[0] != pair[1]), len(seen))
        for depth in range(common, len(around) if recursive else min(len(around), 1)):
            yield "/".join(parts[: depth + 1]), True
        if recursive or not around:
            yield "/".join(parts), False
        seen = around


def copy(
    source: FileBackend,
    path: str,
    target: FileBackend,
    target_path: str,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make a file of one backend hold what a file of another, or the same, holds.

    Args:
        source: Where the file lies.
        path: Its path there.
        target: Where the copy lies.
        target_path: Its path there.
        progress: Called with the number of bytes of each chunk that was copied; once, where the store copies by itself.

    Raises:
        FileMissingError: There is no such source.
        FileError: A store failed; the target is as it was.
    """
    if _copied_by_store(source, path, target, target_path):
        if progress is not None:
            progress(target.stat(target_path).size)
        return
    chunks = stream(source, path)
    _write(target, target_path, chunks if progress is None else counted(chunks, progress))


def _copied_by_store(source: FileBackend, path: str, target: FileBackend, target_path: str) -> bool:
    """Copy without the bytes passing through this process where that is possible; return whether it was."""
    if isinstance(source, LocalFiles) and isinstance(target, LocalFiles):
        source.copy_to(path, target, target_path)
    elif source is target and isinstance(target, CopiesFiles):
        target.copy(path, target_path)
    else:
        return False
    return True


def download(backend: FileBackend, path: str, target: Path) -> None:
    """Make a local file hold what `path` holds; it appears whole, or not at all. Its directory must be there.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed, or the local file cannot be written.
    """

    def fill(file: Unfinished) -> None:
        for chunk in stream(backend, path):
            file.write(chunk)

    replace_file(target, fill)


def upload(source: Path, backend: FileBackend, path: str) -> None:
    """Make `path` hold what a local file holds.

    Raises:
        FileMissingError: There is no such local file.
        FileError: It cannot be read, or the store failed.
    """
    check_path(path, backend.uri)
    try:
        file = source.open("rb")
    except OSError as error:
        raise failure("read", source, error) from error
    with file:
        _write(backend, path, _chunks(file, source))


def _chunks(file: BinaryIO, source: Path) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK)
        except OSError as error:
            raise failure("read", source, error) from error
        if not chunk:
            return
        yield chunk


def _write(target: FileBackend, path: str, chunks: Iterator[bytes]) -> None:
    """Write chunks; only where there are several as an iterable, which a store may send in parts."""
    first = next(chunks, b"")  # a source that cannot be read must not begin a write
    second = next(chunks, None)
    target.write(path, first if second is None else chain((first, second), chunks))


def is_link(backend: FileBackend, path: str) -> bool:
    """Return whether `path` is a symbolic link of a local disk."""
    return isinstance(backend, HasLocalPaths) and backend.local_path(path).is_symlink()


def counted(chunks: Iterator[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield chunks, and tell the size of each after it was taken."""
    for chunk in chunks:
        yield chunk
        progress(len(chunk))

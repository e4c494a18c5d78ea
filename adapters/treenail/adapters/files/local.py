"""Local files with atomic, durable writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from uuid import uuid4

from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat

_UNFINISHED = ".treenail-unfinished"


class LocalFiles:
    """Files below a local directory.

    A write goes to a temporary file beside its target, is flushed to the disk (fsync), renamed over the target (atomic by
    POSIX rename(2)), and the directory is flushed: readers see the old or the new content, a power cut loses neither.

    Args:
        root: The directory; it is made by the first write.
        prune: Directories that a deletion leaves empty go with it, as they would in an object store.
    """

    def __init__(self, root: str | os.PathLike[str], *, prune: bool = True) -> None:
        self.root = Path(root).absolute()
        self.prune = prune

    @property
    def capabilities(self) -> Capabilities:
        """Atomic replacement and ranges."""
        return Capabilities(atomic_replace=True, ranges=True)

    @property
    def uri(self) -> str:
        """The root as a file URI."""
        return self.root.as_uri()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        if start < 0 or (length is not None and length < 0):
            raise FileError(f"cannot read {length} bytes from {start}", where=path, mend="both must be at least 0")
        target = self._resolve(path)
        with _explained("read", target), target.open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`, durably and atomically."""
        target = self._resolve(path)
        chunks = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
        temporary = target.with_name(f".{uuid4().hex}{_UNFINISHED}")
        with _explained("write", target):
            _make_directories(target.parent)
            try:
                with temporary.open("xb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _flush_directory(target.parent)

    def stat(self, path: str) -> FileStat:
        """Return size and time of a file."""
        target = self._resolve(path)
        with _explained("stat", target):
            found = target.stat()
            if not target.is_file():
                raise FileMissingError("there is no such file", where=str(target))
            return FileStat(size=found.st_size, modified=found.st_mtime)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their names' bytes."""
        top = self._resolve(prefix) if prefix else self.root
        found: list[str] = []
        with _explained("list", top):
            for directory, _, names in os.walk(top, onerror=_raise_unless_missing):
                below = Path(directory).relative_to(self.root).as_posix()
                lead = "" if below == "." else f"{below}/"
                found += [lead + name for name in names if not name.endswith(_UNFINISHED)]
        yield from sorted(found, key=os.fsencode)

    def delete(self, path: str) -> None:
        """Remove a file, durably; directories that it leaves empty go with it."""
        target = self._resolve(path)
        with _explained("delete", target):
            target.unlink()
            parent = target.parent
            while self.prune and parent != self.root:
                try:
                    parent.rmdir()
                except OSError:  # not empty
                    break
                parent = parent.parent
            if parent.exists():
                _flush_directory(parent)

    def _resolve(self, path: str) -> Path:
        pure = PurePosixPath(path)
        parts = path.split("/")
        unsound = "\0" in path or any("\ud800" <= character <= "\udfff" for character in path)
        if pure.is_absolute() or unsound or any(part in ("", ".", "..") for part in parts):
            raise FileError(
                f"{path!r} is not a path below the root",
                where=self.uri,
                mend="use a relative path such as 'runs/log.jsonl', without '.', '..' or empty parts",
            )
        if pure.name.endswith(_UNFINISHED):
            raise FileError(f"{path!r} has the ending of unfinished writes", where=self.uri, mend="rename it")
        target = self.root.joinpath(*pure.parts)
        # A symbolic link below the root must not lead out of it.
        if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(self.root)):
            raise FileError(f"{path!r} leads out of the root through a symbolic link", where=self.uri)
        return target


@contextmanager
def _explained(operation: str, target: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if operation == "write":
            raise FileError(f"cannot write: {error.strerror or error}", where=str(target)) from error
        raise FileMissingError(f"cannot {operation}: there is no such file", where=str(target)) from error
    except OSError as error:
        raise FileError(f"cannot {operation}: {error.strerror or error}", where=str(target)) from error


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_directories(directory: Path) -> None:
    """Make a directory and its missing parents, each one's entry flushed, so that a power cut keeps them."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        _flush_directory(made.parent)


def _flush_directory(directory: Path) -> None:
    if os.name == "nt":  # Windows has no handle of a directory to flush
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

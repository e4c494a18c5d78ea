"""A directory of a backend as a backend of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal

from treenail.adapters.files import derived
from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.mounts import Place
from treenail.adapters.files.paths import check_path, join_uri, path_below
from treenail.contracts.files import CreatesFiles, ReadsMany, SignsUrls
from treenail.kernel import Capabilities, FileBackend, FileError, FileStat


class FilesBelow:
    """What lies below a directory of a backend, by paths relative to it.

    It streams, scans and copies as the backend does; it creates, reads many and signs where the backend does.

    Args:
        backend: The backend.
        directory: Path of the directory in it.
    """

    def __init__(self, backend: FileBackend, directory: str) -> None:
        self.backend = backend
        self.directory = check_path(directory, backend.uri)
        self.uri = join_uri(backend.uri, directory)
        self.identity = join_uri(derived.identity(backend), directory)
        # Attributes, so that isinstance tells the truth of each object.
        if isinstance(backend, CreatesFiles):
            self.create = partial(_create, self, backend)
        if isinstance(backend, ReadsMany):
            self.read_many = partial(_read_many, self, backend)
        if isinstance(backend, SignsUrls):
            self.sign = partial(_sign, self, backend)

    def __reduce__(self) -> tuple[object, ...]:
        return FilesBelow, (self.backend, self.directory)

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self.backend.capabilities

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        return self.backend.read(self._whole(path), start, length)

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return, in chunks."""
        return derived.stream(self.backend, self._whole(path), start, length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`."""
        self.backend.write(self._whole(path), data)

    def stat(self, path: str) -> FileStat:
        """Return what the store knows of a file."""
        return self.backend.stat(self._whole(path))

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        lead = len(self.directory) + 1
        for path in self.backend.list(self._whole(prefix, root=True)):
            yield path[lead:]

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield (path, stat) of the files that `list` yields, in its order."""
        lead = len(self.directory) + 1
        for path, found in derived.scan(self.backend, self._whole(prefix, root=True)):
            yield path[lead:], found

    def is_directory(self, path: str) -> bool:
        """Return whether `path` ("" is the root) is a directory."""
        return derived.is_directory(self.backend, self._whole(path, root=True))

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds; within the store where it can."""
        derived.copy(self.backend, self._whole(source), self.backend, self._whole(target))

    def delete(self, path: str) -> None:
        """Remove a file."""
        self.backend.delete(self._whole(path))

    def _whole(self, path: str, *, root: bool = False) -> str:
        return path_below(self.directory, check_path(path, self.uri, root=root))


def _create(below: FilesBelow, backend: CreatesFiles, path: str, data: bytes | Iterable[bytes]) -> bool:
    return backend.create(below._whole(path), data)


def _read_many(
    below: FilesBelow, backend: ReadsMany, paths: Sequence[str], *, concurrency: int
) -> Iterator[bytes | FileError]:
    # Not checked here: for a bad path the backend yields an error in its place.
    return backend.read_many([f"{below.directory}/{path}" for path in paths], concurrency=concurrency)


def _sign(
    below: FilesBelow,
    backend: SignsUrls,
    path: str,
    *,
    method: Literal["GET", "PUT"] = "GET",
    expires: float = 3600.0,
) -> str:
    return backend.sign(below._whole(path), method=method, expires=expires)


def backend_at(place: Place) -> FileBackend:
    """Return a backend whose root is a directory; that of a local one is a `LocalFiles`."""
    if not place.path:
        return place.backend
    if (local := place.local) is not None:
        return LocalFiles(local)
    return FilesBelow(place.backend, place.path)

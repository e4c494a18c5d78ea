"""A directory of a backend as a backend of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.mounts import Place
from treenail.adapters.files.paths import check_path, join_uri
from treenail.contracts import HasLocalPaths
from treenail.kernel import Capabilities, FileBackend, FileStat


class FilesBelow:
    """What lies below a directory of a backend, by paths relative to it.

    Args:
        backend: The backend.
        directory: Path of the directory in it.
    """

    def __init__(self, backend: FileBackend, directory: str) -> None:
        self.backend = backend
        self.directory = check_path(directory, backend.uri)
        self.uri = join_uri(backend.uri, directory)

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self.backend.capabilities

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        return self.backend.read(self._whole(path), start, length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`."""
        self.backend.write(self._whole(path), data)

    def stat(self, path: str) -> FileStat:
        """Return what the store knows of a file."""
        return self.backend.stat(self._whole(path))

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        lead = len(self.directory) + 1
        for path in self.backend.list(self._whole(prefix) if prefix else self.directory):
            yield path[lead:]

    def delete(self, path: str) -> None:
        """Remove a file."""
        self.backend.delete(self._whole(path))

    def _whole(self, path: str) -> str:
        return f"{self.directory}/{check_path(path, self.uri)}"


def backend_at(place: Place) -> FileBackend:
    """Return a backend whose root is a directory; that of a local one is a `LocalFiles`."""
    if not place.path:
        return place.backend
    if isinstance(place.backend, HasLocalPaths):
        return LocalFiles(place.backend.local_path(place.path))
    return FilesBelow(place.backend, place.path)

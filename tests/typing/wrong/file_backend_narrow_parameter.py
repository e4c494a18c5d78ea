"""A file backend that writes whole contents only."""

from collections.abc import Iterator

from treenail.kernel import Capabilities, FileBackend, FileStat


class MemoryFiles:
    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=True)

    @property
    def uri(self) -> str:
        return "memory://"

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return self._files[path][start:][:length]

    def write(self, path: str, data: bytes) -> None:
        self._files[path] = data

    def stat(self, path: str) -> FileStat:
        return FileStat(size=len(self._files[path]), modified=0.0)

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(path for path in self._files if path.startswith(prefix)))

    def delete(self, path: str) -> None:
        del self._files[path]


files: FileBackend = MemoryFiles()  # E: Got: ... def write(self, path: str, data: bytes) -> None

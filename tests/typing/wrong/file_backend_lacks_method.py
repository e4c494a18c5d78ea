"""A file backend without delete."""

from collections.abc import Iterable, Iterator

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

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self._files[path] = data if isinstance(data, bytes) else b"".join(data)

    def stat(self, path: str) -> FileStat:
        return FileStat(size=len(self._files[path]), modified=0.0)

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(path for path in self._files if path.startswith(prefix)))


files: FileBackend = MemoryFiles()  # E: "MemoryFiles" is missing following "FileBackend" protocol member ... delete

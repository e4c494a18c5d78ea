"""A file backend of one's own: files in memory, for tests."""

from collections.abc import Iterable, Iterator

from treenail.kernel import Capabilities, FileBackend, FileMissingError, FileStat, Spec, spec


class MemoryFiles:
    def __init__(self, name: str) -> None:
        self._name = name
        self._files: dict[str, bytes] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=True)

    @property
    def uri(self) -> str:
        return f"memory://{self._name}"

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        content = self._find(path)
        return content[start:] if length is None else content[start : start + length]

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self._files[path] = data if isinstance(data, bytes) else b"".join(data)

    def stat(self, path: str) -> FileStat:
        return FileStat(size=len(self._find(path)), modified=0.0)

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(path for path in self._files if path.startswith(prefix)))

    def delete(self, path: str) -> None:
        del self._files[path]

    def _find(self, path: str) -> bytes:
        try:
            return self._files[path]
        except KeyError:
            raise FileMissingError("there is no such file", where=f"{self.uri}/{path}") from None


def copy_tree(source: FileBackend, destination: FileBackend) -> None:
    """What can be derived from the port is a function over any two backends."""
    for path in source.list():
        destination.write(path, source.read(path))


described: Spec[FileBackend] = spec(MemoryFiles)("there")
here, there = MemoryFiles("here"), described.build()
here.write("weights/a", [b"12", b"34"])
copy_tree(here, there)
assert there.read("weights/a", 1, 2) == b"23"
assert there.stat("weights/a").size == 4

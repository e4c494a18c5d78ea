"""Read-only file backends, each wrong in one way; all over a dict."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote
from uuid import uuid4

from treenail.adapters.files import MemoryFiles
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat


class Frozen:
    """A right one."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = MemoryFiles()
        for path, data in files.items():
            self._files.write(path, data)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=False, writable=False)

    @property
    def uri(self) -> str:
        return "frozen://"

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return self._files.read(path, start, length)

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self.read(path, start, length)
        return (data[at : at + 65_536] for at in range(0, len(data), 65_536))

    def stat(self, path: str) -> FileStat:
        return self._files.stat(path)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._files.list(prefix)

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        return ((path, self.stat(path)) for path in self.list(prefix))

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        raise FileError("this store is read only", where=path)

    def delete(self, path: str) -> None:
        raise FileError("this store is read only", where=path)


class KeepsTheLastSlash(Frozen):
    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        return "frozen://", uri.removeprefix("frozen://")


class SaysItIsWritable(Frozen):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=False)


class TranslatesNewlines(Frozen):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, start, length).replace(b"\r\n", b"\n")


class GivesViews(Frozen):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return memoryview(super().read(path, start, length))  # type: ignore[return-value]  # that is the mistake


class TakesTheLastByteForTheEnd(Frozen):
    """What Content-Range invites to."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, start, None if length is None else max(length - 1, 0))


class IgnoresTheStart(Frozen):
    """As a server without ranges does, unnoticed."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, 0 if length is None else start, length)


class RefusesRangesOfNothing(Frozen):
    """As a server does that answers 416."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if (start or length is not None) and not self.stat(path).size:
            raise FileError("the range is not satisfiable", where=path)
        return super().read(path, start, length)


class ReadsBackwards(Frozen):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path)[start:] if start < 0 else super().read(path, start, None if length == -1 else length)


class StreamsOneChunk(Frozen):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield self.read(path, start, length)[:65_536]


class StreamsNothingOfMissingFiles(Frozen):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return iter(()) if length == 0 else super().stream(path, start, length)


class CountsCharacters(Frozen):
    def stat(self, path: str) -> FileStat:
        size, modified, version = super().stat(path)
        return FileStat(size if size < 500 else size // 2, modified, version)


class MakesVersionsUp(Frozen):
    def stat(self, path: str) -> FileStat:
        return super().stat(path)._replace(version=uuid4().hex)


class TakesDirectoriesForEmptyFiles(Frozen):
    """As a server that answers a directory with a page."""

    def stat(self, path: str) -> FileStat:
        if next(iter(self.list(path)), None) is not None:
            return FileStat(0, 0.0)
        return super().stat(path)


class FindsNothingInMissingFiles(Frozen):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return b"" if length == 0 else super().read(path, start, length)


class TakesBadPathsForMissing(Frozen):
    def stat(self, path: str) -> FileStat:
        try:
            return super().stat(path)
        except FileError as error:
            raise FileMissingError("there is no such file", where=path) from error


class ListsBadPaths(Frozen):
    def list(self, prefix: str = "") -> Iterator[str]:
        return super().list(prefix.strip("/."))


class DecodesPercents(Frozen):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(unquote(path), start, length)


class CutsAtTheQuery(Frozen):
    def stat(self, path: str) -> FileStat:
        return super().stat(path.partition("?")[0] or path)


class WritesAfterAll(Frozen):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self._files.write(path, data)
        super().write(path, data)


class SwallowsWrites(Frozen):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        return


class MissesWhatItCannotDelete(Frozen):
    def delete(self, path: str) -> None:
        self.stat(path)
        super().delete(path)


class ListsTheFirstLevel(Frozen):
    def list(self, prefix: str = "") -> Iterator[str]:
        depth = prefix.count("/") + 1 if prefix else 0
        return (path for path in super().list(prefix) if path.count("/") == depth)


class ListsInTheOrderOfWords(Frozen):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(super().list(prefix), key=str.casefold)


class ScansSizesAlone(Frozen):
    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        return ((path, FileStat(found.size, 0.0)) for path, found in super().scan(prefix))


class ScansByBeginning(Frozen):
    """As an object store does that takes a directory for the beginning of a name."""

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        return (pair for pair in super().scan() if pair[0].startswith(prefix))


class SharesOneConnection(Frozen):
    """Where one thread asks, another gets the answer."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(files)
        self._asked = ""
        self._both = threading.Barrier(2)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        self._asked = path
        try:
            self._both.wait(0.05)  # two threads at once, if there are two
        except threading.BrokenBarrierError:
            self._both.reset()
        return super().read(self._asked, start, length)

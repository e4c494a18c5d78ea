"""File backends, each wrong in one way."""

import os
import posixpath
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from treenail.adapters.files import LocalFiles
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat


class ListsADirectoryOfItsOwn(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from sorted([*super().list(prefix), "lost+found/x"])


class HasNoUri(LocalFiles):
    @property
    def uri(self) -> str:
        return ""


class DeclaresNoCreation(LocalFiles):
    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(conditional_put=False)


class SaysItIsReadOnly(LocalFiles):
    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(writable=False)


class ReadsText(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, start, length).decode("utf-8", "replace").encode()


class ReturnsByteArrays(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return bytearray(super().read(path, start, length))  # type: ignore[return-value]  # that is the mistake


class SkipsEmptyWrites(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if joined := b"".join([data] if isinstance(data, bytes) else data):
            super().write(path, joined)


class ReadsOneMegabyte(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, start, length)[: 1 << 20]


class TakesTheLengthForTheEnd(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path, start, None if length is None else max(length - start, 0))


class TakesNoLengthForAll(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(path, start, length)
        return data or super().read(path, start, None)


class RefusesToReadBeyondTheEnd(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if start >= self.stat(path).size > 0:
            raise FileError("the range is not satisfiable", where=path)
        return super().read(path, start, length)


class SlicesLikePython(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return super().read(path)[start:][:length]


class WritesInPlace(LocalFiles):
    """What most code does: opens the target and writes into it."""

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        target = Path(self._locate(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb", buffering=0) as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                file.write(chunk)


class KeepsALongerTail(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        joined = b"".join([data] if isinstance(data, bytes) else data)
        try:
            super().write(path, joined + self.read(path, len(joined)))
        except FileMissingError:
            super().write(path, joined)


class CountsTheChunksFirst(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if not isinstance(data, bytes):
            sum(map(len, data))
        super().write(path, data)


class DeletesBeforeItWrites(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if Path(self._locate(path)).is_file():
            self.delete(path)
        super().write(path, data)


class WritesWhatItGot(LocalFiles):
    """Keeps what came before the source broke, where there was nothing to lose."""

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        got: list[bytes] = []
        try:
            for chunk in [data] if isinstance(data, bytes) else data:
                got.append(chunk)  # noqa: PERF402 - what came before the failure is wanted
        except BaseException:
            if not Path(self._locate(path)).exists():
                super().write(path, b"".join(got))
            raise
        super().write(path, got)


class SwallowsFailures(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        try:
            super().write(path, data)
        except BaseException as error:
            if isinstance(error, FileError):
                raise


class ShowsItsTemporaryFile(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        super().write(path + ".part", b"")
        try:
            super().write(path, data)
        finally:
            self.delete(path + ".part")


class CountsBlocks(LocalFiles):
    def stat(self, path: str) -> FileStat:
        size, modified, _ = super().stat(path)
        return FileStat(-(-size // 512) * 512, modified)


class CountsMilliseconds(LocalFiles):
    def stat(self, path: str) -> FileStat:
        size, modified, _ = super().stat(path)
        return FileStat(size, modified * 1000)


class ReadsMissingFilesAsEmpty(LocalFiles):
    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            return super().read(path, start, length)
        except FileMissingError:
            return b""


class DeletesWhatIsMissing(LocalFiles):
    def delete(self, path: str) -> None:
        try:
            super().delete(path)
        except FileMissingError:
            return


class TakesDirectoriesForFiles(LocalFiles):
    def stat(self, path: str) -> FileStat:
        if (target := Path(self._locate(path))).is_dir():
            return FileStat(0, target.stat().st_mtime)
        return super().stat(path)


class SortsByParts(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(super().list(prefix), key=lambda path: path.split("/"))


class SortsByUtf16(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from sorted(super().list(prefix), key=lambda path: path.encode("utf-16-be"))


class ListsOneLevel(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        depth = prefix.count("/") + 1 if prefix else 0
        yield from (path for path in super().list(prefix) if path.count("/") == depth)


class MatchesBeginnings(LocalFiles):
    """What an object store's own listing does."""

    def list(self, prefix: str = "") -> Iterator[str]:
        list(super().list(prefix))
        yield from (path for path in super().list() if path.startswith(prefix))


class ListsTheFileItself(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from super().list(prefix)
        if prefix and Path(self._locate(prefix)).is_file():
            yield prefix


class MissesMissingPrefixes(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix and not Path(self._locate(prefix)).exists():
            raise FileMissingError("there is no such directory", where=prefix)
        yield from super().list(prefix)


class DeletesTheDirectory(LocalFiles):
    def delete(self, path: str) -> None:
        super().delete(path)
        if "/" in path:
            shutil.rmtree(Path(self._locate(path)).parent, ignore_errors=True)


class KeepsAListing(LocalFiles):
    """Remembers a listing until the next write."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._listings: dict[str, list[str]] = {}

    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix not in self._listings:
            self._listings[prefix] = [*super().list(prefix)]
        yield from self._listings[prefix]

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        super().write(path, data)
        self._listings.clear()


class Normalises(LocalFiles):
    """Takes every path for the one it amounts to."""

    def _locate(self, path: str) -> str:
        return super()._locate(posixpath.normpath(path).lstrip("/") if path else path)


class ClimbsOut(LocalFiles):
    def _locate(self, path: str) -> str:
        return str(self.root / path) if ".." in path.split("/") else super()._locate(path)


class EndsAtNul(LocalFiles):
    def _locate(self, path: str) -> str:
        return super()._locate(path.partition("\0")[0] or path)


class TakesBadPathsForMissing(LocalFiles):
    def stat(self, path: str) -> FileStat:
        try:
            return super().stat(path)
        except FileError as error:
            raise FileMissingError("there is no such file", where=path) from error


class ListsAnything(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        try:
            yield from super().list(prefix)
        except FileError:
            return


class DecodesPercents(LocalFiles):
    def _locate(self, path: str) -> str:
        return super()._locate(unquote(path))


class TakesPlusForSpace(LocalFiles):
    def _locate(self, path: str) -> str:
        return super()._locate(path.replace("+", " "))


class NormalisesUnicode(LocalFiles):
    def _locate(self, path: str) -> str:
        return super()._locate(unicodedata.normalize("NFC", path))


class HidesDotFiles(LocalFiles):
    def list(self, prefix: str = "") -> Iterator[str]:
        yield from (path for path in super().list(prefix) if "/." not in f"/{path}")


class PutsDirectoriesInPlaceOfFiles(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        for parent in Path(self._locate(path)).relative_to(self.root).parents:
            if (self.root / parent).is_file():
                (self.root / parent).unlink()
        super().write(path, data)

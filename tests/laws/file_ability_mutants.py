"""File backends whose abilities, versions or threads are each wrong in one way."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Literal
from urllib.parse import quote, unquote

from treenail.adapters.files import LocalFiles, MemoryFiles
from treenail.adapters.files.paths import check_path
from treenail.kernel import FileError, FileMissingError, FileStat


class StreamsItsFirstChunk(LocalFiles):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from list(super().stream(path, start, length))[:1]


class StreamsViews(LocalFiles):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        for chunk in super().stream(path, start, length):
            yield memoryview(chunk)  # type: ignore[misc]  # that is the mistake


class StreamsNothingOfWhatIsMissing(LocalFiles):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with suppress(FileMissingError):
            yield from super().stream(path, start, length)


class StreamsNegativeRanges(LocalFiles):
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from super().stream(path, max(start, 0), length)


class ScansUnsorted(LocalFiles):
    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        yield from sorted(super().scan(prefix), key=lambda pair: pair[0].split("/"))


class ScansOtherVersions(LocalFiles):
    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        for path, found in super().scan(prefix):
            yield path, found._replace(version=None)


class SplitsAtTheLastSlash(LocalFiles):
    """Each directory is a root of its own."""

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        root, _, name = uri.rstrip("/").rpartition("/")
        return root, name


class EntersDirectories(LocalFiles):
    def entries(self, path: str = "") -> Iterator[tuple[str, bool]]:
        for below in super().list(path):
            yield below[len(path) + 1 if path else 0 :], False


class OverlooksEmptyDirectories(LocalFiles):
    """As a store does that knows the names of files alone."""

    def entries(self, path: str = "") -> Iterator[tuple[str, bool]]:
        for name, directory in super().entries(path):
            if not directory or next(self.list(f"{path}/{name}" if path else name), None) is not None:
                yield name, directory


class LinksCopies(LocalFiles):
    """Copies by a hard link, and writes in place: then a copy is no file of its own."""

    def copy(self, source: str, target: str) -> None:
        self.stat(source)
        place = self.local_path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source != target:
            place.unlink(missing_ok=True)
            os.link(self.local_path(source), place)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        place = self.local_path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if isinstance(data, bytes) else b"".join(data))


class MovesCopies(LocalFiles):
    def copy(self, source: str, target: str) -> None:
        super().copy(source, target)
        if source != target:
            self.delete(source)


class CopiesNothingAsEmpty(LocalFiles):
    def copy(self, source: str, target: str) -> None:
        try:
            super().copy(source, target)
        except FileMissingError:
            self.write(target, b"")


class CreatesOver(LocalFiles):
    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        new = super().create(path, joined := data if isinstance(data, bytes) else b"".join(data))
        self.write(path, joined)
        return new


class NeverSaysItCreated(LocalFiles):
    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        super().create(path, data)
        return False


class CreatesAPlaceFirst(LocalFiles):
    """Takes the name with an empty file, then writes: what most code does."""

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        if not super().create(path, b""):
            return False
        self.write(path, data)
        return True


class LooksThenWrites(LocalFiles):
    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        with suppress(FileMissingError):
            self.stat(path)
            return False
        time.sleep(0.001)
        self.write(path, data)
        return True


class GivesRelativePaths(LocalFiles):
    def local_path(self, path: str) -> Path:
        return Path(os.path.relpath(super().local_path(path)))


class MakesWhatItIsAskedFor(LocalFiles):
    def local_path(self, path: str) -> Path:
        place = super().local_path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        return place


class TakesFilesForDirectories(LocalFiles):
    def is_directory(self, path: str) -> bool:
        return super().is_directory(path) or (self.root / path).exists()


class MarksDirectoriesByFiles(LocalFiles):
    def make_directory(self, path: str) -> None:
        super().make_directory(path)
        self.write(f"{path}/.keep" if path else ".keep", b"")


class DeletesByBeginning(LocalFiles):
    """Deletes what begins with the directory's name, as a store of keys may."""

    def delete_directory(self, path: str) -> None:
        super().delete_directory(path)
        for each in list(self.list()):
            if each.startswith(path):
                self.delete(each)


class DeletesMissingDirectories(LocalFiles):
    def delete_directory(self, path: str) -> None:
        with suppress(FileMissingError):
            super().delete_directory(path)


class ReadsManyTimes(LocalFiles):
    """Reads many files one after the other."""

    def read_many(self, paths: Iterable[str], *, concurrency: int) -> Iterator[bytes | FileError]:
        assert concurrency > 0
        for path in paths:
            try:
                yield self.read(path)
            except FileError as error:
                yield error


class ReadsManyInAnyOrder(ReadsManyTimes):
    def read_many(self, paths: Iterable[str], *, concurrency: int) -> Iterator[bytes | FileError]:
        yield from super().read_many(sorted(paths), concurrency=concurrency)


class LosesTheRestOfMany(ReadsManyTimes):
    """One file that fails takes those after it along, as in the seed."""

    def read_many(self, paths: Iterable[str], *, concurrency: int) -> Iterator[bytes | FileError]:
        failed: FileError | None = None
        for result in super().read_many(paths, concurrency=concurrency):
            failed = failed or (result if isinstance(result, FileError) else None)
            yield failed or result


class VersionsByMinute(LocalFiles):
    def stat(self, path: str) -> FileStat:
        found = super().stat(path)
        return found._replace(version=f"{found.size}-{found.modified // 60}")


class VersionsAnew(LocalFiles):
    def stat(self, path: str) -> FileStat:
        return super().stat(path)._replace(version=str(time.time_ns()))


class SharesATemporaryFile(LocalFiles):
    """Writes aside, but all writers to one place."""

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        target = Path(self._locate(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(".shared.treenail-unfinished")
        with aside.open("wb", buffering=0) as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                file.write(chunk)
                time.sleep(0.0005)
        with suppress(FileNotFoundError):
            aside.replace(target)


class TrustsTheDirectory(LocalFiles):
    """Makes the directory, then writes, though a deletion may remove it in between."""

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        target = Path(self._locate(path))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            time.sleep(0.001)
            target.write_bytes(data if isinstance(data, bytes) else b"".join(data))
        except OSError as error:
            raise FileError("cannot write", where=path) from error


class LimitsNames(LocalFiles):
    """Shortens long names without a word."""

    def _locate(self, path: str) -> str:
        return super()._locate("/".join(part[:100] for part in path.split("/")))


class SignedMemoryFiles(MemoryFiles):
    """Files in memory behind signed URLs of a server of its own, which keeps what is put to it, or does not."""

    def __init__(self, *, keeps: bool = True) -> None:
        super().__init__()
        self.keeps = keeps
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, files.read(unquote(self.path.partition("?")[0][1:])))

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if keeps:
                    files.write(unquote(self.path.partition("?")[0][1:]), data)
                self._answer(200, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def sign(self, path: str, *, method: Literal["GET", "PUT"] = "GET", expires: float = 3600.0) -> str:
        check_path(path, self.uri)
        if expires <= 0:
            raise FileError("a URL must last for some time", where=path)
        return f"http://127.0.0.1:{self.server.server_port}/{quote(path)}?{method}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

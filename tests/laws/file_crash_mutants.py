"""File backends and copies of trees that a kill finds unprepared, each in one way; and two copies of trees that are right."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from treenail.adapters import files as operations
from treenail.adapters.files import LocalFiles, Mounts
from treenail.adapters.files.sync import sync
from treenail.kernel import FileBackend

PAUSE = 0.004  # seconds in which a kill is likely to come


class WritesInPlace(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        _write_slowly(Path(self._locate(path)), data)


class ListsWhatIsUnfinished(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        target = Path(self._locate(path))
        aside = target.with_name(f"{target.name}.part")
        _write_slowly(aside, data)
        aside.replace(target)


class DeletesFirst(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        Path(self._locate(path)).unlink(missing_ok=True)
        time.sleep(PAUSE)
        super().write(path, data)


class WritesLater(LocalFiles):
    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        joined = data if isinstance(data, bytes) else b"".join(data)
        time.sleep(PAUSE)
        threading.Timer(0.05, partial(super().write, path, joined)).start()


class CopiesInPlace(LocalFiles):
    def copy(self, source: str, target: str) -> None:
        _write_slowly(Path(self._locate(target)), self.read(source))


class CopiesLater(LocalFiles):
    def copy(self, source: str, target: str) -> None:
        time.sleep(PAUSE)
        threading.Timer(0.05, partial(super().write, target, self.read(source))).start()


def copy_in_place(backend: FileBackend, source: str, target: str) -> None:
    assert isinstance(backend, LocalFiles)
    for path in list(backend.list(source)):
        _write_slowly(backend.local_path(target + path.removeprefix(source)), backend.read(path))


def copy_later(backend: FileBackend, source: str, target: str) -> None:
    for path in list(backend.list(source)):
        place = target + path.removeprefix(source)
        threading.Timer(0.05, partial(backend.write, place, backend.read(path))).start()


def copy_over(backend: FileBackend, source: str, target: str) -> None:
    """Copy a tree over what an earlier copy left, by our functions."""
    mounts = Mounts({"store://": backend.uri})
    for path in operations.list_dir_or_file(f"store://{source}", list_dir=False, recursive=True, mounts=mounts):
        operations.copyfile(f"store://{source}/{path}", f"store://{target}/{path}", mounts=mounts)


def synchronise(backend: FileBackend, source: str, target: str) -> None:
    """Make a tree equal to another by `sync`, which is right, too."""
    sync(f"store://{source}", f"store://{target}", mounts=Mounts({"store://": backend.uri}))


def _write_slowly(target: Path, data: bytes | Iterable[bytes]) -> None:
    joined = data if isinstance(data, bytes) else b"".join(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb", buffering=0) as file:
        for part in _halves(joined):
            file.write(part)
            time.sleep(PAUSE)
        os.fsync(file.fileno())


def _halves(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]

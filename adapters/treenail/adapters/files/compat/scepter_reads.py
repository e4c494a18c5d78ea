"""The reading half of SCEPTER's file system."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from treenail.adapters.files import operations
from treenail.adapters.files.batches import in_order
from treenail.adapters.files.compat import placing
from treenail.adapters.files.compat.errors import NotOfferedError
from treenail.adapters.files.compat.scepter_stores import (
    FsMounts,
    IoBytes,
    IoString,
    ReadException,
    Scratch,
    reading,
)
from treenail.adapters.files.compat.walks import walked
from treenail.adapters.files.derived import download
from treenail.adapters.files.locks import lock
from treenail.adapters.files.mirror import LocalMirror
from treenail.adapters.files.mounts import Place
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.records import read_records, record_spans
from treenail.adapters.files.sync import sync
from treenail.adapters.files.workers import Workers
from treenail.contracts.files import SignsUrls
from treenail.kernel import FileError, FileMissingError

_POLL = 0.05


class StoreReader:
    """Reads files of all stores; safe between threads."""

    def __init__(self) -> None:
        self._mounts = FsMounts()
        self._scratch = Scratch()

    def get_from(self, target_path: AnyPath, local_path: AnyPath | None = None, wait_finish: bool = False) -> IoString:
        """Return a local path of a file: its own where it is local, else that of a copy.

        Args:
            target_path: The file.
            local_path: Where the copy goes; else a folder of copies, where it is used again while the file is the same.
            wait_finish: One process of a machine downloads the file, the others wait for it.

        Raises:
            ReadException: There is no such file (then also a FileNotFoundError), or it could not be read.
        """
        with reading():
            place = self._place(target_path)
            local = placing.local_path(place)
            if local is not None and local_path is None:
                place.backend.stat(place.path)
                return IoString(local)
            if local_path is None:
                with self._mirror(place, target_path, wait_finish).local_copy(place.backend, place.path) as copy:
                    return IoString(copy)
            target = Path(local_path)
            place.backend.stat(place.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if wait_finish and local is None:
                mirror = self._mirror(place, target_path, wait_finish)
                with mirror.local_copy(place.backend, place.path) as copy:
                    operations.put(copy.read_bytes(), target)
            else:
                download(place.backend, place.path, target)
            return IoString(local_path)

    def get_object(self, target_path: AnyPath) -> IoBytes:
        """Return the bytes of a file.

        Raises:
            ReadException: There is no such file (then also a FileNotFoundError), or it could not be read.
        """
        with reading():
            return IoBytes(operations.get(target_path, mounts=self._mounts))

    def get_dir_to_local_dir(
        self,
        target_path: AnyPath,
        local_path: AnyPath | None = None,
        wait_finish: bool = False,
        timeout: float = 3600,
        multi_thread: bool = False,
        sign_key: str | None = None,  # SCEPTER's; every change is noticed without
        worker_id: int = 0,  # deprecated there
    ) -> IoString:
        """Return a local directory that holds what another holds: the directory itself where it is local, else a copy.

        What did not change since the last copy is not copied again.

        Args:
            target_path: The directory.
            local_path: Where the copy goes; nothing in it is removed. Else a folder of copies, made equal.
            wait_finish: One process of a machine downloads it, the others wait for it.
            timeout: Seconds to wait at most for a process that downloads into the same directory.
            multi_thread: Copy eight files at a time.
            sign_key: Taken, and without effect.
            worker_id: Taken, and without effect.

        Raises:
            ReadException: There is no such directory (then also a FileNotFoundError), it could not be read, or another
                process took too long.
        """
        with reading():
            place = self._place(target_path)
            if not placing.is_directory(place):
                raise FileMissingError("there is no such directory", where=place.uri)
            local = placing.local_path(place)
            if local is not None and local_path is None:
                return IoString(local)
            store = self._mounts.store_at(target_path)
            if local_path is None:
                self._scratch.prepare(store, shared=wait_finish)
                folder = self._scratch.folder(target_path, store, shared=wait_finish) / (
                    PurePosixPath(place.path).name or "all"
                )
            else:
                folder = Path(local_path).absolute()
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder, timeout):
                sync(
                    target_path,
                    folder,
                    delete=local_path is None,
                    concurrency=8 if multi_thread else 1,
                    mounts=self._mounts,
                )
            return IoString(folder if local_path is None else os.fspath(local_path))

    def get_batch_objects_from(
        self, target_path_list: Sequence[AnyPath], wait_finish: bool = False, return_target_path: bool = False
    ) -> Iterator[IoString | tuple[AnyPath, IoString | None] | None]:
        """Yield a local path of each file (`get_from`), in order; None for one that is missing.

        Args:
            target_path_list: The files.
            wait_finish: One process of a machine downloads each, the others wait for it.
            return_target_path: Yield (path, local path).

        Raises:
            ReadException: Some files could not be read: raised behind the last, with None at the place of each.
        """

        def fetch(path: AnyPath) -> IoString | FileError:
            try:
                return self.get_from(path, wait_finish=wait_finish)
            except FileError as error:
                return error

        failed: list[FileError] = []
        with Workers(20, "treenail-fs") as pool:
            for path, found in zip(target_path_list, in_order(fetch, target_path_list, pool, 20), strict=True):
                if isinstance(found, FileError) and not isinstance(found, FileMissingError):
                    failed.append(found)
                local = None if isinstance(found, FileError) else found
                yield (path, local) if return_target_path else local
        if failed:
            first = failed[0]
            raise ReadException(f"{len(failed)} files could not be read: {first.message}", where=first.where) from first

    def get_object_stream(
        self, target_path: AnyPath, start: int, size: int = 10000, delimiter: str | bytes | None = None
    ) -> tuple[IoBytes, int]:
        r"""Return the records that begin in a window of a file, and where the next window begins.

        Args:
            target_path: The file.
            start: First byte of the window.
            size: Bytes of the window; more are returned where a record goes beyond it.
            delimiter: What ends a record, such as ``"\n"``; None takes the window as it is.

        Raises:
            ReadException: There is no such file (then also a FileNotFoundError), or it could not be read.
        """
        with reading():
            data, following = read_records(target_path, start, size, _bytes(delimiter), mounts=self._mounts)
        return IoBytes(data), following

    def get_object_chunk_list(
        self,
        target_path: AnyPath,
        chunk_num: int = 1,
        chunk_size: int = -1,
        delimiter: str | bytes | None = None,
    ) -> list[list[int]]:
        """Return the parts of a file as [start, length]; together they are the whole file, and no record is divided.

        Args:
            target_path: The file.
            chunk_num: How many parts, at most.
            chunk_size: Or else, if it is above 0, how many bytes each has at least, but for the last one.
            delimiter: What ends a record; None divides anywhere.

        Raises:
            ReadException: Both numbers are below 1; there is no such file (then also a FileNotFoundError).
        """
        wanted = {"part_size": chunk_size} if chunk_size > 0 else {"parts": chunk_num}
        with reading():
            found = record_spans(target_path, **wanted, delimiter=_bytes(delimiter), mounts=self._mounts)
        return [[span.start, span.length] for span in found]

    def iterate_object_chunks(
        self,
        target_path: AnyPath,
        chunk_num: int = 1,
        chunk_size: int = -1,
        delimiter: str | bytes | None = None,
    ) -> Iterator[IoBytes]:
        """Yield the bytes of each part of `get_object_chunk_list`."""
        for start, length in self.get_object_chunk_list(target_path, chunk_num, chunk_size, delimiter):
            with reading():
                yield IoBytes(operations.get(target_path, start, length, mounts=self._mounts))

    def get_url(
        self, target_path: AnyPath, set_public: bool = False, skip_check: bool = False, lifecycle: float = 360000
    ) -> str | None:
        """Return a URL that reads a file without credentials; the path itself of a store that has no such URLs.

        Args:
            target_path: The file.
            set_public: Must be False: who may read a bucket is the bucket's own setting.
            skip_check: Do not look whether there is such a file; else None where there is none.
            lifecycle: For how many seconds.

        Raises:
            NotOfferedError: `set_public` is True.
            ReadException: The store cannot sign.
        """
        if set_public:
            raise NotOfferedError(
                "a file cannot be made public from here",
                where=os.fspath(target_path),
                mend="let its bucket's policy do so",
            )
        with reading():
            place = self._place(target_path)
            if not skip_check and not placing.is_file(place):
                return None
            if isinstance(place.backend, SignsUrls):
                return place.backend.sign(place.path, expires=lifecycle)
            return os.fspath(target_path)

    def map_to_local(self, target_path: AnyPath) -> tuple[str, bool]:
        """Return where the local copy of a file is or would be, and whether it is a temporary one; nothing is read."""
        with reading():
            place = self._place(target_path)
            local = placing.local_path(place)
            if local is not None:
                return str(local), False
            mirror = place.cache
            if isinstance(mirror, LocalMirror):
                return str(mirror.folder / PurePosixPath(place.path).relative_to(mirror.source)), False
            store = self._mounts.store_at(target_path)
            kept = self._scratch.mirror_of(place, target_path, store, shared=False).folder
            return str(kept / PurePosixPath(place.path).name), store is None or store.clean or store.folder is None

    def exists(self, target_path: AnyPath) -> bool:
        """Return whether there is a file or directory."""
        with reading():
            return placing.exists(self._place(target_path))

    def isfile(self, target_path: AnyPath) -> bool:
        """Return whether there is a file."""
        with reading():
            return placing.is_file(self._place(target_path))

    def isdir(self, target_path: AnyPath) -> bool:
        """Return whether there is a directory."""
        with reading():
            return placing.is_directory(self._place(target_path))

    def size(self, target_path: AnyPath) -> int:
        """Return the bytes of a file.

        Raises:
            ReadException: There is no such file (then also a FileNotFoundError).
        """
        with reading():
            return operations.stat(target_path, mounts=self._mounts).size

    def is_local_client(self, target_path: AnyPath) -> bool:
        """Return whether a path lies on this machine's disks.

        Raises:
            ReadException: Nothing serves it.
        """
        with reading():
            return placing.local_path(self._place(target_path)) is not None

    def walk_dir(self, target_dir: AnyPath, recurse: bool = True) -> Iterator[str]:
        """Yield the paths of what lies in a directory: its files, its directories, then what lies in each of these.

        Args:
            target_dir: The directory.
            recurse: Go down into directories.

        Raises:
            ReadException: There is no such directory (then also a FileNotFoundError).
        """
        lead = os.fspath(target_dir).rstrip("/")
        with reading():
            place = self._place(target_dir)
            if not placing.is_directory(place):
                raise FileMissingError("there is no such directory", where=place.uri)
            for each in walked(place, recurse):
                yield f"{lead}/{each}"

    def clear(self) -> None:
        """Remove the temporary local copies; they go with the process, too."""
        self._scratch.clear()

    def _place(self, path: AnyPath) -> Place:
        return self._mounts.resolve(path)

    def _mirror(self, place: Place, path: AnyPath, wait_finish: bool) -> LocalMirror:
        if isinstance(place.cache, LocalMirror):
            return place.cache
        store = self._mounts.store_at(path)
        self._scratch.prepare(store, shared=wait_finish)
        return self._scratch.mirror_of(place, path, store, shared=wait_finish)


def _bytes(delimiter: str | bytes | None) -> bytes | None:
    return delimiter.encode() if isinstance(delimiter, str) else delimiter


@contextmanager
def _alone(folder: Path, timeout: float) -> Iterator[None]:
    """Let no other process of this machine fill the same folder; it is waited for."""
    with (folder.parent / f".{folder.name}.treenail-fs.lock").open("a+") as file:
        until = time.monotonic() + timeout
        while True:
            try:
                lock(file, wait=False)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise ReadException(
                        f"another process fills this directory since {timeout} s",
                        where=str(folder),
                        mend="give it a longer timeout",
                    ) from None
                time.sleep(_POLL)
        yield

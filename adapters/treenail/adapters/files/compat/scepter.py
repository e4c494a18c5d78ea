"""SCEPTER's `FS` over our stores: the same methods and arguments; what fails there in silence is an error here.

`FS` finds nothing and touches nothing before its first call. A path belongs to the store whose prefix (`init_fs_client`) is
the longest that fits, by whole parts; without any, to what the mounts in use find: a local file, or a URI that some adapter
serves. One that nothing serves is an error.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from treenail.adapters.files import operations
from treenail.adapters.files.batches import in_order
from treenail.adapters.files.compat import placing
from treenail.adapters.files.compat.errors import ArgumentValueError
from treenail.adapters.files.compat.scepter_reads import StoreReader
from treenail.adapters.files.compat.scepter_stores import (
    FsMounts,
    HasEntries,
    IoBytes,
    IoString,
    ReadException,
    Scratch,
    Store,
    WriteException,
    reading,
    store_of,
    writing,
)
from treenail.adapters.files.compat.walks import uploads_of
from treenail.adapters.files.derived import upload
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.workers import Workers
from treenail.contracts.files import HasDirectories
from treenail.kernel import FileBackend, FileError, FileMissingError, TreenailError

__all__ = ["FS", "FileSystem", "FsClient", "IoBytes", "IoString", "Put", "ReadException", "WriteException"]

Source = str | os.PathLike[str] | bytes | BytesIO | None


class Put(NamedTuple):
    """What became of one file of `put_batch_objects_to`."""

    local_path: Source
    target_path: AnyPath | None
    ok: bool


class FileSystem(StoreReader):
    """Files in all stores; safe between threads. See the module."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._mounts.stores)})"

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self._mounts)

    @property
    def support_prefix(self) -> Mapping[str, FsClient]:
        """The prefixes of `init_fs_client`, each with its client."""
        return {prefix: FsClient(self._mounts, self._scratch, store) for prefix, store in self._mounts.stores.items()}

    def init_fs_client(
        self,
        cfg: HasEntries | FileBackend | None = None,
        logger: logging.Logger | None = None,
        overwrite: bool = True,
    ) -> str:
        """Let a store serve its prefix, and return the prefix.

        Args:
            cfg: A config with NAME (LocalFs, HttpFs, AliyunOssFs, ModelscopeFs, HuggingfaceFs) and the store's entries; one
                of our file backends, which then serves its own URI; local disks when None. OSS_AK and OSS_SK name
                environment variables (``$NAME``).
            logger: Told of the store.
            overwrite: Replace the store that has the prefix.

        Raises:
            ArgumentValueError: The config names no store, has an unknown entry, or holds credentials.
        """
        store = store_of(cfg)
        if overwrite or store.prefix not in self._mounts.stores:
            self._mounts.stores = {**self._mounts.stores, store.prefix: store}
            if logger is not None:
                logger.info("%s is served by %s", store.prefix, store.backend or "the mounts in use")
        return store.prefix

    def get_fs_client(self, target_path: AnyPath, safe: bool = False) -> FsClient:
        """Return the client of a path.

        Args:
            target_path: A path or URI.
            safe: With temporary copies of its own, which go with it.
        """
        with reading():
            self._mounts.resolve(target_path)
        store = self._mounts.store_at(target_path)
        return FsClient(self._mounts, Scratch() if safe else self._scratch, store)

    def put_object(self, local_data: bytes | str, target_path: AnyPath) -> bool:
        """Make a file hold bytes or a text, whole or not at all; return True.

        Raises:
            WriteException: It could not be written; the file is as it was.
        """
        data = local_data.encode() if isinstance(local_data, str) else bytes(local_data)
        with writing():
            self._check_writable(target_path)
            operations.put(data, target_path, mounts=self._mounts)
        return True

    def put_object_from_local_file(self, local_path: AnyPath, target_path: AnyPath) -> bool:
        """Make a file hold what a local file holds, whole or not at all; return True.

        Raises:
            WriteException: There is no such local file, or it could not be written; the file is as it was.
        """
        with writing():
            self._check_writable(target_path)
            place = self._place(target_path)
            upload(Path(local_path), place.backend, place.path)
            placing.forget(place)
        return True

    def delete_object(self, target_path: AnyPath) -> bool:
        """Remove a file; return whether there was one.

        Raises:
            WriteException: The store refused or failed.
        """
        with writing():
            self._check_writable(target_path)
            if not operations.isfile(target_path, mounts=self._mounts):
                return False
            try:
                operations.remove(target_path, mounts=self._mounts)
            except FileMissingError:  # somebody else was faster
                return False
        return True

    def put_dir_from_local_dir(self, local_dir: AnyPath, target_dir: AnyPath, multi_thread: bool = False) -> bool:
        """Copy all below a local directory to another directory, which may have files already; return True.

        Args:
            local_dir: The local directory.
            target_dir: The other one.
            multi_thread: Copy eight files at a time.

        Raises:
            WriteException: There is no such local directory, or a file could not be written; the others are.
        """
        with writing():
            self._check_writable(target_dir)
            top = Path(local_dir)
            if not top.is_dir():
                raise FileMissingError("there is no such directory", where=str(local_dir))
            target = self._place(target_dir)

            def send(each: tuple[Path, str]) -> FileError | None:
                place = placing.below(target, each[1])
                try:
                    if each[0].is_dir():
                        if isinstance(place.backend, HasDirectories):
                            place.backend.make_directory(place.path)
                    else:
                        upload(each[0], place.backend, place.path)
                        placing.forget(place)
                except FileError as error:
                    return error
                return None

            with Workers(8 if multi_thread else 1, "treenail-fs") as pool:
                failed = [error for error in in_order(send, uploads_of(top), pool, 8) if error is not None]
            if failed:
                raise failed[0]
        return True

    def put_batch_objects_to(
        self,
        local_path_list: Sequence[Source],
        target_path_list: Sequence[AnyPath | None],
        batch_size: int = 20,
        wait_finish: bool = False,  # SCEPTER's; there is nothing to wait for
    ) -> Iterator[Put]:
        """Write files, and yield for each, in order, (source, path, whether it was written).

        Args:
            local_path_list: Paths, URIs, bytes or `BytesIO` to write; None writes nothing.
            target_path_list: Where to.
            batch_size: How many at a time.
            wait_finish: Taken, and without effect.

        Raises:
            ArgumentValueError: The lists differ in length, or batch_size is below 1.
        """
        if len(local_path_list) != len(target_path_list) or batch_size < 1:
            raise ArgumentValueError(
                f"{len(local_path_list)} sources, {len(target_path_list)} targets, batches of {batch_size}",
                mend="give as many targets as sources, and a batch_size of at least 1",
            )
        return self._put_all(list(zip(local_path_list, target_path_list, strict=True)), batch_size)

    def _put_all(self, pairs: list[tuple[Source, AnyPath | None]], concurrency: int) -> Iterator[Put]:
        def send(pair: tuple[Source, AnyPath | None]) -> bool:
            source, target = pair
            if source is None or target is None:
                return False
            try:
                if isinstance(source, bytes | BytesIO):
                    return self.put_object(source if isinstance(source, bytes) else source.getvalue(), target)
                with writing():
                    self._check_writable(target)
                    placing.copy_file(self._place(source), self._place(target))
            except TreenailError:
                return False
            return True

        with Workers(concurrency, "treenail-fs") as pool:
            for pair, ok in zip(pairs, in_order(send, pairs, pool, concurrency), strict=True):
                yield Put(*pair, ok)

    @contextmanager
    def put_to(self, target_path: AnyPath) -> Iterator[IoString]:
        """Give a local path to write; its file is published at `target_path` when the block ends without an exception.

        Raises:
            WriteException: The block wrote no file, or the store refused or failed; the target is as it was.
        """
        with writing():
            self._check_writable(target_path)
            place = self._place(target_path)
            if not place.path:
                raise FileError("this is a root, not a file", where=place.uri, mend="name a file below it")
        with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
            local = Path(folder) / PurePosixPath(place.path).name
            yield IoString(local)
            with writing():
                if not local.is_file():
                    raise FileError("nothing was written to the local path", where=place.uri, mend="write a file there")
                upload(local, place.backend, place.path)
                placing.forget(place)

    def make_dir(self, target_dir: AnyPath) -> bool:
        """Make a directory, where the store has any; return False where a file has the name.

        Raises:
            WriteException: The store refused or failed.
        """
        with writing():
            self._check_writable(target_dir)
            if operations.isfile(target_dir, mounts=self._mounts):
                return False
            operations.make_directory(target_dir, mounts=self._mounts)
        return True

    def add_target_local_map(self, target_dir: AnyPath, local_dir: AnyPath) -> None:
        """Keep what is read below a directory in a local one for good, under the same names, by whole parts."""
        self._mounts.map_locally(target_dir, local_dir)

    def _check_writable(self, path: AnyPath) -> None:
        store = self._mounts.store_at(path)
        if store is not None and not store.writable:
            raise WriteException("this store is read only", where=os.fspath(path), mend="write to another store")


class FsClient(FileSystem):
    """What `get_fs_client` gives: all of `FileSystem`, and what is to be known of one store."""

    def __init__(self, mounts: FsMounts, scratch: Scratch, store: Store | None) -> None:
        self._mounts = mounts
        self._scratch = scratch
        self._store = store

    def __reduce__(self) -> tuple[object, ...]:
        return _client_again, (self._mounts, self._store)

    def get_prefix(self) -> str:
        """Return the prefix of the store's paths; the current directory without one."""
        return os.getcwd() if self._store is None else self._store.prefix

    def support_write(self) -> bool:
        """Return whether the store may be written to."""
        return self._store is None or self._store.writable


def _again(cls: type[FileSystem], mounts: FsMounts) -> FileSystem:
    made = cls()
    made._mounts = mounts
    return made


def _client_again(mounts: FsMounts, store: Store | None) -> FsClient:
    return FsClient(mounts, Scratch(), store)


FS = FileSystem()
"""The file system of the whole program, as SCEPTER has it; it holds nothing until `init_fs_client` is called."""

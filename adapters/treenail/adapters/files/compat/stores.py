"""The stores that mmengine names: local disks, HTTP, Petrel (S3), LMDB and memcached."""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

from treenail.adapters.files.compat.backends import MountedBackend
from treenail.adapters.files.compat.errors import (
    AbsentError,
    ArgumentTypeError,
    ArgumentValueError,
    ContentError,
    StoreFailedError,
    as_python_errors,
)
from treenail.adapters.files.compat.storage import BaseStorageBackend
from treenail.adapters.files.mounts import Mounts, Place, current_mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import scheme_of
from treenail.adapters.files.processes import PerProcess
from treenail.kernel import FileBackend, FileError, Late, require

_PETREL = re.compile(r"(?:([^:/]+):)?(?:petrel|s3)://", re.IGNORECASE)


class LocalBackend(MountedBackend):
    """Local disks, and whatever the mounts in use put at a local path."""

    _allow_symlink = True

    def __init__(self) -> None:
        super().__init__()

    def get_text(self, filepath: AnyPath, encoding: str = "utf-8") -> str:
        """Return a file as text, each of its line ends as a newline, as `open` does."""
        return io.TextIOWrapper(io.BytesIO(self.get(filepath)), encoding=encoding).read()


class HardDiskBackend(LocalBackend):
    """The old name of `LocalBackend`."""


class HTTPBackend(MountedBackend):
    """HTTP and HTTPS servers, read only.

    Args:
        **options: Of `treenail.adapters.files.http.HttpFiles`, such as ``timeout=10.0``.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(_HttpMounts(options) if options else None)


class PetrelBackend(MountedBackend):
    """S3, and what speaks its language, as ``petrel://bucket/key`` or ``s3://bucket/key``.

    A cluster, as in ``name:s3://bucket/key``, is a profile of ~/.aws/config or ~/.aws/credentials, with its endpoint_url.

    Args:
        path_mapping: The first occurrence of each key in a path is replaced by its value, in order.
        enable_mc: Taken, and without effect: `Mounts(cache=…)` keeps local copies.
        conf_path: Must be None: Petrel's own configuration file is not read.
        **options: Of `treenail.adapters.files.objects.ObjectFiles`, such as ``endpoint="http://127.0.0.1:9000"``.

    Raises:
        ArgumentTypeError: `path_mapping` is no dict.
        ArgumentValueError: There is a `conf_path`.
    """

    def __init__(
        self,
        path_mapping: Mapping[str, str] | None = None,
        enable_mc: bool = True,  # part of the interface
        conf_path: str | None = None,
        **options: object,
    ) -> None:
        if conf_path is not None:
            raise ArgumentValueError(
                "Petrel's own configuration is not read",
                where=os.fspath(conf_path),
                mend="make each of its clusters a profile of ~/.aws/config, with its endpoint_url",
            )
        if path_mapping is not None and not isinstance(path_mapping, Mapping):
            raise ArgumentTypeError(f"path_mapping is a dict, not {path_mapping!r}")
        self.path_mapping = path_mapping
        super().__init__(_PetrelMounts(dict(path_mapping or {}), options))

    def join_path(self, filepath: AnyPath, *filepaths: AnyPath) -> str:
        """Return a URI with parts below it; leading slashes of the parts mean nothing."""
        return BaseStorageBackend.join_path(self, filepath, *filepaths)


class LmdbBackend(BaseStorageBackend):
    """The values of an LMDB database; paths are its keys, in UTF-8.

    Args:
        db_path: Directory or file of the database.
        readonly: It is opened for reading only.
        lock: Guard against writers at the same time.
        readahead: Let the system read ahead.
        **kwargs: Of ``lmdb.open``.

    Raises:
        MissingDependencyError: lmdb is not installed.
    """

    def __init__(
        self, db_path: AnyPath, readonly: bool = True, lock: bool = False, readahead: bool = False, **kwargs: object
    ) -> None:
        _lmdb()
        self.db_path = os.fspath(db_path)
        self.readonly, self.lock, self.readahead, self.kwargs = readonly, lock, readahead, kwargs

    def get(self, filepath: AnyPath) -> bytes:
        """Return the value of a key."""
        key = os.fspath(filepath)
        where = f"{self.db_path}:{key}"
        try:
            with self._database().begin(write=False) as transaction:
                value: bytes | None = transaction.get(key.encode())
        except _lmdb().Error as error:
            raise StoreFailedError(f"cannot read: {error}", where=where) from error
        if value is None:
            raise AbsentError("there is no such key", where=where)
        return value

    def get_text(self, filepath: AnyPath, encoding: str = "utf-8") -> str:
        """Return the value of a key as text."""
        return self.get(filepath).decode(encoding)

    def _database(self) -> Any:  # lmdb has no types
        if not os.path.exists(self.db_path):
            raise AbsentError("there is no such database", where=self.db_path)
        options = {"readonly": self.readonly, "lock": self.lock, "readahead": self.readahead, **self.kwargs}
        return _environment(os.path.realpath(self.db_path), tuple(sorted(options.items()))).get()


class MemcachedBackend(BaseStorageBackend):
    """The values of memcached servers; paths are their keys.

    Args:
        server_list_cfg: A file that names the servers, one ``host:port`` a line (11211 without a port); ``#`` begins a
            comment.
        client_cfg: The settings of the library that mmengine uses. They mean nothing here, and are not read.
        sys_path: Where that library lies; not used.

    Raises:
        AbsentError: There is no such file of servers.
        ContentError: It names none, or one without a port's number.
        MissingDependencyError: pymemcache is not installed.
    """

    def __init__(
        self, server_list_cfg: AnyPath, client_cfg: AnyPath | None = None, sys_path: str | None = None
    ) -> None:
        self.server_list_cfg, self.client_cfg, self.sys_path = server_list_cfg, client_cfg, sys_path
        self._servers = _servers_of(server_list_cfg)
        _memcache()
        self._clients: PerProcess[Any] = PerProcess(partial(_client_of, self._servers))  # pymemcache has few types

    def get(self, filepath: AnyPath) -> bytes:
        """Return the value of a key."""
        key = os.fspath(filepath)
        try:
            value: bytes | None = self._clients.get().get(key)
        except Exception as error:  # pymemcache's own, and those of sockets
            raise StoreFailedError(f"cannot read: {error}", where=f"memcached:{key}") from error
        if value is None:
            raise AbsentError("there is no such key", where=f"memcached:{key}")
        return value

    def get_text(self, filepath: AnyPath, encoding: str = "utf-8") -> str:
        """Return the value of a key as text."""
        return self.get(filepath).decode(encoding)


class _HttpMounts(Mounts):
    """Finds URLs with options of one's own."""

    def __init__(self, options: Mapping[str, object]) -> None:
        from treenail.adapters.files.http import HttpFiles

        self._options = options
        late: Late[str, FileBackend] = Late(HttpFiles, (), options, awaited=1)
        super().__init__(schemes={"http": late, "https": late})

    def __reduce__(self) -> tuple[object, ...]:
        return _HttpMounts, (self._options,)


class _PetrelMounts(Mounts):
    """Finds Petrel's URIs: mapped paths, clusters, and the options of all buckets."""

    def __init__(self, path_mapping: Mapping[str, str], options: Mapping[str, object]) -> None:
        super().__init__()
        self._mapping = path_mapping
        self._options = options
        self._clusters: dict[str | None, Mounts] = {}
        if options:
            self._cluster(None)  # a misspelt option is told now

    def __reduce__(self) -> tuple[object, ...]:
        return _PetrelMounts, (self._mapping, self._options)

    def resolve(self, uri: AnyPath) -> Place:
        text = os.fspath(uri)
        for old, new in self._mapping.items():
            text = text.replace(old, new, 1)
        text = re.sub(r"\\+", "/", text)
        found = _PETREL.match(text)
        if found is None:
            if scheme_of(text) is None:
                raise FileError("this is no path of Petrel's", where=text, mend="write petrel://bucket/key, or map it")
            return current_mounts().resolve(text)  # mapped to another store
        return self._cluster(found[1]).resolve(f"s3://{text[found.end() :]}")

    def _cluster(self, name: str | None) -> Mounts:
        if name is None and not self._options:
            return current_mounts()
        found = self._clusters.get(name)
        if found is None:
            from treenail.adapters.files.objects import ObjectFiles

            options = self._options if name is None else {**self._options, "profile": name}
            found = Mounts(schemes={"s3": Late(ObjectFiles, (), options, awaited=1)})
            found = self._clusters.setdefault(name, found)
        return found


def _servers_of(path: AnyPath) -> list[tuple[str, int]]:
    with as_python_errors(), open(path, encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    servers = []
    for line in filter(None, lines):
        host, _, port = line.rpartition(":") if ":" in line else (line, "", "11211")
        if not port.isdigit():
            raise ContentError(f"{line!r} is no server", where=os.fspath(path), mend="write host:port")
        servers.append((host, int(port)))
    if not servers:
        raise ContentError("it names no server", where=os.fspath(path), mend="write host:port, one a line")
    return servers


@functools.cache
def _environment(path: str, options: tuple[tuple[str, Any], ...]) -> PerProcess[Any]:  # lmdb has no types
    """Return a database: LMDB lets a process have it open once, and not use what was opened before a fork."""
    return PerProcess(lambda: _lmdb().open(path, **dict(options)), lambda inherited: inherited.close())


def _client_of(servers: list[tuple[str, int]]) -> Any:  # pymemcache has few types
    return _memcache().HashClient(servers, use_pooling=True, allow_unicode_keys=True, connect_timeout=10, timeout=60)


def _lmdb() -> ModuleType:
    return require("lmdb", extra="lmdb", purpose="LmdbBackend")


def _memcache() -> ModuleType:
    return require("pymemcache.client.hash", extra="memcached", purpose="MemcachedBackend")

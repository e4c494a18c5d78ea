"""Files as the values of an LMDB database, a memory-mapped tree of keys in one file (http://www.lmdb.tech/doc/)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from treenail.adapters.files.contents import joined
from treenail.adapters.files.paths import (
    check_path,
    check_range,
    join_uri,
    local_path_of,
    read_only,
    scheme_of,
    split_inside,
)
from treenail.adapters.files.processes import PerProcess
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, require

_LONGEST_KEY = 511
"""Bytes: MDB_MAXKEYSIZE as LMDB is built everywhere."""
_BATCH = 1000
"""Keys listed in one transaction; a long one would keep LMDB from using deleted pages again."""


class LmdbFiles:
    """Files of an LMDB environment: a path in UTF-8 is the key, the content is the value.

    A write is one transaction: atomic and durable. A key that is no path (not UTF-8, absolute, with ``..`` or empty parts)
    is neither listed nor read. A value is held in memory whole to be written. LMDB keeps neither times nor versions: the
    time of a file is that of the environment's last change. The backends of one environment in a process share it, with the
    options of the first but for `readonly`; one that writes must be the first. URIs have ``!/`` between environment and path: ``lmdb:///data/set.lmdb!/train/1.png``.

    Args:
        root: ``lmdb:///absolute/path``, or a local path: the environment's directory, or its file.
        readonly: Refuse writes. An environment that may be written is made by the first use.
        lock: Take LMDB's locks even where only reading: needed while another process writes. Writing always does.
        readahead: Let the system read ahead; helps where all is read in order and fits into memory.
        map_size: Bytes that the environment may grow to; address space, not memory.
        max_readers: How many may read at the same time, over all processes, with locks.
    """

    def __init__(
        self,
        root: str,
        *,
        readonly: bool = True,
        lock: bool = False,
        readahead: bool = False,
        map_size: int = 2**40,
        max_readers: int = 512,
    ) -> None:
        path = root[len("lmdb://") :] if scheme_of(root) == "lmdb" else local_path_of(root)
        if not path.removesuffix("!"):
            raise FileError("the URI names no environment", where=root, mend="write lmdb:///path/to/set.lmdb")
        self._path = os.path.abspath(path.removesuffix("!"))
        self.uri = f"lmdb://{self._path}!"
        self.readonly = readonly
        self._options = {
            "readonly": readonly,
            "lock": lock,
            "readahead": readahead,
            "map_size": map_size,
            "max_readers": max_readers,
        }
        # LMDB forbids to use what was opened before a fork; the locks of that are the parent's and stay.
        self._environment = PerProcess(partial(_open, self._path, self._options), _Shared.close)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(LmdbFiles, **self._options), (self._path,)  # type: ignore[arg-type]  # each has its own type

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (``lmdb:///environment``, path): what stands before and after the first ``!/``."""
        return split_inside(uri)

    @property
    def capabilities(self) -> Capabilities:
        """Ranges; atomic replacement and creation where it may be written."""
        return Capabilities(
            local=True, atomic_replace=not self.readonly, conditional_put=not self.readonly, writable=not self.readonly
        )

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_path(path, self.uri)
        check_range(path, start, length)
        with self._transaction("read", path) as transaction:
            value = memoryview(_value(transaction, path, self.uri))
            return bytes(value[start : None if length is None else start + length])

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`, in one transaction."""
        key = self._writable(path)
        value = joined(data)
        with self._transaction("write", path, write=True) as transaction:
            transaction.put(key, value)

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write where there is no such file; return whether there was none."""
        key = self._writable(path)
        value = joined(data)
        with self._transaction("create", path, write=True) as transaction:
            return bool(transaction.put(key, value, overwrite=False))

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds, in one transaction."""
        check_path(source, self.uri)
        key = self._writable(target)
        with self._transaction("copy", source, write=True) as transaction:
            transaction.put(key, bytes(_value(transaction, source, self.uri)))

    def stat(self, path: str) -> FileStat:
        """Return the size of a file, and the time of the environment's last change."""
        check_path(path, self.uri)
        with self._transaction("stat", path) as transaction:
            size = len(_value(transaction, path, self.uri))
            return FileStat(size, self._last_change())

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes, as LMDB keeps them."""
        for path, _ in self.scan(prefix):
            yield path

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`; a thousand are of one moment."""
        lead = f"{check_path(prefix, self.uri)}/".encode() if prefix else b""
        position: bytes | None = lead
        while position is not None:
            with self._transaction("list", prefix) as transaction:
                found, position = _keys(transaction, position, lead)
                modified = self._last_change()
            for path, size in found:
                yield path, FileStat(size, modified)

    def delete(self, path: str) -> None:
        """Remove a file."""
        key = self._writable(path)
        with self._transaction("delete", path, write=True) as transaction:
            if not transaction.delete(key):
                raise FileMissingError("cannot delete: there is no such file", where=join_uri(self.uri, path))

    def close(self) -> None:
        """Let go of the environment; the last backend that does so closes it. The next use opens it again."""
        self._environment.take()

    def _writable(self, path: str) -> bytes:
        """Return the key of a path that is to be changed."""
        if self.readonly:
            raise read_only(self.uri, path, "open it with readonly=False")
        key = check_path(path, self.uri).encode()
        if len(key) > _LONGEST_KEY:
            raise FileError(
                f"a path of {len(key)} bytes is no key of LMDB",
                where=join_uri(self.uri, path),
                mend=f"keep it within {_LONGEST_KEY} bytes",
            )
        return key

    def _last_change(self) -> float:
        return os.stat(self._file()).st_mtime

    def _file(self) -> str:
        return self._path if os.path.isfile(self._path) else os.path.join(self._path, "data.mdb")

    @contextmanager
    def _transaction(self, operation: str, path: str, *, write: bool = False) -> Iterator[Any]:  # lmdb has no types
        lmdb = _library()
        where = join_uri(self.uri, path)
        try:
            shared = self._environment.get()  # held, so that it is not closed meanwhile
            with shared.environment.begin(write=write, buffers=True) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise FileError(f"cannot {operation}: it is full", where=where, mend="raise map_size") from error
        except lmdb.ReadersFullError as error:
            raise FileError(f"cannot {operation}: too many at once", where=where, mend="raise max_readers") from error
        except (lmdb.Error, OSError) as error:
            if not os.path.exists(self._file()):
                raise FileMissingError("there is no such environment", where=where) from error
            mend = "close what opened it with another library" if "already open" in str(error) else None
            raise FileError(f"cannot {operation}: {error}", where=where, mend=mend) from error


class _Shared:
    """An environment that is open as long as a backend holds this."""

    def __init__(self, environment: Any, *, readonly: bool) -> None:  # lmdb has no types
        self.environment = environment
        self.readonly = readonly

    def close(self) -> None:
        self.environment.close()

    __del__ = close


class _Opened:
    """The environments that a process has open, by their real paths: LMDB forbids to open one twice."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shared: WeakValueDictionary[str, _Shared] = WeakValueDictionary()


# By process: nothing of it may be used after a fork.
_OPENED: Final[dict[int, _Opened]] = {}


def _open(path: str, options: Mapping[str, Any]) -> _Shared:
    opened, readonly = _OPENED.setdefault(os.getpid(), _Opened()), bool(options["readonly"])
    real = os.path.realpath(path)
    with opened.lock:
        shared = opened.shared.get(real)
        if shared is None:
            shared = opened.shared[real] = _Shared(_environment(real, options), readonly=readonly)
    if shared.readonly and not readonly:
        raise FileError(
            "this process has the environment open read only",
            where=f"lmdb://{path}",
            mend="close that backend, or make the one with readonly=False the first",
        )
    return shared


def _environment(path: str, options: Mapping[str, Any]) -> Any:  # lmdb has no types
    directory, readonly = not os.path.isfile(path), options["readonly"]
    if directory and not readonly:
        os.makedirs(path, exist_ok=True)
    chosen = {**options, "lock": options["lock"] or not readonly}
    return _library().open(path, subdir=directory, create=not readonly, **chosen)


def _library() -> Any:  # lmdb has no types
    return require("lmdb", extra="lmdb", purpose="'lmdb://'")


def _value(transaction: Any, path: str, uri: str) -> Any:  # lmdb has no types
    """Return a file's content, valid within the transaction."""
    key = path.encode()
    value = transaction.get(key) if len(key) <= _LONGEST_KEY else None
    if value is None:
        raise FileMissingError("there is no such file", where=join_uri(uri, path))
    return value


def _keys(transaction: Any, position: bytes, lead: bytes) -> tuple[list[tuple[str, int]], bytes | None]:
    """Return paths and sizes from a position on, and where to go on; None at the end."""
    found: list[tuple[str, int]] = []
    cursor = transaction.cursor()
    if not cursor.set_range(position):
        return found, None
    for count, (key, value) in enumerate(cursor.iternext()):
        name = bytes(key)
        if not name.startswith(lead):
            return found, None
        if count == _BATCH:
            return found, name
        try:
            found.append((check_path(name.decode(), ""), len(value)))
        except (UnicodeDecodeError, FileError):  # others' keys
            continue
    return found, None

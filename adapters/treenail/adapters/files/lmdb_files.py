"""Files as the values of an LMDB database, a memory-mapped tree of keys in one file (http://www.lmdb.tech/doc/)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from treenail.adapters.files.paths import check_path, check_range, join_uri, local_path_of, scheme_of
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, require

_LONGEST_KEY = 511
"""Bytes: MDB_MAXKEYSIZE as LMDB is built everywhere."""
_BATCH = 1000
"""Keys listed in one transaction; a long one would keep LMDB from using deleted pages again."""


class LmdbFiles:
    """Files of an LMDB environment: a path in UTF-8 is the key, the content is the value.

    A write is one transaction: atomic and durable. A key that is no path (not UTF-8, absolute, with ``..`` or empty parts)
    is neither listed nor read. A value is held in memory whole to be written. LMDB keeps neither times nor versions: the
    time of a file is that of the environment's last change. A process opens an environment
    once: let it be one backend, or `close` the first. URIs have ``!/`` between environment and path:
    ``lmdb:///data/set.lmdb!/train/1.png``.

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
        self._guard = os.getpid(), threading.Lock()
        self._opened: _Opened | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return partial(LmdbFiles, **self._options), (self._path,)  # type: ignore[arg-type]  # each has its own type

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (``lmdb:///environment``, path): what stands before and after the first ``!/``."""
        environment, _, path = uri.partition("!/")
        return environment.removesuffix("!"), path.rstrip("/")

    @property
    def capabilities(self) -> Capabilities:
        """Ranges; atomic replacement and creation where it may be written."""
        return Capabilities(
            atomic_replace=not self.readonly, conditional_put=not self.readonly, writable=not self.readonly
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
        value = _joined(data)
        with self._transaction("write", path, write=True) as transaction:
            transaction.put(key, value)

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write where there is no such file; return whether there was none."""
        key = self._writable(path)
        value = _joined(data)
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
        """Let go of the environment, which no thread may be using; the next use opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.environment.close()

    def _writable(self, path: str) -> bytes:
        """Return the key of a path that is to be changed."""
        where = join_uri(self.uri, check_path(path, self.uri))
        if self.readonly:
            raise FileError("this store is read only", where=where, mend="open it with readonly=False")
        key = path.encode()
        if len(key) > _LONGEST_KEY:
            raise FileError(
                f"a path of {len(key)} bytes is no key of LMDB",
                where=where,
                mend=f"keep it within {_LONGEST_KEY} bytes",
            )
        return key

    def _last_change(self) -> float:
        return os.stat(self._path if os.path.isfile(self._path) else os.path.join(self._path, "data.mdb")).st_mtime

    @contextmanager
    def _transaction(self, operation: str, path: str, *, write: bool = False) -> Iterator[Any]:  # lmdb has no types
        lmdb = require("lmdb", extra="lmdb", purpose="'lmdb://'")
        where = join_uri(self.uri, path)
        try:
            with self._open(lmdb).begin(write=write, buffers=True) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise FileError(f"cannot {operation}: it is full", where=where, mend="raise map_size") from error
        except lmdb.ReadersFullError as error:
            raise FileError(f"cannot {operation}: too many at once", where=where, mend="raise max_readers") from error
        except (lmdb.Error, OSError) as error:
            mend = "use the one backend that this process has, or close it" if "already open" in str(error) else None
            raise FileError(f"cannot {operation}: {error}", where=where, mend=mend) from error

    def _open(self, lmdb: Any) -> Any:  # lmdb has no types
        """Return this process's environment; LMDB forbids to use one that was opened before a fork."""
        opened = self._opened
        if opened is not None and opened.process == os.getpid():
            return opened.environment
        if self._guard[0] != os.getpid():  # another thread may have held the lock at the fork
            self._guard = os.getpid(), threading.Lock()
        with self._guard[1]:
            opened = self._opened
            if opened is None or opened.process != os.getpid():
                self.close()  # what a forked process inherited; its locks are the parent's and stay
                if not self.readonly and not os.path.isfile(self._path):
                    os.makedirs(self._path, exist_ok=True)
                options = self._options | {"lock": self._options["lock"] or not self.readonly}
                environment = lmdb.open(
                    self._path, subdir=not os.path.isfile(self._path), create=not self.readonly, **options
                )
                opened = self._opened = _Opened(environment, os.getpid())
        return opened.environment


class _Opened(NamedTuple):
    environment: Any  # lmdb has no types
    process: int


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


def _joined(data: bytes | Iterable[bytes]) -> bytes:
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)

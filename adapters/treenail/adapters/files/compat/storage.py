"""mmengine's interface of a store, and a store of it as one of our file backends."""

from __future__ import annotations

import inspect
import os
import posixpath
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from treenail.adapters.files import operations
from treenail.adapters.files.compat.errors import AbsentError, NotOfferedError, TakenError, as_python_errors
from treenail.adapters.files.mounts import Mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import check_path, check_range, join_uri
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat

LOCAL_DISKS = Mounts()
"""Finds local paths where they are, whatever mounts are in use."""


class BaseStorageBackend(ABC):
    """A store as mmengine speaks of it. A subclass defines `get` and `get_text`, and what else its store can do.

    What it does not define is done with `get`, `put` and `list_dir_or_file`; where that is impossible, it is a
    `NotImplementedError`.
    """

    _allow_symlink = False

    @property
    def allow_symlink(self) -> bool:
        """Whether the store has symbolic links."""
        return self._allow_symlink

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @abstractmethod
    def get(self, filepath: AnyPath) -> bytes:
        """Return the bytes of a file."""

    @abstractmethod
    def get_text(self, filepath: AnyPath) -> str:
        """Return a file as text; an `encoding` may be a second argument."""

    def put(self, obj: bytes, filepath: AnyPath) -> None:
        """Write bytes; missing directories are made."""
        raise self._not_offered("write", filepath)

    def put_text(self, obj: str, filepath: AnyPath, encoding: str = "utf-8") -> None:
        """Write a text; missing directories are made."""
        self.put(obj.encode(encoding), filepath)

    def exists(self, filepath: AnyPath) -> bool:
        """Return whether there is a file or directory."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isdir(self, filepath: AnyPath) -> bool:  # a subclass needs it
        """Return whether there is a directory; in a store that is only read by name there is none."""
        return False

    def isfile(self, filepath: AnyPath) -> bool:
        """Return whether there is a file."""
        try:
            return self.get(filepath) is not None
        except (FileMissingError, FileNotFoundError, KeyError):
            return False

    def join_path(self, filepath: AnyPath, *filepaths: AnyPath) -> str:
        """Return a path with parts below it, whose leading slashes mean nothing."""
        parts = (os.fspath(each).lstrip("/") for each in filepaths)
        return "/".join([os.fspath(filepath).removesuffix("/"), *parts])

    @contextmanager
    def get_local_path(self, filepath: AnyPath) -> Iterator[AnyPath]:
        """Give a local copy for the block, with the name of the file; it is removed after it, whatever happens."""
        with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
            copy = Path(folder) / (posixpath.basename(os.fspath(filepath)) or "file")
            copy.write_bytes(self.get(filepath))
            yield str(copy)

    def copyfile(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a file within the store, and return where it lies; into `dst` where that is a directory."""
        target = self._into(src, dst)
        self.put(bytes(self.get(src)), target)
        return target

    def copyfile_from_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a local file into the store."""
        target = self._into(src, dst)
        with as_python_errors():
            data = Path(src).read_bytes()
        self.put(data, target)
        return target

    def copyfile_to_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a file of the store to a local one."""
        target: AnyPath = os.path.join(dst, posixpath.basename(os.fspath(src))) if os.path.isdir(dst) else dst
        with as_python_errors():
            operations.put(bytes(self.get(src)), target, mounts=LOCAL_DISKS)
        return target

    def copytree(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a directory within the store; `dst` must not exist."""
        self._check_free(self.exists(dst), dst)
        for each in self.list_dir_or_file(src, list_dir=False, recursive=True):
            self.put(bytes(self.get(self.join_path(src, each))), self.join_path(dst, each))
        return dst

    def copytree_from_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a local directory into the store; `dst` must not exist."""
        self._check_free(self.exists(dst), dst)
        top = Path(src)
        if not top.is_dir():
            raise AbsentError("there is no such directory", where=os.fspath(src))
        for each in sorted(path for path in top.rglob("*") if path.is_file()):
            self.put(each.read_bytes(), self.join_path(dst, each.relative_to(top).as_posix()))
        return dst

    def copytree_to_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a directory of the store to a local one; files that are there already are replaced."""
        for each in self.list_dir_or_file(src, list_dir=False, recursive=True):
            with as_python_errors():
                data = bytes(self.get(self.join_path(src, each)))
                operations.put(data, os.path.join(dst, each), mounts=LOCAL_DISKS)
        return dst

    def copy_if_symlink_fails(self, src: AnyPath, dst: AnyPath) -> bool:
        """Copy a file or directory, and return False: there are no symbolic links."""
        (self.copyfile if self.isfile(src) else self.copytree)(src, dst)
        return False

    def list_dir_or_file(
        self,
        dir_path: AnyPath,
        list_dir: bool = True,  # a subclass needs them
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Yield what lies in a directory, as paths relative to it."""
        raise self._not_offered("list", dir_path)

    def remove(self, filepath: AnyPath) -> None:
        """Remove a file."""
        raise self._not_offered("remove", filepath)

    def rmtree(self, dir_path: AnyPath) -> None:
        """Remove a directory and all below it."""
        for each in list(self.list_dir_or_file(dir_path, list_dir=False, recursive=True)):
            self.remove(self.join_path(dir_path, each))

    def generate_presigned_url(self, url: str, client_method: str = "get_object", expires_in: int = 3600) -> str:
        """Return a URL that works without credentials."""
        raise self._not_offered("sign", url)

    def _not_offered(self, operation: str, path: AnyPath) -> NotOfferedError:
        mend = "use another backend, or define the method in this class"
        return NotOfferedError(f"{self.name} cannot {operation}", where=os.fspath(path), mend=mend)

    def _into(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        return self.join_path(dst, os.path.basename(os.fspath(src))) if self.isdir(dst) else dst

    def _check_free(self, taken: bool, dst: AnyPath) -> None:
        if taken:
            raise TakenError("the target exists", where=os.fspath(dst), mend="remove it, or copy to another name")


def text_of(backend: BaseStorageBackend, path: AnyPath, encoding: str = "utf-8") -> str:
    """Return a file as text from a backend whose `get_text` may take no encoding, as in mmengine's own examples."""
    read = backend.get_text
    try:
        inspect.signature(read).bind(path, encoding)
    except TypeError:
        return read(path) if encoding.lower() in {"utf-8", "utf8"} else bytes(backend.get(path)).decode(encoding)
    return read(path, encoding)  # type: ignore[call-arg]  # the signature has just been asked


class StorageFiles:
    """A `BaseStorageBackend` of yours as one of our file backends, read only.

    It knows no versions, so `stat` reads the file; `list` needs the backend's own `list_dir_or_file`, and has no hidden
    entries where that has none.

    Args:
        root: What the paths are joined to (`join_path`) before the backend sees them; "" for nothing.
        backend: The store.
    """

    def __init__(self, root: str, *, backend: BaseStorageBackend) -> None:
        self.uri = root or f"{backend.name}://"
        self._root = root
        self._backend = backend

    @property
    def capabilities(self) -> Capabilities:
        """Nothing beyond reading."""
        return Capabilities(atomic_replace=False, ranges=False, writable=False)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_range(path, start, length)
        data = self._get(path)
        return data[start : None if length is None else start + length]

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:  # the port's
        """Refuse: this is read only."""
        raise self._read_only(path)

    def stat(self, path: str) -> FileStat:
        """Return the size and a hash of the content; the time is 0, as it is not known."""
        data = self._get(path)
        return FileStat(len(data), 0.0, blake2b(data, digest_size=16).hexdigest())

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        check_path(prefix, self.uri, root=True)
        lead = f"{prefix}/" if prefix else ""
        try:
            found = list(self._backend.list_dir_or_file(self._full(prefix), list_dir=False, recursive=True))
        except (FileMissingError, FileNotFoundError, NotADirectoryError):
            return
        yield from sorted((lead + each for each in found), key=str.encode)

    def delete(self, path: str) -> None:
        """Refuse: this is read only."""
        raise self._read_only(path)

    def _full(self, path: str) -> str:
        if not self._root or not path:
            return path or self._root
        return self._backend.join_path(self._root, path)

    def _get(self, path: str) -> bytes:
        check_path(path, self.uri)
        where = join_uri(self.uri, path)
        try:
            data: bytes | None = self._backend.get(self._full(path))
        except FileError:
            raise
        except (FileNotFoundError, IsADirectoryError, KeyError) as error:
            raise FileMissingError(f"there is no such file: {error}", where=where) from error
        except Exception as error:
            raise FileError(f"{self._backend.name} cannot read it: {error}", where=where) from error
        if data is None:  # mmengine's own LMDB backend says so that there is none
            raise FileMissingError("there is no such file", where=where)
        return bytes(data)

    def _read_only(self, path: str) -> FileError:
        check_path(path, self.uri)
        return FileError("this store is read only", where=join_uri(self.uri, path), mend="write to another store")

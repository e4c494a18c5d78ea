"""Our stores behind mmengine's interface."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from treenail.adapters.files import operations
from treenail.adapters.files.compat import placing
from treenail.adapters.files.compat.errors import (
    AbsentError,
    ArgumentValueError,
    DirectoryError,
    NoDirectoryError,
    as_python_errors,
)
from treenail.adapters.files.compat.storage import LOCAL_DISKS, BaseStorageBackend
from treenail.adapters.files.mounts import Mounts, Place, current_mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import check_path, scheme_of
from treenail.kernel import FileBackend, FileMissingError

_SIGNED: dict[str, Literal["GET", "PUT"]] = {"get_object": "GET", "put_object": "PUT"}


class MountedBackend(BaseStorageBackend):
    """All that `Mounts` finds behind mmengine's interface.

    Args:
        mounts: What finds the paths; the ones in use (`use_mounts`) at each call when None.
    """

    def __init__(self, mounts: Mounts | None = None) -> None:
        self._mounts = mounts

    def get(self, filepath: AnyPath) -> bytes:
        """Return the bytes of a file."""
        with as_python_errors():
            try:
                return operations.get(filepath, mounts=self._mounts)
            except FileMissingError as error:
                raise placing.absent(self._place(filepath)) from error

    def get_text(self, filepath: AnyPath, encoding: str = "utf-8") -> str:
        """Return a file as text."""
        return self.get(filepath).decode(encoding)

    def put(self, obj: bytes, filepath: AnyPath) -> None:
        """Write bytes, whole or not at all; missing directories are made."""
        with as_python_errors():
            operations.put(bytes(obj), filepath, mounts=self._mounts)

    def exists(self, filepath: AnyPath) -> bool:
        """Return whether there is a file or directory."""
        with as_python_errors():
            return placing.exists(self._place(filepath))

    def isdir(self, filepath: AnyPath) -> bool:
        """Return whether there is a directory."""
        with as_python_errors():
            return placing.is_directory(self._place(filepath))

    def isfile(self, filepath: AnyPath) -> bool:
        """Return whether there is a file."""
        with as_python_errors():
            return placing.is_file(self._place(filepath))

    def join_path(self, filepath: AnyPath, *filepaths: AnyPath) -> str:
        """Return a path with parts below it: as `os.path.join` for local paths; for URIs, leading slashes mean nothing."""
        if "://" in os.fspath(filepath):
            return super().join_path(filepath, *filepaths)
        return os.path.join(os.fspath(filepath), *(os.fspath(each) for each in filepaths))

    @contextmanager
    def get_local_path(self, filepath: AnyPath) -> Iterator[AnyPath]:
        """Give a local path for the block: a local file's own, as it was given, or that of a copy."""
        place = self._place(filepath)
        local = placing.local_path(place)
        if local is not None:
            yield filepath if os.path.abspath(filepath) == str(local) else str(local)
            return
        with ExitStack() as stack:
            with as_python_errors():
                copy = stack.enter_context(operations.get_local_path(filepath, mounts=self._mounts))
            yield str(copy)

    def copyfile(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a file, and return where it lies; into `dst` where that is a directory."""
        return self._copied(self._place(src), dst, self._place(dst))

    def copyfile_from_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a local file into the store."""
        return self._copied(LOCAL_DISKS.resolve(src), dst, self._place(dst))

    def copyfile_to_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a file of the store to a local one."""
        return self._copied(self._place(src), dst, LOCAL_DISKS.resolve(dst))

    def copytree(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a directory; `dst` must not exist."""
        with as_python_errors():
            placing.copy_tree(self._place(src), self._place(dst))
        return dst

    def copytree_from_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a local directory into the store; `dst` must not exist."""
        with as_python_errors():
            placing.copy_tree(LOCAL_DISKS.resolve(src), self._place(dst))
        return dst

    def copytree_to_local(self, src: AnyPath, dst: AnyPath) -> AnyPath:
        """Copy a directory of the store to a local one; `dst` must not exist."""
        with as_python_errors():
            placing.copy_tree(self._place(src), LOCAL_DISKS.resolve(dst))
        return dst

    def copy_if_symlink_fails(self, src: AnyPath, dst: AnyPath) -> bool:
        """Make `dst` a symbolic link to `src` on local disks that can, else copy it; return whether it is a link."""
        with as_python_errors():
            source, target = placing.local_path(self._place(src)), placing.local_path(self._place(dst))
        if source is not None and target is not None:
            try:
                os.symlink(os.fspath(src) if scheme_of(os.fspath(src)) is None else source, target)
            except OSError:
                pass
            else:
                return True
        return super().copy_if_symlink_fails(src, dst)

    def list_dir_or_file(
        self,
        dir_path: AnyPath,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Yield what lies in a directory, as paths relative to it, without hidden entries; a suffix asks for files only."""
        placing.check_suffix(suffix)
        return self._listed(dir_path, list_dir, list_file, suffix, recursive)

    def remove(self, filepath: AnyPath) -> None:
        """Remove a file."""
        if self.isdir(filepath):
            raise DirectoryError("this is a directory", where=os.fspath(filepath), mend="remove it with rmtree")
        if not self.isfile(filepath):
            raise AbsentError("there is no such file", where=os.fspath(filepath))
        with as_python_errors():
            operations.remove(filepath, mounts=self._mounts)

    def rmtree(self, dir_path: AnyPath) -> None:
        """Remove a directory and all below it."""
        if self.isfile(dir_path):
            raise NoDirectoryError("this is a file", where=os.fspath(dir_path), mend="remove it with remove")
        with as_python_errors():
            operations.rmtree(dir_path, mounts=self._mounts)

    def generate_presigned_url(self, url: str, client_method: str = "get_object", expires_in: int = 3600) -> str:
        """Return a URL that reads (get_object) or writes (put_object) a file for `expires_in` seconds."""
        if client_method not in _SIGNED:
            raise ArgumentValueError(
                f"there is no method {client_method!r}", where=url, mend=f"known are {', '.join(_SIGNED)}"
            )
        with as_python_errors():
            return operations.generate_presigned_url(url, _SIGNED[client_method], expires_in, mounts=self._mounts)

    def _place(self, path: AnyPath) -> Place:
        with as_python_errors():
            return (current_mounts() if self._mounts is None else self._mounts).resolve(path)

    def _copied(self, origin: Place, dst: AnyPath, place: Place) -> AnyPath:
        with as_python_errors():
            if (
                os.fspath(dst).endswith("/")
                and not placing.is_directory(place)
                and placing.local_path(place) is not None
            ):
                raise DirectoryError("there is no such directory", where=os.fspath(dst), mend="make it, or name a file")
            written = placing.copy_file(origin, place)
        name = posixpath.basename(written.path)
        return dst if written.path == place.path else self.join_path(dst, name)

    def _listed(
        self, dir_path: AnyPath, list_dir: bool, list_file: bool, suffix: str | tuple[str, ...] | None, recursive: bool
    ) -> Iterator[str]:
        with as_python_errors():
            yield from placing.list_entries(
                self._place(dir_path), directories=list_dir, files=list_file, suffix=suffix, recursive=recursive
            )


class FilesBackend(MountedBackend):
    """One of our file backends behind mmengine's interface.

    Args:
        files: Where the files lie; paths are those below its root, or begin with its URI.
    """

    def __init__(self, files: FileBackend) -> None:
        super().__init__(_OneStore(files))


class _OneStore(Mounts):
    """Finds every path in one store."""

    def __init__(self, files: FileBackend) -> None:
        super().__init__()
        self._files = files

    def __reduce__(self) -> tuple[object, ...]:
        return _OneStore, (self._files,)

    def resolve(self, uri: AnyPath) -> Place:
        text = os.fspath(uri)
        lead = self._files.uri.rstrip("/") + "/"
        path = text.removeprefix(lead).strip("/") if f"{text}/" != lead else ""
        return Place(self._files, check_path(path, self._files.uri, root=True))

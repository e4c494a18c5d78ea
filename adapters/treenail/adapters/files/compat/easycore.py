"""easycore's `PathManager` over our stores: one way to open, copy and list paths, local or remote, by handlers of prefixes.

A path goes to the handler of the longest prefix that it begins with; without any, to `MountedPathHandler`: what the mounts in
use find, a local file without a scheme. A URI that nothing serves is an error.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

from treenail.adapters.files import derived, operations
from treenail.adapters.files.compat import placing
from treenail.adapters.files.compat.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    BackendNameError,
    DirectoryError,
    NotOfferedError,
    TakenError,
    as_python_errors,
)
from treenail.adapters.files.compat.publishing import published
from treenail.adapters.files.compat.storage import LOCAL_DISKS
from treenail.adapters.files.compat.walks import walked
from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.locks import locked
from treenail.adapters.files.mirror import LocalMirror
from treenail.adapters.files.mounts import Mounts, Place, current_mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import check_path
from treenail.adapters.files.progress import transfer_progress
from treenail.kernel import FileError

__all__ = [
    "HTTPURLHandler",
    "MountedPathHandler",
    "NativePathHandler",
    "PathHandler",
    "PathManager",
    "PathManagerType",
    "RedirectPathHandler",
    "download_file",
    "file_lock",
]

_LOG = logging.getLogger(__name__)


class PathHandler:
    """Serves the paths of some prefixes. A subclass defines `get_supported_prefixes` and what its paths can do."""

    def get_cache_dir(self, protocol: str | None = None) -> str:
        """Return where local copies are kept: ``$EASYCORE_CACHE`` or ``~/.easycore/cache``, and below it the protocol's."""
        base = os.path.expanduser(os.environ.get("EASYCORE_CACHE") or "~/.easycore/cache")
        return os.path.join(base, protocol) if protocol else base

    def get_supported_prefixes(self) -> list[str]:
        """Return the prefixes of the paths that this handler serves."""
        raise self._not_offered("has no prefixes", "")

    def get_local_path(self, path: str) -> str:
        """Return a local path of a file."""
        raise self._not_offered("has no local paths", path)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> IO[Any]:  # those of the built-in `open`
        """Open a file as the built-in `open` does."""
        raise self._not_offered("cannot open", path)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or directory."""
        return self.isfile(path) or self.isdir(path)

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        raise self._not_offered("cannot look", path)

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        raise self._not_offered("cannot look", path)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        raise self._not_offered("cannot list", path)

    def makedirs(self, path: str) -> None:
        """Make a directory and its missing parents; it may exist."""
        raise self._not_offered("cannot make directories", path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        raise self._not_offered("cannot remove", path)

    def removedirs(self, path: str) -> None:
        """Remove an empty directory, and its parents as far as they are empty then."""
        raise self._not_offered("cannot remove", path)

    def copy_from_local(self, local_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copy a local file to a path; return False, and say so in the log, where something is there already."""
        raise self._not_offered("cannot write", dst_path)

    def _not_offered(self, what: str, path: str) -> NotOfferedError:
        return NotOfferedError(
            f"{type(self).__name__} {what}", where=path or None, mend="define the method in this class"
        )


class MountedPathHandler(PathHandler):
    """All that `Mounts` finds: local files, and every store.

    Args:
        mounts: What finds the paths; the ones in use (`use_mounts`) at each call when None.
        prefixes: What `get_supported_prefixes` returns.
    """

    def __init__(self, mounts: Mounts | None = None, *, prefixes: tuple[str, ...] = ()) -> None:
        self._mounts = mounts
        self._prefixes = prefixes

    def get_supported_prefixes(self) -> list[str]:
        """Return the prefixes that it was made with."""
        return list(self._prefixes)

    def get_local_path(self, path: str) -> str:
        """Return a local path of a file: a local one's own, else that of a copy, which is made anew when the file changes.

        One process of a machine downloads a file, the others wait for it.
        """
        with as_python_errors():
            place = self._place(path)
            local = placing.local_path(place)
            if local is not None:
                return path if os.path.abspath(path) == str(local) else str(local)
            if isinstance(place.cache, LocalMirror):
                mirror = place.cache
            else:
                parent = PurePosixPath(place.path).parent.as_posix()
                source = "" if parent == "." else parent
                folder = sha256(path.encode()).hexdigest()[:32]  # of all of it: another query is another file
                mirror = LocalMirror(source, os.path.join(self.get_cache_dir(place.uri.partition(":")[0]), folder))
            with mirror.local_copy(place.backend, place.path) as copy:
                return str(copy)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> IO[Any]:  # those of the built-in `open`
        """Open a file as the built-in `open` does. What is written to another store is published when the file is closed."""
        with as_python_errors():
            place = self._place(path)
            local = placing.local_path(place)
            if local is not None:
                return open(local, mode, **kwargs)
            if not {*mode} & {*"wax+"}:
                return open(self.get_local_path(path), mode, **kwargs)
            if placing.is_directory(place):
                raise DirectoryError("this is a directory", where=place.uri, mend="name a file")
            if "x" in mode and placing.is_file(place):
                raise TakenError("the file exists", where=place.uri, mend="choose another name")
            return published(place, mode, **kwargs)

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        with as_python_errors():
            return placing.is_file(self._place(path))

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        with as_python_errors():
            return placing.is_directory(self._place(path))

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        with as_python_errors():
            return list(walked(self._place(path), recurse=False))

    def makedirs(self, path: str) -> None:
        """Make a directory and its missing parents, where the store has any; it may exist."""
        with as_python_errors():
            operations.make_directory(path, mounts=self._mounts)

    def remove(self, path: str) -> None:
        """Remove a file."""
        with as_python_errors():
            place = self._place(path)
            if placing.is_directory(place):
                raise DirectoryError("this is a directory", where=place.uri, mend="remove it with removedirs")
            operations.remove(path, mounts=self._mounts)

    def removedirs(self, path: str) -> None:
        """Remove an empty directory, and its parents as far as they are empty then; a store without directories has none."""
        with as_python_errors():
            place = self._place(path)
            local = placing.local_path(place)
            if local is not None:
                os.removedirs(local)
            elif placing.is_directory(place):
                raise TakenError("the directory is not empty", where=place.uri, mend="remove its files first")

    def copy_from_local(self, local_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copy a local file to a path; return False, and say so in the log, where something is there already.

        Raises:
            FileError: There is no such local file, or the store refused or failed.
        """
        with as_python_errors():
            place = self._place(dst_path)
            if not overwrite and placing.exists(place):
                _LOG.error("%s exists already, and overwrite is False", place.uri)
                return False
            if placing.is_directory(place):
                raise DirectoryError("this is a directory", where=place.uri, mend="name a file")
            placing.copy_file(LOCAL_DISKS.resolve(local_path), place)
        return True

    def _place(self, path: str) -> Place:
        return (current_mounts() if self._mounts is None else self._mounts).resolve(path)


class NativePathHandler(MountedPathHandler):
    """Local paths, where they are, whatever mounts are in use."""

    def __init__(self) -> None:
        super().__init__(LOCAL_DISKS)


class HTTPURLHandler(MountedPathHandler):
    """URLs, downloaded once and kept in the folder of copies."""

    def __init__(self) -> None:
        super().__init__(prefixes=("http://", "https://", "ftp://"))


class PathManagerType:
    """Handlers by prefix; safe between threads."""

    def __init__(self) -> None:
        self._handlers: dict[str, PathHandler] = {}
        self._default = MountedPathHandler()
        self._lock = threading.Lock()

    def register(self, handler: PathHandler, override: bool = False) -> None:
        """Let a handler serve its prefixes.

        Args:
            handler: The handler.
            override: Replace those that have the prefixes.

        Raises:
            ArgumentTypeError: It is no `PathHandler`.
            BackendNameError: A prefix is taken.
        """
        if not isinstance(handler, PathHandler):
            raise ArgumentTypeError(f"{handler!r} is no PathHandler")
        prefixes = handler.get_supported_prefixes()
        with self._lock:
            taken = [each for each in prefixes if each in self._handlers]
            if taken and not override:
                raise BackendNameError(f"the prefix {taken[0]!r} has a handler", mend="say override=True to replace it")
            self._handlers = {**self._handlers, **dict.fromkeys(prefixes, handler)}

    register_handler = register

    def open(self, path: AnyPath, mode: str = "r", **kwargs: Any) -> IO[Any]:  # those of the built-in `open`
        """Open a file as the built-in `open` does."""
        return self._of(path).open(os.fspath(path), mode, **kwargs)

    def copy(self, src_path: AnyPath, dst_path: AnyPath, overwrite: bool = False) -> bool:
        """Copy a file between any two paths; return False where `dst_path` exists and `overwrite` is False."""
        return self.copy_from_local(self.get_local_path(src_path), dst_path, overwrite)

    def copy_from_local(self, local_path: AnyPath, dst_path: AnyPath, overwrite: bool = False) -> bool:
        """Copy a local file to a path; return False where that exists and `overwrite` is False."""
        return self._of(dst_path).copy_from_local(os.fspath(local_path), os.fspath(dst_path), overwrite=overwrite)

    def get_local_path(self, path: AnyPath) -> str:
        """Return a local path of a file: a local one's own, else that of a copy."""
        return self._of(path).get_local_path(os.fspath(path))

    def exists(self, path: AnyPath) -> bool:
        """Return whether there is a file or directory."""
        return self._of(path).exists(os.fspath(path))

    def isfile(self, path: AnyPath) -> bool:
        """Return whether there is a file."""
        return self._of(path).isfile(os.fspath(path))

    def isdir(self, path: AnyPath) -> bool:
        """Return whether there is a directory."""
        return self._of(path).isdir(os.fspath(path))

    def listdir(self, path: AnyPath) -> list[str]:
        """Return the names in a directory."""
        return self._of(path).listdir(os.fspath(path))

    def makedirs(self, path: AnyPath) -> None:
        """Make a directory and its missing parents; it may exist."""
        self._of(path).makedirs(os.fspath(path))

    def remove(self, path: AnyPath) -> None:
        """Remove a file."""
        self._of(path).remove(os.fspath(path))

    def removedirs(self, path: AnyPath) -> None:
        """Remove an empty directory, and its parents as far as they are empty then."""
        self._of(path).removedirs(os.fspath(path))

    def _of(self, path: AnyPath) -> PathHandler:
        text = os.fspath(path)
        fitting = [prefix for prefix in self._handlers if text.startswith(prefix)]
        return self._handlers[max(fitting, key=len)] if fitting else self._default


class RedirectPathHandler(PathHandler):
    """Lets another prefix stand for one: ``RedirectPathHandler("model://", "s3://bucket/models/")``.

    Args:
        new_prefix: What the paths begin with.
        old_prefix: What they begin with instead.
        manager: What serves these; `PathManager` when None.
    """

    def __init__(self, new_prefix: str, old_prefix: str, *, manager: PathManagerType | None = None) -> None:
        if old_prefix.startswith(new_prefix):
            raise ArgumentValueError(f"{new_prefix!r} leads to itself", mend="choose another new_prefix")
        self.new_prefix, self.old_prefix = new_prefix, old_prefix
        self._manager = PathManager if manager is None else manager

    def get_supported_prefixes(self) -> list[str]:
        """Return the new prefix."""
        return [self.new_prefix]

    def redirect(self, path: str) -> str:
        """Return the path with the old prefix."""
        return self.old_prefix + path.removeprefix(self.new_prefix)

    def get_local_path(self, path: str) -> str:
        """Return a local path of a file."""
        return self._manager.get_local_path(self.redirect(path))

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> IO[Any]:  # those of the built-in `open`
        """Open a file as the built-in `open` does."""
        return self._manager.open(self.redirect(path), mode, **kwargs)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or directory."""
        return self._manager.exists(self.redirect(path))

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        return self._manager.isfile(self.redirect(path))

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        return self._manager.isdir(self.redirect(path))

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return self._manager.listdir(self.redirect(path))

    def makedirs(self, path: str) -> None:
        """Make a directory and its missing parents; it may exist."""
        self._manager.makedirs(self.redirect(path))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._manager.remove(self.redirect(path))

    def removedirs(self, path: str) -> None:
        """Remove an empty directory, and its parents as far as they are empty then."""
        self._manager.removedirs(self.redirect(path))

    def copy_from_local(self, local_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copy a local file to a path; return False where that exists and `overwrite` is False."""
        return self._manager.copy_from_local(local_path, self.redirect(dst_path), overwrite)


@contextmanager
def file_lock(path: AnyPath) -> Iterator[None]:
    """Hold the lock of a path (a file beside it) between processes; it ends with its process."""
    target = Path(path)
    with as_python_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")):
        yield


def download_file(
    url: str,
    dir: AnyPath,  # noqa: A002  (easycore's)
    filename: str | None = None,
    progress: bool = True,
) -> str:
    """Download a file into a local directory, unless one of that name is there; return its path.

    It appears whole or not at all. One process of a machine downloads it, the others wait for it.

    Args:
        url: What the mounts in use find: a URL, or a file of any store.
        dir: The directory; made where there is none.
        filename: The file's name there; the URL's last part when None.
        progress: Show on a terminal how far it is.

    Raises:
        AbsentError: There is no such file.
        StoreFailedError: It is empty, or the store or the disk failed.
    """
    with as_python_errors():
        place = current_mounts().resolve(url)
        folder = LocalFiles(dir)
        name = check_path(filename or PurePosixPath(place.file()).name, folder.uri)
        target = folder.local_path(name)
        with file_lock(target):
            if not target.is_file():
                chunks = derived.stream(place.backend, place.path)
                first = next(chunks, b"")
                if not first:
                    raise FileError("the file is empty", where=place.uri, mend="look whether it is the right one")
                whole = itertools.chain((first,), chunks)
                with transfer_progress(name) if progress else nullcontext() as advance:
                    folder.write(name, whole if advance is None else derived.counted(whole, advance))
    return str(target)


PathManager = PathManagerType()
"""The path manager of the whole program, as easycore has it."""

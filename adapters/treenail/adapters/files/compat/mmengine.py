"""All of `mmengine.fileio` over our stores: the same names, arguments, results and errors.

A path without a scheme means what the mounts in use put there, a local file without any; `s3://`, `petrel://`, `http://` and
`https://` have their backends, every other scheme is served as the mounts serve it, and one that nothing serves is a
`KeyError`. Errors are ours and Python's own at once. `docs/pages/how-to/files-in-existing-code.md` lists what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from treenail.adapters.files.compat.backends import FilesBackend, MountedBackend
from treenail.adapters.files.compat.choosing import Arguments, FileClient, get_file_backend, register_backend
from treenail.adapters.files.compat.errors import ContentError
from treenail.adapters.files.compat.handlers import (
    BaseFileHandler,
    JsonHandler,
    PickleHandler,
    YamlHandler,
    chosen,
    dump,
    load,
    register_handler,
)
from treenail.adapters.files.compat.storage import BaseStorageBackend, StorageFiles, text_of
from treenail.adapters.files.compat.stores import (
    HardDiskBackend,
    HTTPBackend,
    LmdbBackend,
    LocalBackend,
    MemcachedBackend,
    PetrelBackend,
)
from treenail.adapters.files.operations import AnyPath

__all__ = [
    "BaseFileHandler",
    "BaseStorageBackend",
    "FileClient",
    "FilesBackend",
    "HTTPBackend",
    "HardDiskBackend",
    "JsonHandler",
    "LmdbBackend",
    "LocalBackend",
    "MemcachedBackend",
    "MountedBackend",
    "PetrelBackend",
    "PickleHandler",
    "StorageFiles",
    "YamlHandler",
    "copy_if_symlink_fails",
    "copyfile",
    "copyfile_from_local",
    "copyfile_to_local",
    "copytree",
    "copytree_from_local",
    "copytree_to_local",
    "dict_from_file",
    "dump",
    "exists",
    "generate_presigned_url",
    "get",
    "get_file_backend",
    "get_local_path",
    "get_text",
    "isdir",
    "isfile",
    "join_path",
    "list_dir_or_file",
    "list_from_file",
    "load",
    "put",
    "put_text",
    "register_backend",
    "register_handler",
    "remove",
    "rmtree",
]

K = TypeVar("K")


def get(filepath: AnyPath, backend_args: Arguments | None = None) -> bytes:
    """Return the bytes of a file.

    Raises:
        AbsentError: There is no such file.
    """
    return _backend(filepath, backend_args).get(filepath)


def get_text(filepath: AnyPath, encoding: str = "utf-8", backend_args: Arguments | None = None) -> str:
    """Return a file as text.

    Raises:
        AbsentError: There is no such file.
        UnicodeDecodeError: It is no text in this encoding.
    """
    return text_of(_backend(filepath, backend_args), filepath, encoding)


def put(obj: bytes, filepath: AnyPath, backend_args: Arguments | None = None) -> None:
    """Write bytes, whole or not at all; missing directories are made."""
    _backend(filepath, backend_args).put(obj, filepath)


def put_text(obj: str, filepath: AnyPath, backend_args: Arguments | None = None, encoding: str = "utf-8") -> None:
    """Write a text, whole or not at all; missing directories are made."""
    _backend(filepath, backend_args).put_text(obj, filepath, encoding)


def exists(filepath: AnyPath, backend_args: Arguments | None = None) -> bool:
    """Return whether there is a file or directory."""
    return _backend(filepath, backend_args).exists(filepath)


def isdir(filepath: AnyPath, backend_args: Arguments | None = None) -> bool:
    """Return whether there is a directory."""
    return _backend(filepath, backend_args).isdir(filepath)


def isfile(filepath: AnyPath, backend_args: Arguments | None = None) -> bool:
    """Return whether there is a file."""
    return _backend(filepath, backend_args).isfile(filepath)


def join_path(filepath: AnyPath, *filepaths: AnyPath, backend_args: Arguments | None = None) -> str:
    """Return a path with parts below it."""
    return _backend(filepath, backend_args).join_path(filepath, *filepaths)


@contextmanager
def get_local_path(filepath: AnyPath, backend_args: Arguments | None = None) -> Iterator[AnyPath]:
    """Give a local path for the block: a local file's own, or that of a copy, which goes after it."""
    with _backend(filepath, backend_args).get_local_path(str(filepath)) as local:
        yield local


def copyfile(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a file, and return where it lies; into `dst` where that is a directory.

    Raises:
        AbsentError: There is no such source.
        SameFileError: Both are the same file.
    """
    return _backend(src, backend_args).copyfile(src, dst)


def copyfile_from_local(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a local file to the store of `dst`, and return where it lies."""
    return _backend(dst, backend_args).copyfile_from_local(src, dst)


def copyfile_to_local(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a file from the store of `src` to a local one, and return where it lies."""
    return _backend(src, backend_args).copyfile_to_local(src, dst)


def copytree(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a directory, and return `dst`.

    Raises:
        TakenError: `dst` exists.
    """
    return _backend(src, backend_args).copytree(src, dst)


def copytree_from_local(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a local directory to the store of `dst`, which must not exist, and return it."""
    return _backend(dst, backend_args).copytree_from_local(src, dst)


def copytree_to_local(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> AnyPath:
    """Copy a directory from the store of `src` to a local one, which must not exist, and return it."""
    return _backend(src, backend_args).copytree_to_local(src, dst)


def remove(filepath: AnyPath, backend_args: Arguments | None = None) -> None:
    """Remove a file.

    Raises:
        AbsentError: There is no such file.
        DirectoryError: It is a directory.
    """
    _backend(filepath, backend_args).remove(filepath)


def rmtree(dir_path: AnyPath, backend_args: Arguments | None = None) -> None:
    """Remove a directory and all below it.

    Raises:
        AbsentError: There is no such directory.
    """
    _backend(dir_path, backend_args).rmtree(dir_path)


def copy_if_symlink_fails(src: AnyPath, dst: AnyPath, backend_args: Arguments | None = None) -> bool:
    """Make `dst` a symbolic link to `src` where the store can, else copy it; return whether it is a link."""
    return _backend(src, backend_args).copy_if_symlink_fails(src, dst)


def list_dir_or_file(
    dir_path: AnyPath,
    list_dir: bool = True,
    list_file: bool = True,
    suffix: str | tuple[str, ...] | None = None,
    recursive: bool = False,
    backend_args: Arguments | None = None,
) -> Iterator[str]:
    """Yield what lies in a directory, as paths relative to it, without hidden entries.

    Args:
        dir_path: The directory.
        list_dir: Yield directories.
        list_file: Yield files.
        suffix: Endings of the files to yield; directories are then left out.
        recursive: Go down into directories.
        backend_args: Name ("backend") and arguments of the backend.

    Raises:
        ArgumentTypeError: `suffix` is neither a text nor a tuple of them.
    """
    return _backend(dir_path, backend_args).list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)


def generate_presigned_url(
    url: str, client_method: str = "get_object", expires_in: int = 3600, backend_args: Arguments | None = None
) -> str:
    """Return a URL that reads (get_object) or writes (put_object) a file for `expires_in` seconds."""
    return _backend(url, backend_args).generate_presigned_url(url, client_method, expires_in)


def list_from_file(
    filename: AnyPath,
    prefix: str = "",
    offset: int = 0,
    max_num: int = 0,
    encoding: str = "utf-8",
    file_client_args: Arguments | None = None,
    backend_args: Arguments | None = None,
) -> list[str]:
    """Return the lines of a text file, without their ends.

    Args:
        filename: The file.
        prefix: Put before each line.
        offset: How many lines are left out at the beginning.
        max_num: How many are returned at most; 0 or less returns all.
        encoding: Of the file.
        file_client_args: Old form of `backend_args`.
        backend_args: Name ("backend") and arguments of the backend.
    """
    lines = _lines(text_of(chosen(filename, file_client_args, backend_args), filename, encoding))
    start = max(0, offset)
    return [prefix + line.rstrip("\r\n") for line in lines[start : start + max_num if max_num > 0 else None]]


def dict_from_file(
    filename: AnyPath,
    key_type: Callable[[str], Any] = str,  # any type of keys
    encoding: str = "utf-8",
    file_client_args: Arguments | None = None,
    backend_args: Arguments | None = None,
) -> dict[Any, str | list[str]]:
    """Return a dict of a text file with columns: the first is the key, what follows a text or, if there are several, a list.

    Args:
        filename: The file; its columns are divided by white space. Of equal keys, the last one's line counts.
        key_type: Makes a key of its text.
        encoding: Of the file.
        file_client_args: Old form of `backend_args`.
        backend_args: Name ("backend") and arguments of the backend.

    Raises:
        ContentError: A line has less than two columns.
    """
    found: dict[Any, str | list[str]] = {}
    text = text_of(chosen(filename, file_client_args, backend_args), filename, encoding)
    for number, line in enumerate(_lines(text), 1):
        columns = line.split()
        if len(columns) < 2:
            raise ContentError(
                f"the line {line!r} has less than two columns",
                where=f"{filename}:{number}",
                mend="write key and value, divided by spaces",
            )
        found[key_type(columns[0])] = columns[1] if len(columns) == 2 else columns[1:]
    return found


def _lines(text: str) -> list[str]:
    """Return lines divided by LF only: `str.splitlines` also divides at what may stand in a name."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _backend(path: AnyPath, backend_args: Arguments | None) -> BaseStorageBackend:
    return get_file_backend(path, backend_args=backend_args, enable_singleton=True)

"""Values in files, by the format that a suffix or a name says; and lists in text files."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, TypeVar, overload

from treenail.adapters.files import operations
from treenail.adapters.files.formats import FileFormat
from treenail.adapters.files.mounts import Mounts
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import redacted, scheme_of
from treenail.kernel import Adapter, FileError, Registry, Spec, TreenailError, installed_adapters

K = TypeVar("K")


@functools.cache
def installed_formats() -> Registry[FileFormat]:
    """Return the formats of the installed adapters of the port "format"; their names and aliases are the suffixes."""
    registry: Registry[FileFormat] = Registry("format")
    for package, declaration in installed_adapters():
        if isinstance(declaration, Adapter) and declaration.port == "format":
            registry.declare(declaration, package)
    return registry


def load(
    file: AnyPath | IO[bytes] | IO[str],
    file_format: str | None = None,
    *,
    formats: Registry[FileFormat] | None = None,
    mounts: Mounts | None = None,
    **options: object,
) -> object:
    """Return the value that a file holds.

    Args:
        file: Path, URI, or an open file.
        file_format: Name of the format; the suffix when None.
        formats: Where formats are found: the installed ones when None.
        mounts: Where backends are found.
        options: Of the format, for example ``allow_pickle=True``.

    Raises:
        FileMissingError: There is no such file.
        FileError: The store failed, or the bytes are not of this format.
        RegistryError: There is no such format.
        SpecError: The format has no such option.
        MissingDependencyError: The format needs a package that is not installed.
    """
    where, form = _format(file, file_format, formats, options)
    if isinstance(file, str | os.PathLike):
        data = operations.get(file, mounts=mounts)
    else:
        read = file.read()
        data = read.encode() if isinstance(read, str) else read
    try:
        return form.decode(data)
    except TreenailError:
        raise
    except Exception as error:
        problem = f"cannot be read as {type(form).__name__.removesuffix('Format').lower()}"
        raise FileError(f"{problem}: {type(error).__name__}: {error}", where=where) from error


@overload
def dump(
    value: object,
    file: None = None,
    file_format: str | None = None,
    *,
    formats: Registry[FileFormat] | None = None,
    mounts: Mounts | None = None,
    **options: object,
) -> bytes: ...
@overload
def dump(
    value: object,
    file: AnyPath | IO[bytes] | IO[str],
    file_format: str | None = None,
    *,
    formats: Registry[FileFormat] | None = None,
    mounts: Mounts | None = None,
    **options: object,
) -> None: ...
def dump(
    value: object,
    file: AnyPath | IO[bytes] | IO[str] | None = None,
    file_format: str | None = None,
    *,
    formats: Registry[FileFormat] | None = None,
    mounts: Mounts | None = None,
    **options: object,
) -> bytes | None:
    """Write a value to a file, whole or not at all; return its bytes where there is no file.

    Args:
        value: What to write.
        file: Path, URI, or an open file.
        file_format: Name of the format; the suffix when None.
        formats: Where formats are found: the installed ones when None.
        mounts: Where backends are found.
        options: Of the format, for example ``indent=2``.

    Raises:
        FileError: The format has no such value, or the store refused or failed; the file is as it was.
        RegistryError: There is no such format.
        SpecError: The format has no such option.
        MissingDependencyError: The format needs a package that is not installed.
    """
    where, form = _format(file, file_format, formats, options)
    try:
        data = form.encode(value)
    except TreenailError:
        raise
    except Exception as error:
        problem = f"cannot be written as {type(form).__name__.removesuffix('Format').lower()}"
        raise FileError(f"{problem}: {type(error).__name__}: {error}", where=where) from error
    if file is None:
        return data
    if isinstance(file, str | os.PathLike):
        operations.put(data, file, mounts=mounts)
    elif isinstance(file, io.TextIOBase):
        file.write(data.decode())
    else:
        file.write(data)  # type: ignore[arg-type]  # no text file, so it takes bytes
    return None


def list_from_file(
    path: AnyPath,
    prefix: str = "",
    offset: int = 0,
    max_num: int = 0,
    encoding: str = "utf-8",
    *,
    mounts: Mounts | None = None,
) -> list[str]:
    """Return the lines of a text file, without their ends.

    Args:
        path: The file.
        prefix: Put before each line.
        offset: How many lines are left out at the beginning.
        max_num: How many are returned at most; 0 or less returns all.
        encoding: Of the file.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no such file.
        FileError: offset is negative, or the file is no such text.
    """
    if offset < 0:
        raise FileError(f"offset is {offset}", where=redacted(os.fspath(path)), mend="it is at least 0")
    lines = _lines(operations.get_text(path, encoding, mounts=mounts))
    return [prefix + line for line in lines[offset : offset + max_num if max_num > 0 else None]]


@overload
def dict_from_file(
    path: AnyPath, *, encoding: str = "utf-8", mounts: Mounts | None = None
) -> dict[str, str | list[str]]: ...
@overload
def dict_from_file(
    path: AnyPath, key_type: Callable[[str], K], encoding: str = "utf-8", *, mounts: Mounts | None = None
) -> dict[K, str | list[str]]: ...
def dict_from_file(
    path: AnyPath,
    key_type: Callable[[str], object] = str,
    encoding: str = "utf-8",
    *,
    mounts: Mounts | None = None,
) -> object:
    """Return a dict of a text file with columns: the first is the key, what follows a text or, if there are several, a list.

    Args:
        path: The file; its columns are divided by white space, blank lines are left out.
        key_type: Makes a key of its text.
        encoding: Of the file.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no such file.
        FileError: A line has one column, a key comes twice or is none; or the file is no such text.
    """
    found: dict[object, str | list[str]] = {}
    for number, line in enumerate(_lines(operations.get_text(path, encoding, mounts=mounts)), 1):
        columns = line.split()
        if not columns:
            continue
        where = f"{redacted(os.fspath(path))}:{number}"
        if len(columns) == 1:
            raise FileError(
                f"the line {line!r} has a key and no value", where=where, mend="write both, divided by spaces"
            )
        try:
            key = key_type(columns[0])
        except (TypeError, ValueError) as error:
            raise FileError(f"the key {columns[0]!r} is none: {error}", where=where) from error
        if key in found:
            raise FileError(f"the key {columns[0]!r} comes twice", where=where, mend="remove one of the lines")
        found[key] = columns[1] if len(columns) == 2 else columns[1:]
    return found


def _lines(text: str) -> list[str]:
    """Return lines divided by LF or CRLF only: `str.splitlines` also divides at what may stand in a name."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _format(
    file: AnyPath | IO[bytes] | IO[str] | None,
    name: str | None,
    formats: Registry[FileFormat] | None,
    options: dict[str, object],
) -> tuple[str, FileFormat]:
    if isinstance(file, str | os.PathLike):
        where = redacted(os.fspath(file))
        text = os.fspath(file)
        # The query and fragment of HTTP are no part of a name; elsewhere, "?" and "#" are letters.
        shown = where if scheme_of(text) in {"http", "https"} else text
        name = PurePosixPath(shown).suffix.lstrip(".").lower() if name is None else name
    else:
        where = str(getattr(file, "name", "an open file"))
    if not name:
        raise FileError("the format is not known", where=where, mend="say file_format, for example 'json'")
    factory = (formats or installed_formats()).resolve(name)
    return where, Spec(factory, (), options, where=where).build()

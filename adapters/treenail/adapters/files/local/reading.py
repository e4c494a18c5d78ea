"""Reads of open local files, each byte copied once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from treenail.kernel import FileError, FileMissingError

CHUNK: Final = 1 << 20
_MOST: Final = 0x7FFFF000  # bytes that read(2) of Linux transfers at most


def read_range(descriptor: int, where: str, start: int, length: int | None) -> bytes:
    """Return `length` bytes from `start`, all to the end when None.

    Raises:
        FileMissingError: This is no file.
        OSError: The disk failed.
    """
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)  # a fifth of what fstat costs, where the type is no question
    except OSError:
        size = 0
    wanted = size - start if length is None or length > size - start else length
    if 0 < wanted <= _MOST:
        os.lseek(descriptor, start, os.SEEK_SET)
        data = os.read(descriptor, wanted)
        if len(data) == wanted:
            return data
    return _read_special(descriptor, where, start, length)


def _read_special(descriptor: int, where: str, start: int, length: int | None) -> bytes:
    """Do the same for a huge file, one that shrinks, one without bytes or without a known size, and what is no file."""
    size = _size(descriptor, where)
    if size and start >= size:  # some disks refuse to go far beyond an end
        return b""
    with open(descriptor, "rb", closefd=False) as file:
        if size == 0:  # empty, or made by the system while it is read, as in /proc
            file.seek(0)
            return file.read()[start:][:length]
        file.seek(start)
        return file.read(-1 if length is None else min(length, size - start))


def read_chunks(descriptor: int, where: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield the same bytes, a chunk at a time.

    Raises:
        FileMissingError: This is no file.
        FileError: The file changed meanwhile, or the disk failed.
    """
    size = _size(descriptor, where)
    if size == 0:
        yield _explained_read(descriptor, where, start, length)
        return
    before = _state(descriptor)
    rest = size - start if length is None else min(length, size - start)
    if rest > 0:  # some disks refuse to go far beyond an end
        os.lseek(descriptor, start, os.SEEK_SET)
    while rest > 0:
        try:
            chunk = os.read(descriptor, min(rest, CHUNK))
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror or error}", where=where) from error
        if not chunk:
            break
        rest -= len(chunk)
        yield chunk
    if rest > 0 or _state(descriptor) != before:
        raise FileError("the file changed while it was read", where=where, mend="read it again")


def _explained_read(descriptor: int, where: str, start: int, length: int | None) -> bytes:
    try:
        return read_range(descriptor, where, start, length)
    except OSError as error:
        raise FileError(f"cannot read: {error.strerror or error}", where=where) from error


def _state(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_mtime_ns, found.st_size


def _size(descriptor: int, where: str) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise FileMissingError("there is no such file", where=where)
    return found.st_size

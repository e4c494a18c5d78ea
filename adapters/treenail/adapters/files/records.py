"""Large files of records, a part at a time: every byte belongs to exactly one part, and parts begin where records do.

A record begins at the file's start and after each delimiter; the delimiter is its record's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from treenail.adapters.files import derived
from treenail.adapters.files.mounts import Mounts, Place, resolved
from treenail.adapters.files.operations import AnyPath
from treenail.kernel import FileError

_LOOK = 64 * 1024


class Span(NamedTuple):
    """Bytes `start` … `start + length - 1` of a file."""

    start: int
    length: int


def record_spans(
    path: AnyPath,
    *,
    parts: int | None = None,
    part_size: int | None = None,
    delimiter: bytes | None = None,
    mounts: Mounts | None = None,
) -> list[Span]:
    """Divide a file into spans of about equal size that together are the whole file.

    Args:
        path: The file.
        parts: Into how many, at most: a record is never divided, and no span is empty.
        part_size: Or else, how many bytes each has at least, but for the last one.
        delimiter: What ends a record; None divides anywhere.
        mounts: Where backends are found.

    Raises:
        FileMissingError: There is no such file.
        FileError: Not exactly one of `parts` and `part_size` is given, or it is below 1.
    """
    place = resolved(path, mounts)
    wanted = parts if part_size is None else part_size
    if (parts is None) == (part_size is None) or wanted is None or wanted < 1:
        raise FileError(
            f"parts is {parts}, part_size is {part_size}", where=place.uri, mend="give one of them, at least 1"
        )
    _check_delimiter(delimiter, place)
    size = place.backend.stat(place.path).size
    cuts = range(0, size, wanted) if parts is None else (size * part // parts for part in range(parts))
    starts = sorted({_record_start(place, cut, size, delimiter) for cut in cuts} - {size})
    return [Span(start, end - start) for start, end in pairwise([*starts, size])]


def read_records(
    path: AnyPath, start: int = 0, size: int = 10_000, delimiter: bytes | None = None, *, mounts: Mounts | None = None
) -> tuple[bytes, int]:
    r"""Return the records that begin in a window, and where the next window begins.

    ``while start < size_of_file: data, start = read_records(path, start, 10_000, b"\n")`` reads each record once.

    Args:
        path: The file.
        start: First byte of the window.
        size: Bytes of the window, at least 1; more are returned where a record goes beyond it.
        delimiter: What ends a record; None takes the window as it is.
        mounts: Where backends are found.

    Returns:
        (bytes, next start); (b"", size of the file) at and behind the end.

    Raises:
        FileMissingError: There is no such file.
        FileError: start is negative, or size is below 1.
    """
    place = resolved(path, mounts)
    if start < 0 or size < 1:
        raise FileError(f"start is {start}, size is {size}", where=place.uri, mend="start is at least 0, size 1")
    _check_delimiter(delimiter, place)
    end = place.backend.stat(place.path).size
    first = _record_start(place, min(start, end), end, delimiter)
    after = _record_start(place, min(start + size, end), end, delimiter)
    return place.backend.read(place.path, first, after - first) if after > first else b"", after


def iterate_records(
    path: AnyPath, delimiter: bytes = b"\n", span: Span | None = None, *, mounts: Mounts | None = None
) -> Iterator[bytes]:
    """Yield the records of a file, or of one of its `record_spans`, without their delimiters.

    It holds one record and one chunk of the store's at a time. A file that ends with a delimiter has no empty record
    after it.

    Raises:
        FileMissingError: There is no such file.
        FileError: The delimiter is empty, or the file changed meanwhile.
    """
    place = resolved(path, mounts)
    _check_delimiter(delimiter, place)
    return _records(place, delimiter, *(span or (0, None)))


def _records(place: Place, delimiter: bytes, start: int, length: int | None) -> Iterator[bytes]:
    keep = len(delimiter) - 1  # of the last bytes, which may be the beginning of a delimiter
    pieces: list[bytes] = []
    tail = b""
    for chunk in derived.stream(place.backend, place.path, start, length):
        first, *others = (tail + chunk).split(delimiter)
        if others:
            yield b"".join([*pieces, first])
            yield from others[:-1]
            pieces, first = [], others[-1]
        cut = max(0, len(first) - keep)
        pieces.append(first[:cut])
        tail = first[cut:]
    if rest := b"".join([*pieces, tail]):
        yield rest


def _record_start(place: Place, position: int, size: int, delimiter: bytes | None) -> int:
    """Return where the first record begins at or after a position; the file's size if none does."""
    if delimiter is None or position in {0, size}:
        return position
    look_from = max(0, position - len(delimiter))
    seen = b""
    while look_from + len(seen) < size:
        more = place.backend.read(place.path, look_from + len(seen), _LOOK)
        if not more:
            raise FileError("the file changed while it was read", where=place.uri, mend="read it again")
        seen += more
        found = seen.find(delimiter)
        if found >= 0:
            return look_from + found + len(delimiter)
        look_from, seen = look_from + len(seen) - len(delimiter) + 1, seen[len(seen) - len(delimiter) + 1 :]
    return size


def _check_delimiter(delimiter: bytes | None, place: Place) -> None:
    if delimiter is not None and (not isinstance(delimiter, bytes) or not delimiter):
        raise FileError(f"the delimiter is {delimiter!r}", where=place.uri, mend=r"give bytes, such as b'\n', or None")

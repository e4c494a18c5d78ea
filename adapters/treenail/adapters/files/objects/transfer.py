"""Chunks on their way to an object store, and several transfers at once, in order and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from treenail.adapters.files.batches import in_order
from treenail.adapters.files.workers import Workers
from treenail.kernel import FileError

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """Yield function(item) for each item, in order, with up to `window` of them under way or done in threads."""
    with Workers(window, "treenail-files") as pool:
        yield from in_order(function, items, pool, window, ahead=1)


class SourceError(Exception):
    """Carries what making the chunks raised through the store's library; a caller sees its cause."""


class Source:
    """Chunks that someone else makes, cut to pieces of at most a size.

    Args:
        data: The chunks, or all of them as one.
        size: Of the largest piece, in bytes.
        where: URI of what they are written to.
    """

    def __init__(self, data: bytes | Iterable[bytes], size: int, where: str) -> None:
        whole = isinstance(data, bytes | bytearray | memoryview)
        self._pieces = self._cut(iter((data,) if whole else data), size, where)
        self._error: BaseException | None = None
        self.ended = False

    def up_to(self, count: int | None) -> bytes:
        """Return more than `count` bytes where there are more, else all (always, when None): then `ended` is set."""
        found, length = list[bytes | memoryview](), 0
        for piece in self._pieces:
            found.append(piece)
            length += len(piece)
            if count is not None and length > count:
                break
        else:
            self.ended = True
        return found[0] if len(found) == 1 and isinstance(found[0], bytes) else b"".join(found)

    def rest(self) -> Iterator[bytes | memoryview]:
        """Yield the pieces that `up_to` has not returned."""
        return self._pieces

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Raise what making the chunks raised, whatever the library made of it."""
        try:
            yield
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise

    def _cut(self, chunks: Iterator[object], size: int, where: str) -> Iterator[bytes | memoryview]:
        while True:
            try:
                chunk = next(chunks)
                rest = _bytes(chunk, where)
            except StopIteration:
                return
            except BaseException as error:
                self._error = error
                raise SourceError from error
            if len(rest) <= size and isinstance(chunk, bytes):
                yield chunk
                continue
            while rest:
                yield rest[:size]
                rest = rest[size:]


def _bytes(chunk: object, where: str) -> memoryview:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        mend = "encode it" if isinstance(chunk, str) else "give bytes"
        raise FileError(f"cannot write a {type(chunk).__name__}", where=where, mend=mend)
    return memoryview(chunk).cast("B")

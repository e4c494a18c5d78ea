"""What is written to a file: bytes, or chunks of them that someone else makes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from treenail.kernel import FileError


def check_content(data: object, where: str | None = None) -> None:
    """Raise `FileError` for what can be no content of a file; asked before anything is touched."""
    if isinstance(data, str):
        raise FileError("cannot write a str", where=where, mend="encode it, or use put_text")
    if not isinstance(data, bytes | bytearray | memoryview | Iterable):
        raise FileError(f"cannot write a {type(data).__name__}", where=where, mend="give bytes, or an iterable of them")


def joined(data: bytes | Iterable[bytes]) -> bytes:
    """Return all of it, for a store that takes a file at once.

    Raises:
        FileError: It is neither bytes nor an iterable.
    """
    check_content(data)
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)


@contextmanager
def gathered(data: bytes | Iterable[bytes], most: int) -> Iterator[bytes | Path]:
    """Give all of it, so that a source that breaks has changed nothing: in memory, or in a temporary file where it is large.

    Args:
        data: The content.
        most: How many bytes of chunks are kept in memory.

    Raises:
        FileError: It is neither bytes nor an iterable, or the temporary file cannot be written.
    """
    check_content(data)
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
        return
    chunks, parts, size = iter(data), list[bytes](), 0
    for chunk in chunks:
        parts.append(bytes(chunk))
        size += len(chunk)
        if size > most:
            break
    else:
        yield b"".join(parts)
        return
    with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
        path = Path(folder) / "content"
        with path.open("xb") as file:
            for chunk in chain(parts, chunks):
                try:
                    file.write(chunk)
                except OSError as error:
                    mend = "free some space there, or let TMPDIR name another directory"
                    raise FileError(f"cannot gather: {error.strerror}", where=str(path), mend=mend) from error
        yield path

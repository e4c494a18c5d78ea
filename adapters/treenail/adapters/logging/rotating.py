"""Files of lines that give way to a new one when they are full."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Annotated, BinaryIO, Literal

from msgspec import Meta

from treenail.kernel import FileError


class RotatingFile:
    """A file to which whole lines are written at once; a full one becomes ``NAME.1``, that ``NAME.2``, and so on.

    One process writes it; several threads may.

    Args:
        path: The file. Its directory is made if need be.
        mode: ``a`` adds to it, ``w`` begins it anew.
        max_bytes: How large it may become, but for a single line that is larger; None: without end.
        keep: How many earlier files stay.

    Raises:
        FileError: The file cannot be opened.
        ValueError: max_bytes or keep is too small, or mode another one.
    """

    def __init__(
        self,
        path: Path,
        mode: Literal["a", "w"] = "a",
        max_bytes: Annotated[int, Meta(ge=1)] | None = None,
        keep: Annotated[int, Meta(ge=0)] = 5,
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, must be at least 1")
        if keep < 0:
            raise ValueError(f"keep is {keep}, must not be negative")
        if mode not in ("a", "w"):
            raise ValueError(f"mode is '{mode}', must be 'a' or 'w'")
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.keep = keep
        self._lock = Lock()
        self._file: BinaryIO | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open(mode)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, line: bytes) -> None:
        """Write a line, its end included.

        Raises:
            FileError: It cannot be written, or the file is closed.
        """
        with self._lock:
            if self._file is None:
                raise FileError("the log is closed", where=str(self.path))
            try:
                if self.max_bytes is not None and self._size and self._size + len(line) > self.max_bytes:
                    self._rotate()
                rest = memoryview(line)
                while rest:  # a disk that is nearly full takes a part
                    written = self._file.write(rest)
                    self._size += written
                    rest = rest[written:]
            except OSError as error:
                raise self._failed(error) from error

    def close(self) -> None:
        """Close the file; calling it twice is harmless."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self, mode: Literal["a", "w"]) -> None:
        self._file = self.path.open("a+b" if mode == "a" else "wb", buffering=0)
        self._size = self._file.seek(0, 2)
        if self._size:
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":  # a crash tore the last line, which shall not take the next one with it
                self._size += self._file.write(b"\n")

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        names = [self.path, *(earlier(self.path, number) for number in range(1, self.keep + 1))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            with suppress(FileNotFoundError):  # there are not as many yet
                newer.replace(older)
        self._open("w" if not self.keep else "a")

    def _failed(self, error: OSError) -> FileError:
        mend = "free some space there" if error.errno == errno.ENOSPC else None
        return FileError(f"cannot write the log: {error.strerror}", where=str(self.path), mend=mend)


def earlier(path: Path, number: int) -> Path:
    """Return where the content of a file lies after so many rotations."""
    return path.with_name(f"{path.name}.{number}")


def rotated(path: Path) -> list[Path]:
    """Return a file that rotates and those before it that are still there, the oldest first."""
    found = [path] if path.exists() else []
    number = 1
    while (older := earlier(path, number)).exists():
        found.insert(0, older)
        number += 1
    return found

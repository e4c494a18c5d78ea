"""What keeps local copies of files: `FileCache` and `LocalMirror`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from treenail.kernel import FileBackend


class LocalCopies(Protocol):
    """Keeps local copies of what is read from a store, as new as the store's files."""

    def read(self, backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what `backend.read` would, from the copy."""
        ...

    def local_copy(self, backend: FileBackend, path: str) -> AbstractContextManager[Path]:
        """Give the copy's path for a block; it must not be written to."""
        ...

    def forget(self, backend: FileBackend, path: str) -> None:
        """Ask the store the next time; for whoever changed the file."""
        ...

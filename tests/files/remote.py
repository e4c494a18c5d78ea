"""A store that is not known to be local, for programs that start fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from treenail.adapters.files import LocalFiles
from treenail.kernel import Capabilities, FileStat


class Remote:
    """A directory that does not say that it is local, and notes each read."""

    uri = "remote://"

    def __init__(self, root: Path) -> None:
        self._files = LocalFiles(root / "store")
        self._notes = root / "reads"

    @property
    def capabilities(self) -> Capabilities:
        return self._files.capabilities

    @property
    def reads(self) -> list[str]:
        return self._notes.read_text().split() if self._notes.exists() else []

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with self._notes.open("a") as notes:
            notes.write(f"{path}\n")
        return self._files.read(path, start, length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self._files.write(path, data)

    def stat(self, path: str) -> FileStat:
        return self._files.stat(path)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._files.list(prefix)

    def delete(self, path: str) -> None:
        self._files.delete(path)

"""A local directory that holds, under the same names, what was read of a remote one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from treenail.adapters.files import derived
from treenail.adapters.files.local import LocalFiles
from treenail.adapters.files.locks import locked
from treenail.adapters.files.paths import check_path, join_uri
from treenail.kernel import FileBackend, FileError, FileStat

_NOTES = ".treenail-mirror"


class _Mirrored(msgspec.Struct, frozen=True, array_like=True):
    """How both files were after a download."""

    uri: str
    source: FileStat
    copy: FileStat


class LocalMirror:
    """Keeps what is read of a directory of a store in a local directory, for good and under the same names.

    A copy is used while both it and the store's file are as they were after the download. One process at a time
    downloads a file, the others wait for it.

    Args:
        source: Path in the backend of the directory that is mirrored; "" is its root.
        folder: The local directory.
    """

    def __init__(self, source: str, folder: str | os.PathLike[str]) -> None:
        self.source = source
        self.folder = Path(folder).expanduser().absolute()
        self._files = LocalFiles(self.folder, prune=False)

    def read(self, backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what `backend.read` would, from the copy.

        Raises:
            FileMissingError: There is no such file.
            FileError: The range is negative, or the store or the local disk failed.
        """
        return self._files.read(self._mirror(backend, path), start, length)

    @contextmanager
    def local_copy(self, backend: FileBackend, path: str) -> Iterator[Path]:
        """Give the copy's path; it stays after the block.

        Raises:
            FileMissingError: There is no such file.
            FileError: The store or the local disk failed.
        """
        yield self.folder / self._mirror(backend, path)

    def forget(self, backend: FileBackend, path: str) -> None:
        """Download the file anew the next time; for whoever changed it."""
        with suppress(FileNotFoundError):
            self._note(self._below(backend, path)).unlink()

    def _mirror(self, backend: FileBackend, path: str) -> str:
        """Make the copy what the store has, and return its path below the folder."""
        below = self._below(backend, path)
        note, uri = self._note(below), join_uri(derived.identity(backend), path)
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            with locked(note.with_suffix(".lock")):
                for _ in range(3):
                    stat = backend.stat(path)
                    if self._is_current(note, below, uri, stat):
                        return below
                    derived.copy(backend, path, self._files, below)
                    known = _Mirrored(uri, stat, self._files.stat(below))
                    self._files.write(note.relative_to(self.folder).as_posix(), msgspec.json.encode(known))
        except OSError as error:
            raise FileError(f"cannot write: {error.strerror or error}", where=str(self.folder)) from error
        raise FileError("the file changed during each of 3 downloads", where=join_uri(backend.uri, path))

    def _is_current(self, note: Path, below: str, uri: str, stat: FileStat) -> bool:
        try:
            known = msgspec.json.decode(note.read_bytes(), type=_Mirrored)
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        return derived.file_exists(self._files, below) and known == _Mirrored(uri, stat, self._files.stat(below))

    def _below(self, backend: FileBackend, path: str) -> str:
        check_path(path, backend.uri)
        below = path[len(self.source) + 1 :] if self.source else path
        if self.source and not path.startswith(f"{self.source}/"):
            raise FileError(f"does not lie below '{self.source}'", where=join_uri(backend.uri, path))
        if below.split("/")[0] == _NOTES:
            raise FileError(f"'{_NOTES}' is the mirror's own", where=join_uri(backend.uri, path), mend="rename it")
        return below

    def _note(self, below: str) -> Path:
        return self.folder / _NOTES / f"{sha256(below.encode()).hexdigest()}.json"

"""Local copies of remote files: one download for each version of a file on this machine, whichever process asks.

The folder holds ``objects/`` (contents, named by their SHA-256), ``names/`` (links to them under their files' own names),
``entries/`` (which object a URI had, and the version by which that is validated), ``unfinished/`` and ``locks/``. All that
is published is renamed into place, and every lock is one of flock(2), which ends with its process: a process killed at any
instant leaves nothing that is taken for a file.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path, PurePosixPath
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import IO, BinaryIO, TypeVar
from uuid import uuid4

import msgspec

from treenail.adapters.files.derived import identity, stream
from treenail.adapters.files.locks import lock, locked, unlock
from treenail.adapters.files.paths import check_path, check_range, join_uri, local_path_of, short_name
from treenail.kernel import FileBackend, FileError, FileStat

_ATTEMPTS = 3
_FRESHLY_USED = 10.0
"""Seconds after a use in which another one is not noted."""
_SETTLED = 60.0
"""Seconds between a file's making and its lock, at most."""
_ABANDONED = 86_400.0
"""Seconds after which nobody reads a copy of its own any more."""
_ROOM = 0.9
"""An eviction makes room down to this part of `max_bytes`, so that not every download needs one."""


class _Entry(msgspec.Struct, frozen=True):
    """What a URI held when it was last downloaded."""

    uri: str
    digest: str
    stat: FileStat


_LARGEST = 2**30
F = TypeVar("F", bound=FileIO | BinaryIO)
_DECODER = msgspec.json.Decoder(_Entry)


class FileCache:
    """A bounded folder of local copies, shared by the processes of a machine; POSIX only.

    A copy is used while the store says the same size, time and version of the file. The least recently used copies go
    when there are more than `max_bytes`; one that is in use stays.

    Args:
        folder: Where the copies lie; on a local disk. Other users cannot read it.
        max_bytes: How much they may take.
        max_age: Seconds for which a copy is used without asking the store again; 0 asks every time.

    Raises:
        FileError: An argument is out of range, the folder cannot be made, or this system has no flock(2).
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int, max_age: float = 0.0) -> None:
        self.folder = Path(local_path_of(folder)).expanduser().absolute()
        if max_bytes <= 0 or not max_age >= 0:
            raise FileError(
                f"a cache of {max_bytes} bytes for {max_age} s cannot be",
                where=str(self.folder),
                mend="max_bytes is at least 1, max_age at least 0",
            )
        self.max_bytes = max_bytes
        self.max_age = max_age
        _require_locks(self.folder)
        with self._disk_errors():
            self._make_folders()
        if not os.access(self.folder / "entries", os.R_OK | os.W_OK | os.X_OK):
            raise FileError("the cache is another user's", where=str(self.folder), mend="choose another folder")

    def _make_folders(self) -> None:
        for name in ("objects", "names", "entries", "unfinished", "locks"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, backend: FileBackend, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what `backend.read` would, from the copy; a file larger than the cache is read from the store.

        Raises:
            FileMissingError: There is no such file.
            FileError: The range is negative, or the store or the local disk failed.
        """
        check_range(path, start, length)
        file = self._opened(backend, path)
        if file is None:
            return backend.read(path, start, length)
        with _held(file):
            if start:
                file.seek(min(start, 2**62))  # beyond any file there is nothing
            if length is None:
                return file.read()
            data = file.read(min(length, _LARGEST))
            while len(data) < length and (more := file.read(min(length - len(data), _LARGEST))):  # of 2 GiB at most
                data += more
            return data

    @contextmanager
    def local_copy(self, backend: FileBackend, path: str) -> Iterator[Path]:
        """Give the copy's path for the block, in which it is not evicted. It must not be written to.

        A file larger than the cache gets a copy of its own, removed after the block.

        Raises:
            FileMissingError: There is no such file.
            FileError: The store or the local disk failed.
        """
        file = self._opened(backend, path)
        if file is not None:
            with _held(file):
                with self._disk_errors():
                    named = self._named(Path(str(file.name)), path)
                yield named
            return
        with self._disk_errors():
            folder = TemporaryDirectory(dir=self.folder / "unfinished")
        with folder as directory:
            own = Path(directory) / short_name(PurePosixPath(path).name)
            with self._disk_errors(), own.open("xb") as written:
                _fill(written, backend, path)
            yield own

    def _named(self, held: Path, path: str) -> Path:
        """Return the copy under the file's own name, which libraries look at for its suffix."""
        named = self.folder / "names" / held.name / short_name(PurePosixPath(path).name)
        named.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            named.hardlink_to(held)
        except FileExistsError:
            if not named.samefile(held):  # of a copy that was evicted, and came again
                named.unlink()
                named.hardlink_to(held)
        return named

    def forget(self, backend: FileBackend, path: str) -> None:
        """Ask the store the next time, whatever `max_age` says; for whoever changed the file."""
        with self._disk_errors(), suppress(FileNotFoundError):
            os.unlink(self._entry_path(backend, path))

    def _opened(self, backend: FileBackend, path: str) -> FileIO | None:
        """Return the copy, open and locked against eviction; None when the file is too large for the cache."""
        check_path(path, backend.uri)
        entry_path = self._entry_path(backend, path)
        for _ in range(_ATTEMPTS):
            with self._disk_errors():
                found = self._hit(entry_path, backend, path)
                if found is not None:
                    return found
                self._make_folders()  # somebody may have emptied it
                with locked(self.folder / "locks" / os.path.basename(entry_path)):
                    found = self._hit(entry_path, backend, path)  # another process may have downloaded it meanwhile
                    if found is not None:
                        return found
                    if not self._download(entry_path, backend, path):
                        return None
        raise FileError(
            "copies are evicted as soon as they are made",
            where=str(self.folder),
            mend=f"give the cache more than {self.max_bytes} bytes",
        )

    def _hit(self, entry_path: str, backend: FileBackend, path: str) -> FileIO | None:
        try:
            with FileIO(entry_path) as file:
                validated = os.fstat(file.fileno()).st_mtime
                entry = _DECODER.decode(file.readall())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        if not 0 <= time.time() - validated < self.max_age:  # a clock that went back validates, too
            if backend.stat(path) != entry.stat:
                return None
            with suppress(OSError):
                os.utime(entry_path)
        return self._held(entry)

    def _held(self, entry: _Entry) -> FileIO | None:
        path = self._object_path(entry.digest)
        try:
            file = FileIO(path)
        except FileNotFoundError:
            return None
        lock(file, shared=True)
        about = os.fstat(file.fileno())
        if (
            about.st_nlink == 0 or about.st_size != entry.stat.size
        ):  # evicted between the two calls; or cut by a power loss
            with _held(file):
                if about.st_nlink:
                    with suppress(FileNotFoundError):
                        os.unlink(path)
            return None
        if time.time() - about.st_mtime > _FRESHLY_USED:
            with suppress(OSError):
                os.utime(file.fileno())
        return file

    def _download(self, entry_path: str, backend: FileBackend, path: str) -> bool:
        """Publish object and entry of a file; return False when it is too large."""
        for _ in range(_ATTEMPTS):
            before = backend.stat(path)
            if before.size > self.max_bytes:
                return False
            with self._unfinished() as (unfinished, file):
                digest = _fill(file, backend, path)
                written = os.fstat(file.fileno()).st_size
                if written != before.size or backend.stat(path) != before:  # it changed while it came in
                    continue
                os.fdatasync(file.fileno())
                os.fchmod(file.fileno(), 0o400)  # whoever is given the copy must not change it for everybody
                self._publish(unfinished, digest, written)
            entry = _Entry(join_uri(backend.uri, path), digest, before)
            with open(f"{self._object_path(digest)}.uses", "a", encoding="ascii") as uses:
                uses.write(f"{os.path.basename(entry_path)}\n")
            with self._unfinished() as (unfinished, file):
                file.write(msgspec.json.encode(entry))
                file.flush()
                unfinished.replace(entry_path)
            return True
        raise FileError(
            f"the file changed during each of {_ATTEMPTS} downloads",
            where=join_uri(backend.uri, path),
            mend="read it when nobody writes it",
        )

    def _publish(self, unfinished: Path, digest: str, size: int) -> None:
        target = Path(self._object_path(digest))
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            if target.stat().st_size == size:  # another URI has the same content
                os.utime(target)
                return
        with locked(self.folder / "locks" / "total") as file:
            total = self._total(file) + size  # said before the rename: a kill between them only counts too much
            if total > self.max_bytes:
                total = self._evict(room_for=size) + size
            file.seek(0)
            file.truncate()
            file.write(str(total))
            file.flush()
            unfinished.replace(target)

    def _total(self, file: IO[str]) -> int:
        text = file.read(20)
        return int(text) if text.isascii() and text.isdecimal() else sum(size for _, size, _ in self._objects())

    def _evict(self, room_for: int) -> int:
        """Remove what was used least recently; return how many bytes are left."""
        objects = sorted(self._objects())
        total = sum(size for _, size, _ in objects)
        bound = max(0, int(self.max_bytes * _ROOM) - room_for)
        for _, size, path in objects:
            if total <= bound:
                break
            with suppress(FileNotFoundError, BlockingIOError), _held(FileIO(path)) as file:
                lock(file, wait=False)  # in use, if this fails
                path.unlink()
                rmtree(self.folder / "names" / path.name, ignore_errors=True)
                total -= size
                uses = path.with_suffix(".uses")
                with suppress(FileNotFoundError):
                    for name in uses.read_text(encoding="ascii").split():
                        (self.folder / "entries" / name).unlink(missing_ok=True)
                        (self.folder / "locks" / name).unlink(missing_ok=True)
                    uses.unlink()
        self._remove_abandoned()
        if total + room_for > self.max_bytes:
            held = f"{total + room_for:,} bytes are in use in the cache {self.folder}, more than its {self.max_bytes:,}"
            warnings.warn(held, RuntimeWarning, stacklevel=2)
        return total

    def _objects(self) -> Iterator[tuple[float, int, Path]]:
        """Yield (time of last use, size, path) of all objects."""
        for directory in (self.folder / "objects").glob("??/"):
            for found in os.scandir(directory):
                if not found.name.endswith(".uses"):
                    with suppress(FileNotFoundError):
                        about = found.stat()
                        yield about.st_mtime, about.st_size, Path(found.path)

    def _remove_abandoned(self) -> None:
        """Remove what killed processes left unfinished: what nobody holds the lock of, and nobody has just made."""
        for path in (self.folder / "unfinished").iterdir():
            if path.is_dir():  # of a file that was too large
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    rmtree(path, ignore_errors=True)
                continue
            with suppress(OSError), _held(FileIO(path)) as file:
                lock(file, wait=False)
                if time.time() - os.fstat(file.fileno()).st_mtime > _SETTLED:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _unfinished(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Give a file to write, removed after the block unless it was renamed; it is locked, so that it is not abandoned."""
        path = self.folder / "unfinished" / uuid4().hex
        with self._disk_errors():
            file = path.open("xb")
        with _held(file):
            lock(file)
            try:
                yield path, file
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(
                f"cannot keep local copies: {error.strerror or error}",
                where=str(self.folder),
                mend="make room there, or give the cache another folder",
            ) from error

    def _entry_path(self, backend: FileBackend, path: str) -> str:
        return f"{self.folder}/entries/{sha256(join_uri(identity(backend), path).encode()).hexdigest()}"

    def _object_path(self, digest: str) -> str:
        return f"{self.folder}/objects/{digest[:2]}/{digest}"


@contextmanager
def _held(file: F) -> Iterator[F]:
    """Close a locked file after the block, and unlock it: a process forked meanwhile must not hold the lock on."""
    with closing(file):
        try:
            yield file
        finally:
            unlock(file)


def _fill(file: BinaryIO, backend: FileBackend, path: str) -> str:
    """Write what a path holds and return its SHA-256."""
    digest = sha256()
    for chunk in stream(backend, path):
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    return digest.hexdigest()


def _require_locks(folder: Path) -> None:
    if os.name == "nt":
        raise FileError("a cache needs flock(2), which Windows lacks", where=str(folder), mend="leave the cache out")

"""Local files made whole or not at all: written aside, flushed to the disk, then given their name."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from treenail.adapters.files.local.opening import LinklessOpener
from treenail.adapters.files.local.write_back import begin_write_back
from treenail.kernel import FileError, FileMissingError

if sys.platform != "win32":
    import fcntl

UNFINISHED: Final = ".treenail-unfinished"
ABANDONED_AFTER: Final = 86_400.0
"""Seconds after which what a dead process left unfinished is removed."""

# Where the system can name files relative to an open directory, a path that changes its meaning meanwhile does no harm.
_RELATIVE: Final = {os.open, os.mkdir, os.unlink, os.link} <= os.supports_dir_fd
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
FOLDER_LINKLESS: Final = LinklessOpener(_DIRECTORY)
_NO_FLUSH: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LINK: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS: Final = (
    "this filesystem may have no hard links: let one process alone write such files, or take another disk"
)
_PERMISSIONS: Final = 0o777
_EARLY_BYTES: Final = 1 << 23
"""What is written is sent to the disk in pieces of so much, while the rest is written: the flush at the end waits for little."""
_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_MENDS: Final = {
    errno.ENOSPC: "free some space on this disk, or write elsewhere",
    errno.EDQUOT: "free some of your quota on this disk, or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or write elsewhere",
    errno.EACCES: "let this user in (permissions of the file and of its directories), or choose another place",
    errno.EPERM: "the system forbids it; check attributes and owner of the file, or choose another place",
    errno.EROFS: "the filesystem is mounted read only: write elsewhere",
    errno.ENAMETOOLONG: "a name has 255 bytes at most on most disks, a path 4,095: shorten it",
    errno.EISDIR: "a directory has that name: choose another",
    errno.EEXIST: "something else has that name: choose another",
    errno.ENOTDIR: "a file has the name of one of its directories: choose another place",
    errno.ELOOP: "symbolic links lead to each other: remove one",
    errno.EMFILE: "close some files, or raise the limit (ulimit -n)",
    errno.EIO: "the disk fails: check it, and write elsewhere",
    errno.ESTALE: "the network disk lost the file: try again",
}


def failure(operation: str, where: str | os.PathLike[str], error: OSError) -> FileError:
    """Return the error that says what could not be done, where, why, and what to do; its cause is to be `error`."""
    message = f"cannot {operation}: {error.strerror or error}"
    mend = _MENDS.get(error.errno or 0)
    if operation not in {"write", "copy", "create", "make the directory"} and error.errno in _ABSENT:
        absent = "it is a directory" if error.errno == errno.EISDIR else "there is no such file"
        reason = f" ({error.strerror})" if error.errno == errno.ENAMETOOLONG else ""
        return FileMissingError(f"cannot {operation}: {absent}{reason}", where=os.fspath(where))
    return FileError(message, where=os.fspath(where), mend=mend)


class Folder:
    """An open directory: what is made, renamed or removed in it is so in this very directory, wherever it is moved to.

    Args:
        path: The directory.
        within: The open directory that `path` is relative to.
        descriptor: The directory, where it is open already.

    Raises:
        OSError: There is no such directory, or it cannot be read.
    """

    def __init__(self, path: str, within: Folder | None = None, *, descriptor: int | None = None) -> None:
        self.path: str = os.path.join(within.path, path) if within else path
        self.descriptor = descriptor
        if descriptor is not None:
            return
        if _RELATIVE:
            self.descriptor = os.open(path, _DIRECTORY, dir_fd=within.descriptor if within else None)
        elif not os.path.isdir(self.path):
            number = errno.ENOTDIR if os.path.exists(self.path) else errno.ENOENT
            raise OSError(number, os.strerror(number), self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory; twice is harmless."""
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            os.close(descriptor)

    def make_file(self, name: str) -> int:
        """Make a file that was not there; return its descriptor, open for writing."""
        return os.open(self._at(name), _NEW, 0o666, dir_fd=self.descriptor)

    def make_folder(self, name: str) -> None:
        """Make a directory; it may exist."""
        with suppress(FileExistsError):
            os.mkdir(self._at(name), dir_fd=self.descriptor)

    def replace(self, old: str, new: str) -> None:
        """Rename a file over another, atomically (rename(2))."""
        os.replace(self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name where nothing has that name, atomically (link(2))."""
        os.link(self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, or a symbolic link."""
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a directory and all below it, following no symbolic link."""
        shutil.rmtree(self._at(name), dir_fd=self.descriptor)

    def lstat(self, name: str) -> os.stat_result:
        """Return what the system knows of an entry."""
        return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)

    def flush(self) -> None:
        """Flush the directory's entries to the disk."""
        if self.descriptor is None:  # Windows has no handle of a directory to flush
            return
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno not in _NO_FLUSH:  # some network filesystems have no such thing
                raise

    def _at(self, name: str) -> str:
        return name if self.descriptor is not None else os.path.join(self.path, name)


class Unfinished:
    """A file under way in a folder, which nobody else sees: published whole, or gone at the end of the block.

    The process that writes holds a lock on it (flock), so that `sweep` knows whether it lives.

    Args:
        folder: Where the file is to be; it is closed with the file.
        name: What it will be called.
        operation: What to call this in errors.
        abandoned: Called with the folder where the file is not published.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        operation: str = "write",
        abandoned: Callable[[Folder], object] | None = None,
    ) -> None:
        self.folder, self.name, self.operation, self._abandoned = folder, name, operation, abandoned
        self._temporary: str | None = f".{os.urandom(8).hex()}{UNFINISHED}"
        self._size = self._sent = 0
        self.descriptor = folder.make_file(self._temporary)
        claim(self.descriptor)
        if (mode := _mode_of(folder, name)) is not None:
            self.permit(mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        if self._temporary is not None:
            with suppress(OSError):
                self.folder.remove(self._temporary)
                if self._abandoned is not None:
                    self._abandoned(self.folder)
        self.folder.close()

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Raises:
            FileError: The disk refused them.
        """
        try:
            written, size = os.write(self.descriptor, chunk), memoryview(chunk).nbytes
            if written != size:  # the system takes 2 GB at most, and less where the disk is full
                rest = memoryview(chunk).cast("B")
                while (rest := rest[written:]).nbytes:
                    written = os.write(self.descriptor, rest)
        except OSError as error:
            raise self.failure(error) from error
        self._size += size
        if self._size - self._sent >= _EARLY_BYTES:
            begin_write_back(self.descriptor, self._sent, self._size - self._sent)
            self._sent = self._size

    def permit(self, mode: int) -> None:
        """Give the file the permissions of a mode, before it has content; those of what it replaces, it has already."""
        if os.chmod in os.supports_fd:
            with suppress(OSError):  # filesystems without permissions refuse
                os.chmod(self.descriptor, mode & _PERMISSIONS)

    def publish(self) -> None:
        """Give the file its name, in the place of what had it, durably.

        Raises:
            FileError: The name is a directory's, or the disk failed.
        """
        try:
            self.folder.replace(self._flushed(), self.name)
            self._temporary = None
            self.folder.flush()
        except OSError as error:
            raise self.failure(error) from error

    def publish_new(self) -> bool:
        """Give the file its name, durably, if nothing has that name; return whether nothing had.

        Raises:
            FileError: The disk failed, or has no hard links.
        """
        try:
            temporary = self._flushed()
            self.folder.link(temporary, self.name)
            self.folder.remove(temporary)
            self._temporary = None
            self.folder.flush()
        except FileExistsError:
            return False
        except OSError as error:
            raise self.failure(error, _NO_LINKS if error.errno in _NO_LINK else None) from error
        return True

    def failure(self, error: OSError, mend: str | None = None) -> FileError:
        """Return the error that says what could not be done to this file."""
        found = failure(self.operation, os.path.join(self.folder.path, self.name), error)
        found.mend = mend or found.mend
        return found

    def _flushed(self) -> str:
        """Flush the content to the disk; return the temporary name."""
        if self._temporary is None:
            raise FileError("this file is published already", where=os.path.join(self.folder.path, self.name))
        if os.utime in os.supports_fd:  # the system's own clock for this may tick every 10 ms; versions are told by it
            now = time.time_ns()
            os.utime(self.descriptor, ns=(now, now))
        os.fsync(self.descriptor)
        if os.name == "nt":  # Windows renames no open file
            self._close()
        return self._temporary

    def _close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Give a path to write, of the target's name but elsewhere on its disk; published when the block ends well.

    Raises:
        FileError: The block wrote no file there, or the disk failed; the target is as it was.
    """
    with _opened(target) as folder:
        hidden = f".{os.urandom(8).hex()}{UNFINISHED}"
        try:
            _check_name(folder, target.name)
            folder.make_folder(hidden)
        except OSError as error:
            raise failure("write", target, error) from error
        try:
            with Folder(hidden, folder) as inner:
                if inner.descriptor is not None:
                    claim(inner.descriptor)
                written = target.parent / hidden / target.name
                yield written
                if written.is_symlink() or not written.is_file():
                    mend = f"write a file '{target.name}' there"
                    raise FileError("nothing was written to the local path", where=str(target), mend=mend)
                _publish(written, target, folder)
        finally:
            with suppress(OSError):
                folder.remove_tree(hidden)


def replace_file(target: Path, write: Callable[[Unfinished], object]) -> None:
    """Make a local file hold what a function writes, whole and durably.

    Raises:
        FileError: The disk failed; the target is as it was.
    """
    with _opened(target) as folder, Unfinished(folder, target.name) as file:
        write(file)
        file.publish()


@contextmanager
def _opened(target: Path) -> Iterator[Folder]:
    try:
        folder = Folder(str(target.parent))
    except OSError as error:
        raise failure("write", target, error) from error
    with folder:
        yield folder


def _check_name(folder: Folder, name: str) -> None:
    """Raise `OSError` for a name that the disk does not take, before work is done for it."""
    with suppress(FileNotFoundError):
        folder.lstat(name)


def _mode_of(folder: Folder, name: str) -> int | None:
    """Return the mode of a file that will be replaced; None where there is none."""
    try:
        mode = folder.lstat(name).st_mode
    except OSError:
        return None
    return mode if stat.S_ISREG(mode) else None


def _publish(written: Path, target: Path, folder: Folder) -> None:
    try:
        with written.open("r+b" if os.name == "nt" else "rb") as file:
            if (mode := _mode_of(folder, target.name)) is not None:
                written.chmod(mode & _PERMISSIONS)
            os.fsync(file.fileno())
        written.replace(target)
        folder.flush()
    except OSError as error:
        raise failure("write", target, error) from error


def claim(descriptor: int) -> bool:
    """Lock a file or directory until it is closed or the process dies; return whether it is this process's now."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process's; or this filesystem has no locks
        return False
    return True


def sweep(folder: Folder) -> None:
    """Remove what dead processes left unfinished in a folder more than a day ago.

    What a living process has under way is locked, and stays however old it is. Where a system or a filesystem has no such
    locks, nobody can tell, and nothing is removed.
    """
    if folder.descriptor is None:
        return
    limit = time.time() - ABANDONED_AFTER
    with suppress(OSError), os.scandir(folder.descriptor) as entries:  # tidying up is no reason to fail
        for entry in entries:
            if entry.name.endswith(UNFINISHED):
                with suppress(OSError):
                    _remove_if_abandoned(folder, entry.name, limit)


def _remove_if_abandoned(folder: Folder, name: str, limit: float) -> None:
    found = folder.lstat(name)
    if found.st_mtime > limit or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.descriptor)
    try:
        if claim(descriptor):
            if stat.S_ISDIR(found.st_mode):
                folder.remove_tree(name)
            else:
                folder.remove(name)
    finally:
        os.close(descriptor)

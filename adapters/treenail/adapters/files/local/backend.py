"""Local files with atomic, durable writes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from treenail.adapters.files.contents import check_content
from treenail.adapters.files.local.durable import FOLDER_LINKLESS, UNFINISHED, Folder, Unfinished, failure, sweep
from treenail.adapters.files.local.opening import LinklessOpener
from treenail.adapters.files.local.reading import read_chunks, read_range
from treenail.adapters.files.local.walking import files_below, names_in
from treenail.adapters.files.paths import absolute, check_path, check_range, local_path_of
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
# A pipe without a writer must not make `open` wait; for files, the flag means nothing.
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | _FLAGS
_LOOK: Final = getattr(os, "O_PATH", 0) | getattr(os, "O_CLOEXEC", 0)  # openat2 takes O_PATH with few other flags
_READ_LINKLESS: Final = LinklessOpener(_READ)
_LOOK_LINKLESS: Final = LinklessOpener(_LOOK)
_PROCESS_FILES: Final = sys.platform == "linux"
_LONG: Final = 1000 if hasattr(os, "pathconf") else sys.maxsize  # characters from which a path is measured
_RACES: Final = 32
_SWEPT_AT_MOST: Final = 4096


class LocalFiles:
    """Files below a local directory. Safe between threads and processes.

    A write goes to a temporary file beside its target, is flushed to the disk (fsync), renamed over the target (atomic by
    POSIX rename(2)), and the directory is flushed: readers see the old or the new content, a power cut loses neither.
    Symbolic links below the root are followed, as long as they do not lead out of it; a write or a deletion replaces or
    removes the link, not what it leads to. The temporary file of a process that was killed is not listed, and goes with
    this object's first write into its directory when it is older than a day.

    Args:
        root: The directory, or its file:// URI; it is made by the first write.
        prune: Directories that a deletion leaves empty go with it, as they would in an object store.
    """

    def __init__(self, root: str | os.PathLike[str], *, prune: bool = True) -> None:
        self.root = Path(absolute(local_path_of(root)))
        self.prune = prune
        self._top = str(self.root)
        self._lead = os.path.join(self._top, "")
        self._confined = self._top != self.root.anchor  # nothing leads out of the whole disk
        self._real_lead = self._lead  # where the root really lies, as far as is known
        self._linkless = True  # whether no link is on the way to the root, as far as is known
        self._swept: set[str] = set()

    @property
    def capabilities(self) -> Capabilities:
        """Atomic replacement, creation and ranges."""
        return Capabilities(atomic_replace=True, conditional_put=True, ranges=True, local=True)

    @property
    def uri(self) -> str:
        """The root as a file URI."""
        return self.root.as_uri()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_range(path, start, length)
        target = self._locate(path)
        try:
            descriptor = self._open(target)
            try:
                return read_range(descriptor, target, start, length)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failure("read", target, error) from error

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return, a megabyte at a time."""
        check_range(path, start, length)
        target = self._locate(path)
        with self._opened(target) as descriptor:
            yield from read_chunks(descriptor, target, start, length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`, durably and atomically."""
        with self._begin(self._locate(path), "write") as file:
            _fill(file, data)
            file.publish()

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write as `write` does if nothing has the name `path` (link(2) decides); return whether nothing had."""
        with self._begin(self._locate(path), "create") as file:
            if _is_taken(file):  # seen early, no data is drawn
                return False
            _fill(file, data)
            return file.publish_new()

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds, with its permissions; on disks that can (Btrfs, XFS), both share blocks."""
        self.copy_to(source, self, target)

    def copy_to(self, source: str, other: LocalFiles, target: str) -> None:
        """Make `target` of another root hold what `source` of this one holds, as `copy` does."""
        origin, place = self._locate(source), other._locate(target)
        with self._opened(origin) as descriptor, other._begin(place, "copy") as file:
            file.permit(os.fstat(descriptor).st_mode)
            if not _copied_by_system(descriptor, file):
                for chunk in read_chunks(descriptor, origin):
                    file.write(chunk)
            file.publish()

    def stat(self, path: str) -> FileStat:
        """Return size and time of a file; its version is made of inode, times and size."""
        target = self._locate(path)
        try:
            return _file_stat(self._status(target), target)
        except OSError as error:
            raise failure("stat", target, error) from error

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes; see `files_below`."""
        top, lead = self._listed(prefix)
        for path in files_below(top):
            yield lead + os.fsdecode(path)

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield (path, stat) of the files that `list` yields, in its order."""
        top, lead = self._listed(prefix)
        for name in files_below(top):
            path = lead + os.fsdecode(name)
            with suppress(FileNotFoundError, FileMissingError):  # deleted since it was listed
                found = os.lstat(self._lead + path)
                yield path, self.stat(path) if stat.S_ISLNK(found.st_mode) else _file_stat(found, path)

    def delete(self, path: str) -> None:
        """Remove a file, durably; directories that it leaves empty go with it."""
        target = self._locate(path)
        parent, name = os.path.split(target)
        try:
            with self._folder(parent) as folder:
                if stat.S_ISDIR(folder.lstat(name).st_mode):
                    raise FileMissingError("cannot delete: it is a directory, not a file", where=target)
                folder.remove(name)
                self._settle(folder)
        except OSError as error:
            raise failure("delete", target, error) from error

    def local_path(self, path: str) -> Path:
        """Return where `path` lies on the disk."""
        target = self._locate(path)
        if self._confined:
            self._check_real(os.path.realpath(target), target)
        return Path(target)

    def is_directory(self, path: str) -> bool:
        """Return whether `path` ("" is the root) is a directory."""
        target = self._locate(path) if path else self._top
        try:
            return stat.S_ISDIR(self._status(target).st_mode)
        except OSError as error:
            if isinstance(found := failure("look at", target, error), FileMissingError):
                return False
            raise found from error

    def entries(self, path: str = "") -> Iterator[tuple[str, bool]]:
        """Yield (name, whether it is a directory) of what lies directly in a directory, sorted by bytes."""
        top, _ = self._listed(path)
        for name in names_in(top):
            text = os.fsdecode(name)
            yield text.removesuffix("/"), text.endswith("/")

    def make_directory(self, path: str) -> None:
        """Make a directory and its missing parents, durably; it may exist."""
        target = self._locate(path) if path else self._top
        try:
            self._make_folder(target).close()
        except OSError as error:
            raise failure("make the directory", target, error) from error

    def delete_directory(self, path: str) -> None:
        """Remove a directory and all below it, following no symbolic link; empty parents go as with `delete`."""
        target = self._locate(path)
        parent, name = os.path.split(target)
        try:
            with self._folder(parent) as folder:
                mode = folder.lstat(name).st_mode
                if stat.S_ISLNK(mode) and os.path.isdir(target):
                    raise FileError("this is a symbolic link", where=target, mend="`delete` removes the link")
                if not stat.S_ISDIR(mode):
                    raise FileMissingError("there is no such directory", where=target)
                folder.remove_tree(name)
                self._settle(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileMissingError("there is no such directory", where=target) from error
        except OSError as error:
            raise failure("remove the directory", target, error) from error

    def _locate(self, path: str) -> str:
        """Return where a path lies on the disk, checked by its letters; links are checked when it is opened."""
        check_path(path, self._top)
        if UNFINISHED in path and any(part.endswith(UNFINISHED) for part in path.split("/")):
            raise FileError(f"{path!r} has the ending of unfinished writes", where=self.uri, mend="rename it")
        if os.name == "nt" and (":" in path or "\\" in path):
            raise FileError(f"{path!r} means a drive or has backslashes", where=self.uri, mend="write it with slashes")
        return self._lead + path

    def _listed(self, prefix: str) -> tuple[str, str]:
        """Return the directory to list, checked, and what its files' paths begin with."""
        if not prefix:
            return self._top, ""
        top = self._locate(prefix)
        try:
            if self._confined:
                self._status(top)
        except OSError as error:
            if not isinstance(found := failure("list", top, error), FileMissingError):
                raise found from error
        return top, f"{prefix}/"

    def _status(self, target: str) -> os.stat_result:
        if not self._confined:
            return os.stat(target)
        if not hasattr(os, "O_PATH"):
            self._check_real(os.path.realpath(target), target)
            return os.stat(target)
        descriptor = self._open(target, _LOOK_LINKLESS, _LOOK)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _check_inside(self, descriptor: int, target: str) -> None:
        """Raise where what was opened lies outside the root."""
        if _PROCESS_FILES:
            try:
                real = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:  # a system without /proc
                real = os.path.realpath(target)
            if real.startswith(self._real_lead):
                return
        else:
            real = os.path.realpath(target)
        self._check_real(real, target)

    def _check_real(self, real: str, target: str) -> None:
        top = os.path.realpath(self._top)  # the root may be a link itself, or have been moved
        self._real_lead = os.path.join(top, "")
        self._linkless = top == self._top
        if real != top and not real.startswith(self._real_lead):
            path = target.removeprefix(self._lead)
            raise FileError(
                f"{path!r} leads out of the root through a symbolic link",
                where=self.uri,
                mend="replace the link by what it leads to, or take a root that holds both",
            )

    def _check_folder(self, folder: Folder) -> None:
        if self._confined and len(folder.path) >= len(self._top):  # above the root, links are the caller's own
            if folder.descriptor is None:
                self._check_real(os.path.realpath(folder.path), folder.path)
            else:
                self._check_inside(folder.descriptor, folder.path)

    def _folder(self, path: str) -> Folder:
        """Open a directory inside the root."""
        if self._linkless and self._confined:
            descriptor = FOLDER_LINKLESS.open(path)
            if descriptor is not None:
                return Folder(path, descriptor=descriptor)
        folder = Folder(path)
        try:
            self._check_folder(folder)
        except BaseException:
            folder.close()
            raise
        return folder

    def _open(self, target: str, opener: LinklessOpener = _READ_LINKLESS, flags: int = _READ) -> int:
        """Open what lies inside the root; asked of what is open, nobody can exchange it meanwhile."""
        if not self._confined:
            return os.open(target, flags)
        if self._linkless:  # the usual case: no link on the whole way
            descriptor = opener.open(target)
            if descriptor is not None:
                return descriptor
        descriptor = os.open(target, flags)
        try:
            self._check_inside(descriptor, target)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def _opened(self, target: str) -> Iterator[int]:
        try:
            descriptor = self._open(target)
        except OSError as error:
            raise failure("read", target, error) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _begin(self, target: str, operation: str) -> Unfinished:
        """Begin a file beside its target, in a directory that is made if it is missing."""
        parent, _, name = target.rpartition("/")
        try:
            _check_length(target)
            for _ in range(_RACES):
                folder = self._make_folder(parent or self._top)
                try:
                    self._tidy(folder)
                    return Unfinished(folder, name, operation, self._pruned)
                except FileNotFoundError:  # a deletion of its last file removed the directory meanwhile
                    folder.close()
                except BaseException:
                    folder.close()
                    raise
            raise FileNotFoundError(errno.ENOENT, "the directory is removed again and again")
        except OSError as error:
            raise failure(operation, target, error) from error

    def _tidy(self, folder: Folder) -> None:
        if folder.path not in self._swept:
            sweep(folder)
            if len(self._swept) >= _SWEPT_AT_MOST:
                self._swept.clear()
            self._swept.add(folder.path)

    def _make_folder(self, directory: str) -> Folder:
        """Open a directory; make it and its missing parents, each one's entry flushed, so that a power cut keeps them."""
        missing: list[str] = []
        for _ in range(_RACES):
            path = directory
            missing.clear()
            while True:
                try:
                    folder = self._folder(path)
                    break
                except FileNotFoundError:
                    path, name = os.path.split(path)
                    if not name:
                        raise
                    missing.append(name)
            try:
                while missing:
                    folder = self._descend(folder, missing.pop())
            except FileNotFoundError:  # as above
                folder.close()
            except BaseException:
                folder.close()
                raise
            else:
                return folder
        raise FileNotFoundError(errno.ENOENT, "the directory is removed again and again")

    def _descend(self, folder: Folder, name: str) -> Folder:
        folder.make_folder(name)
        inner = Folder(name, folder)
        try:
            self._check_folder(inner)
            folder.flush()
        except BaseException:
            inner.close()
            raise
        folder.close()
        return inner

    def _settle(self, folder: Folder) -> None:
        """Flush a directory from which something was removed; remove it where it is left empty, its parents likewise."""
        parent = self._pruned(folder)
        if parent == folder.path:
            folder.flush()
            return
        with suppress(FileNotFoundError), Folder(parent) as above:  # someone else removed it, and flushes
            above.flush()

    def _pruned(self, folder: Folder) -> str:
        """Remove a directory where it is empty, its parents likewise; return the first that is left."""
        parent = folder.path
        while self.prune and len(parent) > len(self._top):
            try:
                os.rmdir(parent)
            except OSError:  # not empty
                break
            parent = os.path.dirname(parent)
        return parent


def _fill(file: Unfinished, data: bytes | Iterable[bytes]) -> None:
    check_content(data, os.path.join(file.folder.path, file.name))
    if isinstance(data, bytes | bytearray | memoryview):
        file.write(data)
        return
    for chunk in data:
        file.write(chunk)


def _check_length(target: str) -> None:
    """Refuse what could be written from its directory, and then not be read by its whole path."""
    if len(target) >= _LONG and len(os.fsencode(target)) >= os.pathconf("/", "PC_PATH_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _is_taken(file: Unfinished) -> bool:
    """Return whether something has the file's name; raise where it is a directory."""
    try:
        found = file.folder.lstat(file.name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failure("create", os.path.join(file.folder.path, file.name), error) from error
    if stat.S_ISDIR(found.st_mode):
        where = os.path.join(file.folder.path, file.name)
        raise FileError("cannot create: a directory has that name", where=where, mend="choose another name")
    return True


def _file_stat(found: os.stat_result, target: str) -> FileStat:
    if not stat.S_ISREG(found.st_mode):
        raise FileMissingError("there is no such file", where=target)
    # The time of the entry's own change tells of an edit after which the other one was set back.
    version = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}-{found.st_size:x}"
    return FileStat(size=found.st_size, modified=found.st_mtime, version=version)


def _copied_by_system(descriptor: int, file: Unfinished) -> bool:
    """Copy within the kernel where it can; return False where nothing was copied."""
    if sys.platform != "linux":
        return False
    copied = 0
    while True:
        try:
            count = os.copy_file_range(descriptor, file.descriptor, 1 << 30)
        except OSError:
            if copied:
                raise
            return False  # this filesystem cannot; what is really wrong with the disk shows when bytes are written
        if count == 0:
            return copied > 0  # files of /proc have no length, and are not copied so
        copied += count

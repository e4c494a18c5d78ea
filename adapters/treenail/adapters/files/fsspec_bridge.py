"""Our stores as a filesystem of fsspec, for whatever takes one: pandas, pyarrow, datasets, torch's distributed checkpoints."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from treenail.adapters.files import derived
from treenail.adapters.files.mounts import Mounts, Place, resolved
from treenail.adapters.files.paths import check_path, scheme_of
from treenail.contracts.files import CreatesFiles, HasDirectories, ListsEntries, SignsUrls
from treenail.kernel import FileBackend, FileError, FileMissingError, FileStat

Info = dict[str, object]


class TreenailFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file backend, or all that `Mounts` finds, behind the interface of fsspec's filesystems.

    With a backend, paths are those below its root: ``TreenailFileSystem(LocalFiles("/data")).open("a.csv")``. Without one
    they are what `Mounts.resolve` takes, behind the protocol: ``fsspec.open("treenail://s3://bucket/a.csv")``,
    ``pandas.read_csv("treenail://data/a.csv")`` for a mount ``data/``.

    A store without directories of its own has those that files lie in; making an empty one does nothing there, as in
    fsspec's s3fs. A file is published when it is closed, whole; an exception in its ``with`` block publishes nothing.
    Errors are those that fsspec's users expect (FileNotFoundError, OSError), with ours as their cause. Mode ``x`` is
    decided by the store where it can create, else by looking first. Moving is copying and deleting.

    Args:
        backend: Where the paths lie.
        mounts: What finds the paths, where no backend is given; the ones in use (`use_mounts`) when None.
        **options: fsspec's own, for every filesystem.

    Raises:
        ValueError: It was put in a chain (``treenail::s3://…``), or got both a backend and mounts.
    """

    protocol = "treenail"
    cachable = False  # which backend a path means depends on the mounts in use
    root_marker = ""

    def __init__(self, backend: FileBackend | None = None, mounts: Mounts | None = None, **options: object) -> None:
        if {"fo", "target_protocol", "target_options"} & {*options}:
            raise ValueError("treenail:: does not chain; write treenail://s3://bucket/key")
        if backend is not None and mounts is not None:
            raise ValueError("give a backend or mounts, not both")
        super().__init__(**options)
        self.backend = backend
        self.mounts = mounts

    @classmethod
    def _strip_protocol(cls, path: object) -> object:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        given = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
        text = given.removeprefix("treenail://")
        scheme = scheme_of(text)
        lead = f"{scheme}://" if scheme else "/" if text.startswith("/") else ""
        return lead + text[len(lead) :].rstrip("/")

    @classmethod
    def _parent(cls, path: object) -> str:
        text = str(cls._strip_protocol(path))
        scheme = scheme_of(text)
        lead = f"{scheme}://" if scheme else "/" if text.startswith("/") else ""
        return lead + text[len(lead) :].rpartition("/")[0]

    def info(self, path: str, **_: object) -> Info:
        """Return name, size and type of a file or directory; of a file also its time and version."""
        path, place = self._find(path)
        with _as_os_errors(path):
            if place.path:
                try:
                    return _file_info(path, place.backend.stat(place.path))
                except FileMissingError:
                    pass
            if not place.path or derived.is_directory(place.backend, place.path):
                return _directory_info(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Info] | list[str]:
        """Return what lies in a directory, or the file itself, sorted by name."""
        path, place = self._find(path)
        with _as_os_errors(path):
            children = _children(place)
            exists = bool(children) or not place.path
            exists = exists or (isinstance(place.backend, HasDirectories) and place.backend.is_directory(place.path))
        if not exists:
            found = [self.info(path)]
        else:
            lead = path if not path or path.endswith("/") else f"{path}/"
            found = [
                _directory_info(lead + name) if each is None else _file_info(lead + name, each)
                for name, each in sorted(children.items())
            ]
        return found if detail else [str(each["name"]) for each in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **options: object
    ) -> dict[str, Info] | list[str]:
        """Return all files below a directory; a store without directories is listed once, not level by level."""
        path, place = self._find(path)
        if isinstance(place.backend, HasDirectories):
            levels: dict[str, Info] | list[str] = super().find(path, maxdepth, withdirs, detail, **options)
            return levels
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        found: dict[str, Info] = {}
        lead = path if not path or path.endswith("/") else f"{path}/"
        cut = len(place.path) + 1 if place.path else 0
        with _as_os_errors(path):
            for below, each in derived.scan(place.backend, place.path):
                parts = below[cut:].split("/")
                if withdirs:
                    if path:
                        found[path] = _directory_info(path)
                    for depth in range(1, min(len(parts), maxdepth + 1 if maxdepth else len(parts))):
                        directory = lead + "/".join(parts[:depth])
                        found.setdefault(directory, _directory_info(directory))
                if maxdepth is None or len(parts) <= maxdepth:
                    found[lead + "/".join(parts)] = _file_info(lead + "/".join(parts), each)
        if not found and place.path and self.isfile(path):
            found[path] = self.info(path)
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def mkdir(self, path: str, create_parents: bool = True, **_: object) -> None:
        """Make a directory; nothing in a store without directories."""
        path, place = self._find(path)
        if isinstance(place.backend, HasDirectories):
            if self.exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if not create_parents and not self.isdir(self._parent(path)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            with _as_os_errors(path):
                place.backend.make_directory(place.path)
        elif self.isfile(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and its parents; nothing in a store without directories."""
        if self.isdir(path):
            if not exist_ok:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        else:
            self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        if self.ls(path, detail=False):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        path, place = self._find(path)
        if isinstance(place.backend, HasDirectories):
            with _as_os_errors(path):
                place.backend.delete_directory(place.path)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        path, place = self._find(path)
        with _as_os_errors(path):
            place.backend.delete(place.path)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, and with `recursive` directories and what lies in them."""
        for each in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            _, place = self._find(each)
            if not self.isdir(each):
                if not recursive or self.exists(each):
                    self.rm_file(each)
            elif not recursive:
                raise IsADirectoryError(errno.EISDIR, "remove it with recursive=True", each)
            elif isinstance(place.backend, HasDirectories) and not self.ls(each, detail=False):
                self.rmdir(each)

    def cp_file(self, path1: str, path2: str, **_: object) -> None:
        """Copy a file, over any two stores; of a directory only the directory."""
        path1, source = self._find(path1)
        path2, target = self._find(path2)
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        with _as_os_errors(path1):
            derived.copy(source.backend, source.path, target.backend, target.path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        """Return the bytes of a file, or of the slice [start:end] of it."""
        path, place = self._find(path)
        with _as_os_errors(path):
            if (start or 0) < 0 or (end or 0) < 0:
                start, end, _step = slice(start, end).indices(place.backend.stat(place.path).size)
            return place.backend.read(place.path, start or 0, None if end is None else max(0, end - (start or 0)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        """Make a file hold exactly `value`; mode "create" wants that there is none."""
        path, place = self._find(path)
        with _as_os_errors(path):
            if mode == "create":
                _create(place, path, value)
            else:
                place.backend.write(place.path, value)

    def put_file(
        self, lpath: str, rpath: str, callback: object = DEFAULT_CALLBACK, mode: str = "overwrite", **options: object
    ) -> None:
        """Upload a local file; of a directory only the directory."""
        if mode == "create" and self.exists(rpath):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), rpath)
        super().put_file(lpath, rpath, callback=callback, **options)

    def sign(self, path: str, expiration: int = 100, **_: object) -> str:
        """Return a URL that reads a file without credentials for `expiration` seconds."""
        path, place = self._find(path)
        if not isinstance(place.backend, SignsUrls):
            raise NotImplementedError(f"{place.backend.uri} has no signed URLs")
        with _as_os_errors(path):
            return place.backend.sign(place.path, expires=float(expiration))

    def modified(self, path: str) -> datetime:
        """Return the time of the last change of a file."""
        path, place = self._find(path)
        with _as_os_errors(path):
            return datetime.fromtimestamp(place.backend.stat(place.path).modified, UTC)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, object] | None = None,
        **options: object,
    ) -> TreenailFile:
        if mode == "rb" and self.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return TreenailFile(
            self, path, mode, block_size or "default", autocommit, cache_options=cache_options, **options
        )

    def _find(self, path: str) -> tuple[str, Place]:
        """Return a path without protocol, and where it lies."""
        text = str(self._strip_protocol(path))
        with _as_os_errors(text):
            if self.backend is None:
                return text, resolved(text or ".", self.mounts)
            return text, Place(self.backend, check_path(text.removeprefix("/"), self.backend.uri, root=True))


class TreenailFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file opened by `TreenailFileSystem`: read in ranges, or gathered on this machine and published at its end."""

    def __init__(
        self,
        fs: TreenailFileSystem,
        path: str,
        mode: str = "rb",
        block_size: int | str = "default",
        autocommit: bool = True,
        **options: object,
    ) -> None:
        if mode == "xb" and fs.exists(path):
            self.closed = True
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        super().__init__(fs, path, mode, block_size, autocommit, **options)
        if mode == "rb":
            return
        _, self._place = fs._find(path)
        self._gathered = tempfile.SpooledTemporaryFile(max_size=derived.CHUNK)  # noqa: SIM115  (closed when published)
        if mode == "ab" and fs.exists(path):
            with _as_os_errors(path):
                self._gathered.writelines(derived.stream(self._place.backend, self._place.path))
            self.loc = self._gathered.tell()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.mode != "rb":  # a half written file is none
            self.discard()
            self.forced = self.closed = True
        self.close()

    def commit(self) -> None:
        """Publish what was written."""
        with self._gathered, _as_os_errors(self.path):
            self._gathered.seek(0)
            chunks = iter(lambda: self._gathered.read(derived.CHUNK), b"")
            if self.mode == "xb":
                _create(self._place, self.path, chunks)
            else:
                self._place.backend.write(self._place.path, chunks)

    def discard(self) -> None:
        """Forget what was written."""
        self._gathered.close()

    def _upload_chunk(self, final: bool = False) -> bool:
        self._gathered.write(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True


def _children(place: Place) -> dict[str, FileStat | None]:
    """Return what lies in a directory: name → what is known of the file, None of a directory."""
    backend, lead = place.backend, f"{place.path}/" if place.path else ""
    found: dict[str, FileStat | None] = {}
    if isinstance(backend, ListsEntries):
        for name, directory in backend.entries(place.path):
            if not directory:
                with suppress(FileMissingError):  # deleted since it was listed
                    found[name] = backend.stat(lead + name)
            elif not derived.is_link(backend, lead + name):  # fsspec would follow it for ever
                found[name] = None
        return found
    for path, each in derived.scan(backend, place.path):
        name, slash, _ = path[len(lead) :].partition("/")
        if not slash:
            found[name] = each
        else:
            found.setdefault(name, None)
    return found


def _create(place: Place, path: str, data: bytes | Iterable[bytes]) -> None:
    backend = place.backend
    if isinstance(backend, CreatesFiles):
        made = backend.create(place.path, data)
    elif made := not derived.file_exists(backend, place.path):
        backend.write(place.path, data)
    if not made:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def _file_info(name: str, found: FileStat) -> Info:
    info: Info = {"name": name, "size": found.size, "type": "file", "mtime": found.modified}
    return info if found.version is None else info | {"ETag": found.version}


def _directory_info(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


@contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Raise the exceptions that users of fsspec expect, with ours as their cause."""
    try:
        yield
    except FileMissingError as error:
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    except FileError as error:
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        raise OSError(number or errno.EIO, str(error), path) from error

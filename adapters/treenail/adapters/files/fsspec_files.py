"""Files in any store that fsspec knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from treenail.adapters.files.contents import gathered
from treenail.adapters.files.derived import CHUNK, stream
from treenail.adapters.files.local.durable import UNFINISHED
from treenail.adapters.files.paths import (
    check_path,
    check_range,
    join_uri,
    path_below,
    read_only,
    redacted,
    scheme_of,
    told,
)
from treenail.kernel import (
    Capabilities,
    FileError,
    FileMissingError,
    FileStat,
    MissingDependencyError,
    TreenailError,
    require,
)

_RENAMING = frozenset({"file", "local", "sftp", "ssh"})
"""Schemes whose filesystems rename over an existing file in one act: rename(2), posix-rename@openssh.com."""
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos", "http", "https"})
"""Schemes of stores that have no directories, and publish an upload in one act."""
_UNWRITTEN = frozenset({"github"})
"""Schemes whose filesystems delete files and open none to write."""
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_VERSIONS = ("ETag", "etag", "VersionId", "version_id", "generation", "md5Hash", "sha")
_SECRET_OPTIONS = ("password", "secret", "token", "key", "credential", "passphrase")


class FsspecFiles:
    """Files below a URL of fsspec (https://filesystem-spec.readthedocs.io): SFTP, FTP, SMB, HDFS, WebDAV, GitHub and more.

    A write is gathered first, in memory or in a temporary file, so that a source that breaks changes nothing. It then goes
    to a temporary name and is moved, where the filesystem can move and has directories. Links are followed by the store;
    directories that are links are not listed. Directories that a deletion leaves empty stay. A time of the last change
    that the store does not tell is 0. There are no signed URLs: fsspec signs no uploads. A filesystem that deletes no files,
    such as those of web servers and archives, is read only.

    Args:
        root: The URL, such as ``sftp://host/directory``.
        options: What fsspec calls storage options: user, password, port …
        atomic_move: Whether moving a file over another is one act. None: known for local files and SFTP, and doubted of
            all others; there, a process killed at the wrong moment can lose the old content.
    """

    def __init__(
        self,
        root: str,
        *,
        options: Mapping[str, object] = {},  # read only
        atomic_move: bool | None = None,
    ) -> None:
        self.uri = redacted(root)
        scheme = scheme_of(root)
        if scheme is None:
            raise FileError("fsspec needs a URL with a scheme", where=self.uri, mend="write sftp://host/directory")
        self._scheme = scheme
        self._root = root
        self._options = dict(options)
        shown = sorted((key, repr(value)) for key, value in options.items() if not _is_secret(key))
        self.identity = f"{blake2b(repr(shown).encode()).hexdigest()} {self.uri}" if shown else self.uri
        self._atomic = scheme in _RENAMING if atomic_move is None else atomic_move
        self._given_atomic_move = atomic_move
        self._shared: _Opened | None = None
        self._own = threading.local()

    def __repr__(self) -> str:
        return f"FsspecFiles({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        factory = partial(FsspecFiles, options=self._options, atomic_move=self._given_atomic_move)
        return factory, (self._root,)

    @property
    def capabilities(self) -> Capabilities:
        """Ranges; atomic replacement where the filesystem's move is atomic; whether it can be written at all.

        Raises:
            FileError: fsspec does not know the scheme.
            MissingDependencyError: The filesystem needs a package that is not installed.
        """
        writable = self._delete_verb is not None
        return Capabilities(atomic_replace=self._atomic and writable, writable=writable)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        where = self._check(path)
        check_range(where, start, length)
        with self._explained("read", where):
            opened = self._open()
            name = opened.base + path
            if length == 0:
                self._info(opened, path)
                return b""
            try:
                data = opened.fs.cat_file(name, start=start or None, end=None if length is None else start + length)
            except Exception:
                # Some stores refuse a range that begins at the end.
                if start and start >= _stat(opened.fs, self._info(opened, path), where).size:
                    return b""
                raise
            return bytes(data)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`."""
        where = self._check_writable(path)
        with gathered(data, CHUNK) as content, self._explained("write", where):
            opened = self._open()
            self._publish(opened, path, partial(_send, opened.fs, content))

    def stat(self, path: str) -> FileStat:
        """Return size and time of a file, and its version where the filesystem tells one."""
        where = self._check(path)
        with self._explained("stat", where):
            opened = self._open()
            return _stat(opened.fs, self._info(opened, path), where)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes; one directory at a time."""
        check_path(prefix, self.uri, root=True)
        for path, _ in self._walk(prefix):
            yield path

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`, from the store's own listings."""
        check_path(prefix, self.uri, root=True)
        for path, info in self._walk(prefix):
            where = join_uri(self.uri, path)
            with self._explained("stat", where):
                try:
                    found = _stat(self._open().fs, info, where)
                except FileNotFoundError:  # deleted since it was listed
                    continue
            yield path, found

    def is_directory(self, path: str) -> bool:
        """Return whether `path` ("" is the root) is a directory of the filesystem's; it may be empty."""
        check_path(path, self.uri, root=True)
        with self._explained("look at", join_uri(self.uri, path)):
            opened = self._open()
            opened.fs.invalidate_cache()
            return bool(opened.fs.isdir((opened.base + path).rstrip("/") or opened.base))

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._explained("delete", self._check_writable(path)):
            opened = self._open()
            self._info(opened, path)
            getattr(opened.fs, self._delete_verb or "rm_file")(opened.base + path)

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds; the store copies where it can."""
        self._check(source)
        where = self._check_writable(target)
        with self._explained("copy", join_uri(self.uri, source)):
            opened = self._open()
            self._info(opened, source)
        try:
            with self._explained("write", where):
                self._publish(opened, target, partial(opened.fs.cp_file, opened.base + source))
        except FileError as error:
            if not isinstance(error.__cause__, NotImplementedError):
                raise
            self.write(target, stream(self, source))

    def _check(self, path: str) -> str:
        check_path(path, self.uri)
        if path.endswith(UNFINISHED):
            raise FileError(f"{path!r} has the ending of unfinished writes", where=self.uri, mend="rename it")
        return join_uri(self.uri, path)

    def _check_writable(self, path: str) -> str:
        where = self._check(path)
        if self._delete_verb is None:
            raise read_only(self.uri, path, "write to another place")
        return where

    @cached_property
    def _delete_verb(self) -> str | None:
        """How the filesystem deletes a file; None where it cannot. It is not opened for that, which may need the network."""
        spec = require("fsspec.spec", extra="fsspec", purpose="fsspec").AbstractFileSystem
        asynchronous = require("fsspec.asyn", extra="fsspec", purpose="fsspec").AsyncFileSystem
        cached = require("fsspec.implementations.cached", extra="fsspec", purpose="fsspec").CachingFileSystem
        with self._explained("look at", self.uri):
            kind = _filesystem(self._scheme)
            if issubclass(kind, cached) and "target_protocol" in self._options:
                kind = _filesystem(str(self._options["target_protocol"]))  # it passes on what changes files
        if self._scheme in _UNWRITTEN:
            return None
        own = [
            verb
            for verb in ("rm_file", "_rm_file", "_rm", "rm")
            if getattr(kind, verb, None) not in (getattr(spec, verb, None), getattr(asynchronous, verb, None))
        ]
        return None if not own else "rm" if own == ["rm"] else "rm_file"

    def _open(self) -> _Opened:
        """Return the filesystem of this process, and of this thread where it is not safe between threads."""
        found: _Opened | None = self._shared or getattr(self._own, "opened", None)
        if found is not None and found.process == os.getpid():
            return found
        core = require("fsspec.core", extra="fsspec", purpose=f"'{self._scheme}://'")
        # fsspec tells how it names a file below the root, which is not always a part of the URL.
        fs, probe = core.url_to_fs(join_uri(self._root, "x"), **self._options, skip_instance_cache=True)
        if isinstance(fs.dircache, require("fsspec.dircache", extra="fsspec", purpose="fsspec").DirCache):
            fs.dircache.use_listings_cache = False
            fs.dircache.clear()
        spec = require("fsspec.spec", extra="fsspec", purpose="fsspec").AbstractFileSystem
        local = require("fsspec.implementations.local", extra="fsspec", purpose="fsspec").LocalFileSystem
        memory = require("fsspec.implementations.memory", extra="fsspec", purpose="fsspec").MemoryFileSystem
        opened = _Opened(
            fs,
            str(probe).removesuffix("x"),
            moves=type(fs).mv is not spec.mv and self._scheme not in _FLAT,
            local=isinstance(fs, local),
            process=os.getpid(),
        )
        if fs.async_impl or isinstance(fs, local | memory):
            self._shared = opened
        else:
            self._own.opened, self._shared = opened, None
        return opened

    def _info(self, opened: _Opened, path: str) -> Mapping[str, Any]:  # fsspec promises name, size and type alone
        """Return what the filesystem knows of a file; raise FileNotFoundError where it is none."""
        opened.fs.invalidate_cache()
        info: Mapping[str, Any] = opened.fs.info(opened.base + path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
        return info

    def _publish(self, opened: _Opened, path: str, put: Callable[[str], object]) -> None:
        """Let `put` make a file of the name that it is given, then give it the name of `path`."""
        fs, target = opened.fs, opened.base + path
        parent = target.rpartition("/")[0]
        if self._scheme not in _FLAT:
            fs.invalidate_cache()
            if fs.isdir(target):
                raise FileError("a directory has that name", where=join_uri(self.uri, path), mend="choose another name")
            if parent:
                fs.makedirs(parent, exist_ok=True)
        if not opened.moves:
            put(target)
            return
        temporary = f"{parent}/.{os.urandom(8).hex()}{UNFINISHED}"
        try:
            put(temporary)
            if opened.local:
                _flush(temporary)
                os.replace(temporary, target)
                _flush(parent or "/")
            else:
                self._move(fs, temporary, target)
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                fs.rm_file(temporary)
            raise

    def _move(self, fs: Any, temporary: str, target: str) -> None:  # fsspec has no types
        try:
            fs.mv(temporary, target)
        except Exception:
            # Some servers rename over nothing that exists; then there is no atomic way.
            if self._atomic or not fs.exists(target):
                raise
            fs.rm_file(target)
            fs.mv(temporary, target)

    def _walk(self, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        waiting: list[tuple[str, Mapping[str, Any] | None]] = [(prefix, None)]
        with self._explained("list", join_uri(self.uri, prefix)):
            opened = self._open()
        while waiting:
            path, info = waiting.pop()
            if info is not None:
                yield path, info
                continue
            with self._explained("list", join_uri(self.uri, path)):
                found = sorted(self._entries(opened, path), reverse=True)
            waiting += [(name if entry else name.rstrip("/"), entry) for _, name, entry in found]

    def _entries(self, opened: _Opened, path: str) -> Iterator[tuple[bytes, str, Mapping[str, Any] | None]]:
        """Yield (what it is sorted by, path, info of a file or None of a directory) of what lies in a directory."""
        name = (opened.base + path).rstrip("/") or opened.base
        opened.fs.invalidate_cache()
        try:
            listing = opened.fs.ls(name, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        lead = f"{name.strip('/')}/" if name.strip("/") else ""
        for info in listing:
            found = str(info["name"]).strip("/")
            if found == lead.rstrip("/"):  # a file lists itself
                continue
            last = found.removeprefix(lead)
            if not found.startswith(lead) or "/" in last:
                raise FileError(f"the filesystem lists {found!r}, which lies elsewhere", where=join_uri(self.uri, path))
            below = path_below(path, last)
            if last.endswith(UNFINISHED):
                continue
            if info["type"] == "directory":
                yield f"{below}/".encode(errors="surrogateescape"), below, None
            else:
                entry = info if info["type"] == "file" else self._behind_link(opened, below)
                if entry is not None:
                    yield below.encode(errors="surrogateescape"), below, entry

    def _behind_link(self, opened: _Opened, path: str) -> Mapping[str, Any] | None:
        with suppress(FileNotFoundError, IsADirectoryError):
            info = self._info(opened, path)
            return info if info["type"] == "file" else None
        return None

    @contextmanager
    def _explained(self, operation: str, where: str) -> Iterator[None]:
        try:
            yield
        except TreenailError:
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if operation == "write":
                raise FileError(f"cannot write: {self._told(error)}", where=where) from error
            raise FileMissingError(f"cannot {operation}: there is no such file", where=where) from error
        except ImportError as error:
            raise MissingDependencyError(
                f"'{self._scheme}://' needs a package that is not installed: {self._told(error)}",
                where=where,
                mend="install the package that it names",
            ) from error
        except Exception as error:  # every filesystem has exceptions of its own
            raise FileError(f"cannot {operation}: {self._told(error)}", where=where) from error

    def _told(self, error: Exception) -> str:
        """Return what an error says, without credentials."""
        secrets = list(_secrets_in(self._options))
        authority = self._root.partition("://")[2].partition("/")[0]
        if "@" in authority:
            secrets += [authority.rpartition("@")[0], authority.rpartition("@")[0].partition(":")[2]]
        return told(error, secrets)


def _filesystem(scheme: str) -> Any:  # fsspec has no types
    return require("fsspec", extra="fsspec", purpose=f"'{scheme}://'").get_filesystem_class(scheme)


def _secrets_in(options: Mapping[str, object]) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):  # such as client_kwargs
            yield from _secrets_in(value)
        elif _is_secret(str(key)):
            yield str(value)


def _is_secret(option: str) -> bool:
    return any(each in option.lower() for each in _SECRET_OPTIONS)


class _Opened(NamedTuple):
    """A filesystem, and what it calls the root: a file's name there is `base` and its path."""

    fs: Any  # fsspec has no types
    base: str
    moves: bool
    local: bool
    process: int


def _stat(fs: Any, info: Mapping[str, Any], where: str) -> FileStat:
    if info["size"] is None:
        raise FileError("the filesystem does not tell the file's size", where=where)
    modified = next((info[key] for key in _TIMES if info.get(key) is not None), None)
    if modified is None or isinstance(modified, str):
        with suppress(NotImplementedError):
            modified = fs.modified(info["name"])
    if isinstance(modified, datetime):
        modified = modified.timestamp()
    version = next((str(info[key]).strip('"') for key in _VERSIONS if info.get(key) is not None), None)
    return FileStat(int(info["size"]), float(modified) if isinstance(modified, int | float) else 0.0, version)


def _send(fs: Any, content: bytes | Path, name: str) -> None:
    if isinstance(content, bytes):
        fs.pipe_file(name, content)
    else:
        fs.put_file(str(content), name)


def _flush(path: str) -> None:
    if os.name == "nt" and os.path.isdir(path):  # Windows has no handle of a directory to flush
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

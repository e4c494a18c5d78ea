"""Zip and tar archives as read-only trees."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from treenail.adapters.files.archive_members import Index, Member, explained, indexed
from treenail.adapters.files.mounts import current_mounts
from treenail.adapters.files.operations import get_local_path
from treenail.adapters.files.paths import (
    check_path,
    check_range,
    join_uri,
    names_below,
    read_only,
    redacted,
    scheme_of,
    split_inside,
)
from treenail.contracts.files import HasLocalPaths
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat

_PAUSE = 1.0
"""Seconds between two questions to a remote store whether the archive changed."""


class ArchiveFiles:
    """The files in a zip, a tar, or a tar compressed by gzip, bzip2, xz or (from Python 3.14 on) Zstandard.

    The archive may lie anywhere: it is found by the mounts in use when this object is made, and read from a local file,
    which for a remote archive is `get_local_path`'s copy. URIs have ``!/`` between archive and member:
    ``zip:///data/set.zip!/train/1.png``, ``tar://s3://bucket/set.tar!/1.png``; whether it is a zip or a tar is told by
    its content. Nothing is extracted to a disk. The index is made once, and anew where the store says that the archive
    changed, which is asked by every call, of a remote store once a second; only what is being streamed meanwhile fails.

    Stored members of a zip and members of a plain tar are read at their place. A compressed member is read from its
    beginning, and a compressed tar from the beginning of the archive: repack it if it is read at random.

    An archive is refused whole, with the member's name, where a member climbs out of the root, is absolute or ambiguous
    (``..``, drives, backslashes), is there twice, is a link that leads out, a device, encrypted or sparse, or where
    members of a zip share bytes. Links to members are read as what they lead to; a symbolic link to a directory or to
    nothing is left out. A member that holds more or less than it declares is an error.

    Args:
        root: URI of the archive, ``zip://`` or ``tar://`` before its own; a local path or another URI alone will do.
        largest_member: Bytes that a member may hold, uncompressed.
        most_members: Members that the archive may have.
    """

    def __init__(self, root: str, *, largest_member: int = 2**40, most_members: int = 10_000_000) -> None:
        self._root = root
        scheme = scheme_of(root)
        if scheme in {"zip", "tar"}:
            inner = root[len(scheme) + 3 :].removesuffix("!")
        else:
            scheme, inner = "zip" if root.lower().endswith(".zip") else "tar", root
        if not inner:
            raise FileError("the URI names no archive", where=redacted(root), mend="write zip:///path/to/set.zip")
        self._archive = inner
        self.largest_member = largest_member
        self.most_members = most_members
        self._shown = redacted(inner)
        self.uri = f"{scheme}://{self._shown}!"
        self._mounts = current_mounts()
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._asked = -math.inf

    def __repr__(self) -> str:
        return f"ArchiveFiles({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        factory = partial(ArchiveFiles, largest_member=self.largest_member, most_members=self.most_members)
        return factory, (self._root,)

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (``zip://archive``, path of the member): what stands before and after the first ``!/``."""
        return split_inside(uri)

    @property
    def capabilities(self) -> Capabilities:
        """Ranges, of what is not compressed."""
        return Capabilities(atomic_replace=False, writable=False, local=True)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        return b"".join(self.stream(path, start, length))

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return; of a whole member its checksum is checked at the end."""
        check_range(path, start, length)
        opened, member = self._find(path)
        end = member.size if length is None else min(member.size, start + length)
        where = join_uri(self.uri, path)
        if start >= end:
            return
        with explained(f"cannot read {member.name!r}", where), opened.path.open("rb") as file:
            if _identity(file) != opened.identity:
                raise FileError("the archive changed meanwhile", where=where, mend="read it again")
            yield from opened.contents(file, member, start, end)

    def stat(self, path: str) -> FileStat:
        """Return size and time of a member; its version is that of the archive."""
        opened, member = self._find(path)
        return FileStat(member.size, member.modified, opened.version)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        check_path(prefix, self.uri, root=True)
        yield from names_below(self._open().names, prefix)

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`."""
        for path in self.list(prefix):
            yield path, self.stat(path)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Raise `FileError`: this store is read only."""
        raise self._read_only(path)

    def delete(self, path: str) -> None:
        """Raise `FileError`: this store is read only."""
        raise self._read_only(path)

    def _read_only(self, path: str) -> FileError:
        return read_only(self.uri, path, "copy the tree elsewhere, and change the copy")

    def _find(self, path: str) -> tuple[_Opened, Member]:
        check_path(path, self.uri)
        opened = self._open()
        member = opened.members.get(path)
        if member is None:
            raise FileMissingError("there is no such file in the archive", where=join_uri(self.uri, path))
        return opened, member

    def _open(self) -> _Opened:
        place = self._mounts.resolve(self._archive)
        pause = 0.0 if isinstance(place.backend, HasLocalPaths) else _PAUSE
        opened = self._opened
        if opened is not None and time.monotonic() - self._asked < pause:
            return opened
        asked = time.monotonic()
        known = place.backend.stat(place.file())
        if opened is None or opened.known != known:
            with self._lock:
                opened = self._opened
                if opened is None or opened.known != known:
                    opened = self._opened = self._indexed(known)
        self._asked = asked
        return opened

    def _indexed(self, known: FileStat) -> _Opened:
        with ExitStack() as held:
            path = held.enter_context(get_local_path(self._archive, mounts=self._mounts))
            index = Index(self._shown, self.largest_member, self.most_members)
            with explained("this is no sound archive", self._shown), path.open("rb") as file:
                identity = _identity(file)
                contents = indexed(file, index)
            members = index.resolved()
            kept = held.pop_all()
        version = known.version or f"{known.modified}-{known.size}"
        opened = _Opened(path, identity, known, version, members, sorted(members), contents)
        weakref.finalize(opened, _release, kept, os.getpid())  # once no stream reads it any more
        return opened


@dataclass(frozen=True, eq=False)
class _Opened:
    """An archive's index, and what yields the bytes [start:end] of a member."""

    path: Path
    identity: tuple[int, ...]
    known: FileStat
    version: str
    members: dict[str, Member]
    names: list[str]
    contents: Callable[[BinaryIO, Member, int, int], Iterator[bytes]]


def _identity(file: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _release(held: ExitStack, process: int) -> None:
    if os.getpid() == process:  # a forked process leaves the local copy to its maker
        held.close()

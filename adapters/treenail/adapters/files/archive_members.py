"""The members of zip and tar archives: which there are, which are refused, and their bytes.

Formats: PKWARE's APPNOTE.TXT (zip); POSIX.1-2001 pax and GNU tar, as `tarfile` reads them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, Final, NamedTuple, cast

from treenail.adapters.files.derived import CHUNK
from treenail.adapters.files.paths import check_path
from treenail.kernel import FileError, MissingDependencyError, require

_DRIVE: Final = re.compile(r"[A-Za-z]:(?:/|\Z)")
_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")  # APPNOTE 4.3.7
_LINK_HOPS: Final = 40
_LONGEST_HEADER: Final = 16 * 2**20
"""Bytes that an extended header of a tar may have; `tarfile` reads it at once, whatever size is declared."""
_UNSOUND: Final[tuple[type[Exception], ...]] = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError),
    *(OverflowError, struct.error, NotImplementedError, RecursionError),
)


class Member(NamedTuple):
    """Where a member lies: in a zip the offset of its header, in a tar (uncompressed) that of its data."""

    name: str
    size: int
    modified: float
    offset: int
    method: int = zipfile.ZIP_STORED
    packed: int = 0
    checksum: int | None = None
    raw_name: bytes = b""


class Index:
    """Takes the members of an archive, and refuses what may not be there.

    Args:
        where: The archive, for messages.
        largest: Bytes that a member may declare.
        most: Members that there may be.
    """

    def __init__(self, where: str, largest: int, most: int) -> None:
        self.where, self.largest, self.most = where, largest, most
        self.files: dict[str, Member] = {}
        self.links: dict[str, tuple[str, str, bool]] = {}
        self.count = 0

    def refused(self, name: str, why: str) -> FileError:
        """Return the error that says which member is refused, and why."""
        return FileError(f"the member {name!r} {why}", where=self.where, mend="do not trust this archive, or repack it")

    def counted(self) -> None:
        """Count an entry of any kind."""
        self.count += 1
        if self.count > self.most:
            raise FileError(f"it has more than {self.most} members", where=self.where, mend="raise most_members")

    def path_of(self, name: str) -> str:
        """Return the path that a member's name means; "" is the root."""
        path = name.removeprefix("./").removesuffix("/")
        if path in {"", "."} and name in {"", ".", "./"}:
            return ""
        if "\\" in path or _DRIVE.match(path):
            raise self.refused(name, "has a backslash or a drive in its name")
        try:
            return check_path(path, self.where)
        except FileError:
            raise self.refused(name, "climbs out, is absolute or ambiguous") from None

    def add(self, path: str, member: Member) -> None:
        """Add a file."""
        self._add_once(path, member.name)
        if not 0 <= member.size <= self.largest:
            raise self.refused(member.name, f"declares {member.size} bytes, more than largest_member allows")
        self.files[path] = member

    def add_link(self, path: str, name: str, target: str, *, hard: bool) -> None:
        """Add a link; a hard one names a member, a symbolic one is taken from its own directory."""
        self._add_once(path, name)
        reached = target.removeprefix("./") if hard else posixpath.join(posixpath.dirname(path), target)
        reached = posixpath.normpath(reached)
        if "\\" in target or _DRIVE.match(target) or reached.startswith("/") or reached.split("/")[0] == "..":
            raise self.refused(name, f"is a link that leads out, to {target!r}")
        self.links[path] = name, reached, hard

    def _add_once(self, path: str, name: str) -> None:
        if not path or path in self.files or path in self.links:
            raise self.refused(name, "is there twice, or is the root")

    def resolved(self) -> dict[str, Member]:
        """Return the members by path, links as what they lead to."""
        members = dict(self.files)
        for path, (name, target, hard) in self.links.items():
            found, hops = target, 0
            while found in self.links:
                found, hops = self.links[found][1], hops + 1
                if hops > _LINK_HOPS:
                    raise self.refused(name, "is one of links that lead to each other")
            if found in self.files:
                members[path] = self.files[found]
            elif hard:
                raise self.refused(name, f"is a link to {target!r}, which is not there")
        for path, member in members.items():
            parent = posixpath.dirname(path)
            while parent:
                if parent in members:
                    raise self.refused(member.name, "lies below a member that is a file")
                parent = posixpath.dirname(parent)
        return members


def _index_zip(file: BinaryIO, index: Index) -> None:
    with zipfile.ZipFile(file) as archive:
        found = archive.infolist()
        start_of_directory = archive.start_dir
    taken: list[tuple[int, int, str]] = []
    for info in found:
        index.counted()
        name = info.orig_filename  # zipfile cuts the other one at a NUL
        path = index.path_of(name)
        taken.append((info.header_offset, info.header_offset + _LOCAL_HEADER.size + info.compress_size, name))
        if info.flag_bits & 0x2041:
            raise index.refused(name, "is encrypted")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if name.endswith("/") or kind == stat.S_IFDIR:
            continue
        if kind not in {0, stat.S_IFREG, stat.S_IFLNK}:
            raise index.refused(name, "is a device or the like")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}:
            raise index.refused(name, f"is compressed by method {info.compress_type}; stored, deflate, bzip2 are read")
        raw_name = name.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        try:
            modified = max(0.0, time.mktime((*info.date_time, 0, 0, -1)))
        except (OverflowError, ValueError):
            modified = 0.0
        member = Member(
            name,
            info.file_size,
            modified,
            info.header_offset,
            info.compress_type,
            info.compress_size,
            info.CRC,
            raw_name,
        )
        if kind == stat.S_IFLNK:
            if info.file_size > 4096:  # PATH_MAX
                raise index.refused(name, "is a link of more than 4096 bytes")
            target = b"".join(_zip_contents(index.where, file, member, 0, member.size))
            index.add_link(path, name, target.decode("utf-8", "surrogateescape"), hard=False)
        else:
            index.add(path, member)
    taken.sort()
    for (_, end, name), (following, _, _) in zip(taken, [*taken[1:], (start_of_directory, 0, "")], strict=True):
        if end > following:
            raise index.refused(name, "shares bytes with another, as those of a zip bomb do")


def _zip_contents(where: str, file: BinaryIO, member: Member, start: int, end: int) -> Iterator[bytes]:
    file.seek(member.offset)
    header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if header[0] != b"PK\3\4" or file.read(header[9]) != member.raw_name:
        raise FileError(f"the member {member.name!r} has another name at its place", where=where)
    data = member.offset + _LOCAL_HEADER.size + header[9] + header[10]
    whole = (start, end) == (0, member.size)
    if member.method == zipfile.ZIP_STORED:
        if member.packed != member.size:
            raise _wrong_size(member, where)
        chunks = _at(file, data + start, end - start)
        yield from _checked(chunks, member, where) if whole else chunks
        return
    unpacked = _unpacked(_at(file, data, member.packed), member.method)
    position = 0
    for chunk in _checked(unpacked, member, where):
        first, last = max(0, start - position), end - position
        if first < len(chunk):
            yield chunk[first:last]
        position += len(chunk)
        if position >= end and not whole:
            return


def _unpacked(packed: Iterator[bytes], method: int) -> Iterator[bytes]:
    """Yield what packed chunks hold, at most `CHUNK` bytes at a time."""
    if method == zipfile.ZIP_BZIP2:
        blocks = bz2.BZ2Decompressor()
        for chunk in packed:
            yield blocks.decompress(chunk, CHUNK)
            while not blocks.needs_input and not blocks.eof:
                yield blocks.decompress(b"", CHUNK)
            if blocks.eof:
                return
        return
    deflated = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in packed:
        rest = chunk
        while rest and not deflated.eof:
            yield deflated.decompress(rest, CHUNK)
            rest = deflated.unconsumed_tail
        if deflated.eof:
            return


def _checked(chunks: Iterator[bytes], member: Member, where: str) -> Iterator[bytes]:
    size, checksum = 0, 0
    for chunk in chunks:
        size += len(chunk)
        if size > member.size:
            raise _wrong_size(member, where)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if size != member.size:
        raise _wrong_size(member, where)
    if checksum != member.checksum:
        raise FileError(f"the member {member.name!r} is damaged: its checksum is another", where=where)


def _wrong_size(member: Member, where: str) -> FileError:
    return FileError(f"the member {member.name!r} does not hold the {member.size} bytes that it declares", where=where)


def _at(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes from `start`, or raise where there are fewer."""
    file.seek(start)
    while length:
        chunk = file.read(min(CHUNK, length))
        if not chunk:
            raise EOFError("it ends too early")
        length -= len(chunk)
        yield chunk


class _Headers:
    """What `tarfile` reads headers from: a header that declares an absurd size is not read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)


def _index_tar(file: BinaryIO, index: Index) -> None:
    with tarfile.TarFile(fileobj=cast(BinaryIO, _Headers(file)), mode="r") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out; tarfile would keep them all
            index.counted()
            path = index.path_of(info.name)
            if info.size < 0:  # tarfile would read the same headers for ever
                raise index.refused(info.name, "declares a negative size")
            if info.isdir():
                continue
            if info.issym() or info.islnk():
                index.add_link(path, info.name, info.linkname, hard=info.islnk())
            elif not info.isreg() or info.issparse():
                raise index.refused(info.name, "is a device, a sparse file or the like")
            else:
                index.add(path, Member(info.name, info.size, max(0.0, float(info.mtime)), info.offset_data))
        file.seek(archive.offset)
        if (last := file.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("damaged" if last else "cut off: the block at its end is missing")


def _tar_contents(
    unpack: Callable[[BinaryIO], BinaryIO], file: BinaryIO, member: Member, start: int, end: int
) -> Iterator[bytes]:
    with unpack(file) as plain:
        yield from _at(plain, member.offset + start, end - start)


def _decompressor(head: bytes, where: str) -> Callable[[BinaryIO], BinaryIO]:
    """Return what opens a tar that begins with `head`."""
    if head.startswith(b"\x1f\x8b"):
        return cast(Callable[[BinaryIO], BinaryIO], gzip.open)
    if head.startswith(b"BZh"):
        return cast(Callable[[BinaryIO], BinaryIO], bz2.open)
    if head.startswith(b"\xfd7zXZ\0"):
        return cast(Callable[[BinaryIO], BinaryIO], lzma.open)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            found = require("compression.zstd", extra="", purpose="Zstandard")
        except MissingDependencyError as error:
            raise FileError(
                "this Python reads no Zstandard, which came with 3.14", where=where, mend="repack it as tar or tar.gz"
            ) from error
        return cast(Callable[[BinaryIO], BinaryIO], found.open)
    return lambda file: file


def indexed(file: BinaryIO, index: Index) -> Callable[[BinaryIO, Member, int, int], Iterator[bytes]]:
    """Add the members of an archive to an index; return what yields the bytes [start:end] of one from the open archive."""
    head = file.read(6)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        _index_zip(file, index)
        return partial(_zip_contents, index.where)
    unpack = _decompressor(head, index.where)
    with unpack(file) as plain:
        _index_tar(plain, index)
    return partial(_tar_contents, unpack)


@contextmanager
def explained(what: str, where: str) -> Iterator[None]:
    """Raise `FileError` for all that a damaged or malicious archive makes Python's libraries raise."""
    try:
        yield
    except _UNSOUND as error:
        raise FileError(f"{what}: {str(error) or type(error).__name__}", where=where) from error

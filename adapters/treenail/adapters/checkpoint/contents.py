"""The bytes of a checkpoint's files: hashed in blocks by several threads, and read straight into the memory they are for."""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import accumulate
from types import TracebackType
from typing import Final, Self

from torch import Tensor

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.headers import encode_header
from treenail.contracts import FileEntry
from treenail.contracts.checkpoint import BLOCK_BYTES
from treenail.contracts.files import HasLocalPaths
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

CHUNK_BYTES: Final = 1 << 20
"""Handed to a backend at once; copying it holds the GIL for a tenth of a millisecond."""
_HASHERS: Final = 2  # as fast together as a disk writes; more would take the training's cores
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


def join_digests(blocks: Iterable[bytes]) -> str:
    """Return the digest that a `FileEntry` has of a file whose blocks have these."""
    found = list(blocks)
    return found[0].hex() if len(found) == 1 else sha256(b"".join(found)).hexdigest()


class FileDigest:
    """The digest that a `FileEntry` has, of content that comes in pieces."""

    def __init__(self) -> None:
        self.size = 0
        self._blocks: list[bytes] = []
        self._block = sha256()

    def update(self, piece: bytes) -> None:
        """Add what comes next."""
        rest = memoryview(piece)
        while rest:
            part = rest[: BLOCK_BYTES - self.size % BLOCK_BYTES]
            self._block.update(part)
            self.size += len(part)
            rest = rest[len(part) :]
            if self.size % BLOCK_BYTES == 0:
                self._blocks.append(self._block.digest())
                self._block = sha256()

    def hexdigest(self) -> str:
        """Return the digest of all that came."""
        return join_digests([*self._blocks, self._block.digest()] if self.size % BLOCK_BYTES else self._blocks)


def digest_of(content: bytes) -> str:
    """Return the digest that a `FileEntry` has of a file."""
    found = FileDigest()
    found.update(content)
    return found.hexdigest()


class Content:
    """The bytes of a file of safetensors, as they lie in the memory of its tensors.

    Args:
        header: What stands before the tensors.
        tensors: In their order in the file; on the CPU, contiguous.
    """

    def __init__(self, header: bytes | bytearray, tensors: Iterable[Tensor]) -> None:
        self._tensors = [each for each in tensors if each.nbytes]  # the views below do not keep them
        self._views = [memoryview(header), *map(memory_of, self._tensors)]
        self._starts = [0, *accumulate(map(len, self._views))]
        self.size = self._starts[-1]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Content:
        """Return what a file of these tensors and texts holds."""
        described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        header, order = encode_header(described, metadata)
        return cls(header, [tensors[name] for name in order])

    @property
    def blocks(self) -> range:
        """Where the blocks begin that are hashed each for itself."""
        return range(0, self.size, BLOCK_BYTES)

    def span(self, start: int, length: int) -> Iterator[memoryview]:
        """Yield the memory of a range, piece by piece."""
        end = min(start + length, self.size)
        number = bisect_right(self._starts, start) - 1
        while start < end:
            first, last = self._starts[number], min(end, self._starts[number + 1])
            yield self._views[number][start - first : last - first]
            start = last
            number += 1

    def block_digest(self, start: int) -> bytes:
        """Return the SHA-256 of a block."""
        found = sha256()
        for view in self.span(start, BLOCK_BYTES):
            found.update(view)
        return found.digest()

    def sha256(self) -> str:
        """Return the SHA-256 of all in one, in hexadecimal."""
        found = sha256()
        for view in self.span(0, self.size):
            found.update(view)
        return found.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Yield it all."""
        for start in range(0, self.size, CHUNK_BYTES):
            yield b"".join(self.span(start, CHUNK_BYTES))


def memory_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, not copied; they are good as long as the tensor is kept."""
    # Without numpy, which need not be installed, a tensor gives its memory by address only.
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def write_content(files: FileBackend, directory: str, name: str, content: Content) -> FileEntry:
    """Write a file, durably, and hash it meanwhile; nothing is copied but a chunk at a time.

    Args:
        files: Where to.
        directory: In it; its root when empty.
        name: Of the file, and the path of the entry.
        content: Nobody changes it meanwhile.

    Raises:
        FileError: The backend failed.
    """
    path = f"{directory}/{name}" if directory else name
    with ThreadPoolExecutor(_HASHERS, "treenail-hash") as pool:
        try:
            hashed = [pool.submit(content.block_digest, start) for start in content.blocks]
        except RuntimeError:  # the interpreter is at its end, and starts no threads any more
            files.write(path, content.chunks())
            return FileEntry(
                path=name, size=content.size, sha256=join_digests(map(content.block_digest, content.blocks))
            )
        try:
            files.write(path, content.chunks())
            return FileEntry(path=name, size=content.size, sha256=join_digests(each.result() for each in hashed))
        finally:
            pool.shutdown(cancel_futures=True)


def release_cache(files: FileBackend, path: str) -> None:
    """Let the system use the memory again in which it keeps a file's content; where it lies elsewhere, do nothing.

    The file that is written next gets these very pages, instead of ones that were never touched, which in a virtual machine
    cost several times the writing; and checkpoints crowd nobody else's files out of the memory (posix_fadvise(2)).

    Args:
        files: Where it is.
        path: In it; it may be gone.
    """
    if not isinstance(files, HasLocalPaths) or not hasattr(os, "posix_fadvise"):
        return
    with suppress(FileError, OSError):  # a hint only
        descriptor = os.open(files.local_path(path), _FLAGS)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


class Source:
    """A file that several threads read into memory that is there already; a local one is copied only once.

    Args:
        files: Where it is.
        path: In it.

    Raises:
        CheckpointError: It is missing or unreadable.
    """

    def __init__(self, files: FileBackend, path: str) -> None:
        self._files, self._path = files, path
        self._where = f"{files.uri}/{path}"
        self._descriptor = self._whole = None
        try:
            if isinstance(files, HasLocalPaths) and hasattr(os, "preadv"):
                self._descriptor = os.open(files.local_path(path), _FLAGS)
            elif not files.capabilities.ranges:  # it would read all of it for every range
                self._whole = files.read(path)
        except (FileError, OSError) as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, start: int, into: Sequence[memoryview]) -> None:
        """Fill memory with what begins at a place of the file.

        Raises:
            CheckpointError: It is torn, missing or unreadable.
        """
        try:
            if self._descriptor is None:
                length = sum(map(len, into))
                self._copy(self._whole_or_range(start, length), into)
                return
            for view in into:
                rest = view
                while rest:
                    if not (got := os.preadv(self._descriptor, [rest], start)):
                        raise CheckpointError("the file is torn", where=self._where)
                    start += got
                    rest = rest[got:]
        except (FileError, OSError) as error:
            raise self._failure(error) from error

    def _whole_or_range(self, start: int, length: int) -> memoryview:
        if self._whole is not None:
            return memoryview(self._whole)[start : start + length]
        return memoryview(self._files.read(self._path, start, length))

    def _copy(self, content: memoryview, into: Sequence[memoryview]) -> None:
        if len(content) != sum(map(len, into)):
            raise CheckpointError("the file is torn", where=self._where)
        for view in into:
            for first in range(0, len(view), CHUNK_BYTES):  # the GIL is held for as long as one of them takes
                part = view[first : first + CHUNK_BYTES]
                part[:] = content[: len(part)]
                content = content[len(part) :]

    def _failure(self, error: FileError | OSError) -> CheckpointError:
        if isinstance(error, FileMissingError | FileNotFoundError):
            return CheckpointError("a file of the checkpoint is missing", where=self._where)
        said = error.message if isinstance(error, FileError) else error.strerror or str(error)
        return UnsuitableError(f"a file of the checkpoint is unreadable: {said}", where=self._where)

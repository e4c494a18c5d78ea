"""The file of a state's tensors: hashed while it is written, read and verified in blocks by several threads."""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import torch
from torch import Tensor

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.shard_files import StoredTensor, encode_header, read_entries
from treenail.contracts.checkpoint import BLOCK_BYTES, FileEntry
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

_CHUNK: Final = 1 << 20  # bytes handed to a backend at once; copying them holds the GIL for a tenth of a millisecond
_READERS: Final = min(4, os.cpu_count() or 1)


class Written(NamedTuple):
    """A file that was written.

    Args:
        size: Bytes.
        sha256: Hexadecimal digest of the whole.
        blocks: Hexadecimal digests of each `BLOCK_BYTES`.
    """

    size: int
    sha256: str
    blocks: tuple[str, ...]


def write_state(files: FileBackend, path: str, tensors: Mapping[str, Tensor]) -> Written:
    """Write tensors as a file of safetensors, durably; nothing is copied but a chunk at a time.

    Args:
        files: Where to.
        path: In it.
        tensors: On the CPU, contiguous; nobody changes them meanwhile.

    Raises:
        FileError: The backend failed.
    """
    content = Content(tensors)
    starts = range(0, content.size, BLOCK_BYTES)
    with ThreadPoolExecutor(2, "treenail-hash") as pool:
        try:
            whole = pool.submit(content.digest)
            blocks = [pool.submit(content.digest, start, BLOCK_BYTES) for start in starts]
        except RuntimeError:  # the interpreter is at its end, and starts no threads any more
            files.write(path, content.chunks())
            return Written(content.size, content.digest(), tuple(content.digest(each, BLOCK_BYTES) for each in starts))
        try:
            files.write(path, content.chunks())
            return Written(content.size, whole.result(), tuple(each.result() for each in blocks))
        finally:
            pool.shutdown(cancel_futures=True)


class Content:
    """The bytes of a file of safetensors, as they lie in the memory of its tensors.

    Args:
        tensors: On the CPU, contiguous.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        header, order = encode_header(described, {"format": "pt"})
        self._tensors = [tensors[name] for name in order if tensors[name].nbytes]  # the views below do not keep them
        self._views = [memoryview(header), *map(_bytes_of, self._tensors)]
        self._starts = [0, *accumulate(map(len, self._views))]
        self.size = self._starts[-1]

    def digest(self, start: int = 0, length: int | None = None) -> str:
        """Return the SHA-256 of a range, of all when None, in hexadecimal."""
        found = sha256()
        for view in self._span(start, self.size if length is None else length):
            found.update(view)
        return found.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Yield it all."""
        for start in range(0, self.size, _CHUNK):
            yield b"".join(self._span(start, _CHUNK))

    def _span(self, start: int, length: int) -> Iterator[memoryview]:
        end = min(start + length, self.size)
        number = bisect_right(self._starts, start) - 1
        while start < end:
            first, last = self._starts[number], min(end, self._starts[number + 1])
            yield self._views[number][start - first : last - first]
            start = last
            number += 1


def _bytes_of(tensor: Tensor) -> memoryview:
    # Without numpy, which need not be installed, a tensor gives its memory by address only.
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def read_state(files: FileBackend, path: str, entry: FileEntry, blocks: Sequence[str]) -> dict[str, Tensor]:
    """Read and verify the tensors that `write_state` wrote, each into memory of its own.

    Args:
        files: Where from.
        path: In it.
        entry: What the manifest says of the file.
        blocks: Digests of each `BLOCK_BYTES`; without them the file is verified as a whole.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    where = f"{files.uri}/{path}"
    try:
        size = files.stat(path).size
    except FileMissingError:
        raise CheckpointError("a file of the checkpoint is missing", where=where) from None
    except FileError as error:
        raise UnsuitableError(f"a file of the checkpoint is unreadable: {error.message}", where=where) from error
    if size != entry.size:
        raise CheckpointError(f"the file has {size} bytes, its manifest says {entry.size}", where=where)
    stored, _ = read_entries(files, path)
    tensors = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in stored.items()}
    target = _Target(stored, tensors)
    length = BLOCK_BYTES if blocks else max(1, size)
    digests = list(blocks) or [entry.sha256]
    if len(digests) != -(-size // length):
        raise CheckpointError(f"the manifest has {len(digests)} digests for {size} bytes", where=where)
    try:
        # A store that cannot read ranges would read all of it for every block.
        whole = None if files.capabilities.ranges or not blocks else files.read(path)
        fill = partial(_fill, files, path, target, length, digests, whole)
        with ThreadPoolExecutor(_READERS, "treenail-read") as pool:
            list(pool.map(fill, range(len(digests))))
    except FileError as error:
        raise UnsuitableError(f"a file of the checkpoint is unreadable: {error.message}", where=where) from error
    return tensors


def _fill(
    files: FileBackend,
    path: str,
    target: _Target,
    length: int,
    digests: Sequence[str],
    whole: bytes | None,
    number: int,
) -> None:
    start = number * length
    # A disk gives small pieces, which stay in the cache; each request to a server takes its time.
    step = _CHUNK if files.capabilities.local else length
    digest = sha256()
    for first in range(start, start + length, step):
        content = files.read(path, first, step) if whole is None else whole[first : first + step]
        digest.update(content)
        target.put(first, content)
        if len(content) < step:
            break
    if digest.hexdigest() != digests[number]:
        raise CheckpointError("the file's checksum is not that of its manifest", where=f"{files.uri}/{path}")


class _Target:
    """Where the bytes of a file go."""

    def __init__(self, stored: Mapping[str, StoredTensor], tensors: Mapping[str, Tensor]) -> None:
        ordered = sorted((each.start, each.start + each.size, name) for name, each in stored.items() if each.size)
        self._ranges = [(start, end, tensors[name].data_ptr()) for start, end, name in ordered]
        self._starts = [start for start, _, _ in ordered]
        for before, after in pairwise(ordered):
            if before[1] > after[0]:
                raise CheckpointError(f"the tensors '{before[2]}' and '{after[2]}' overlap in their file")

    def put(self, start: int, content: bytes) -> None:
        """Copy what lies at a place of the file to the tensors that it is of."""
        end = start + len(content)
        # By address: torch refuses to read memory that it may not change. The stubs know no bytes, ctypes does.
        source = ctypes.cast(content, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
        for first, last, address in self._ranges[max(0, bisect_right(self._starts, start) - 1) :]:
            if first >= end:
                break
            begin, until = max(first, start), min(last, end)
            if begin < until:
                ctypes.memmove(address + begin - first, source + begin - start, until - begin)

"""Safetensors files written and read one tensor at a time, with what a shard says of the whole it is part of.

A shard's header holds in its ``__metadata__``, besides our own ``treenail_shard``, the offsets as
`torch.distributed.checkpoint.HuggingFaceStorageReader` looks for them, so that torch reads our shards as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from treenail.adapters.checkpoint.contents import CHUNK_BYTES, Content, FileDigest, Source, memory_of, write_content
from treenail.adapters.checkpoint.headers import StoredTensor, encode_header, read_entries
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, FileBackend, FileError

_SHARD, _OFFSETS = "treenail_shard", "DCP_SHARDING_INFO"
_HASHERS: Final = 2  # more would take the training's cores

_Size = Annotated[int, Meta(ge=0)]


class Chunk(NamedTuple):
    """A part of a tensor, as it is stored.

    Args:
        tensor: On the CPU, contiguous; of a complex tensor, with real and imaginary part as last dimension.
        offsets: Where it begins in the whole, in each of its dimensions.
        shape: Of the whole.
        is_complex: Whether the whole is complex.
    """

    tensor: Tensor
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    is_complex: bool


class ChunkInfo(Struct, frozen=True):
    """What a shard's header says of a chunk: as in `Chunk`, and the digest of its bytes."""

    shape: tuple[_Size, ...]
    offsets: tuple[_Size, ...]
    is_complex: bool
    sha256: str


class ShardInfo(Struct, frozen=True):
    """What a shard's header says of the whole."""

    version: int
    rank: _Size
    world_size: Annotated[int, Meta(ge=1)]
    chunks: dict[str, ChunkInfo]


class Deferred(NamedTuple):
    """A tensor that is read when it is needed."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


VERSION = 1


def write_shard(
    files: FileBackend, directory: str, name: str, chunks: Mapping[str, Chunk], rank: int, world_size: int
) -> FileEntry:
    """Write a rank's chunks, durably; the entry's path is the name.

    Raises:
        CheckpointError: The backend failed.
    """
    with ThreadPoolExecutor(_HASHERS, "treenail-hash") as pool:
        try:
            digests = list(pool.map(_digest, [chunk.tensor for chunk in chunks.values()]))
        except RuntimeError:  # the interpreter is at its end, and starts no threads any more
            digests = [_digest(chunk.tensor) for chunk in chunks.values()]
    info = ShardInfo(
        version=VERSION,
        rank=rank,
        world_size=world_size,
        chunks={
            key: ChunkInfo(shape=chunk.shape, offsets=chunk.offsets, is_complex=chunk.is_complex, sha256=digest)
            for (key, chunk), digest in zip(chunks.items(), digests, strict=True)
        },
    )
    tail = {True: [0], False: []}  # the dimension of real and imaginary part
    offsets = {key: {"saved_offsets": [*chunk.offsets, *tail[chunk.is_complex]]} for key, chunk in chunks.items()}
    metadata = {
        "format": "pt",
        _SHARD: msgspec.json.encode(info).decode(),
        _OFFSETS: msgspec.json.encode(offsets).decode(),
    }
    content = Content.of({key: chunk.tensor for key, chunk in chunks.items()}, metadata)
    try:
        return write_content(files, directory, name, content)
    except FileError as error:
        raise _failure(error) from error


def write_tensors(
    files: FileBackend,
    directory: str,
    name: str,
    metadata: Mapping[str, str],
    tensors: Mapping[str, Deferred],
) -> FileEntry:
    """Write a file of safetensors, durably; of the tensors, one at a time is read.

    Args:
        files: Where to.
        directory: In it.
        name: Of the file.
        metadata: Texts for the header.
        tensors: On the CPU, contiguous.

    Raises:
        CheckpointError: The backend failed.
    """
    header, order = encode_header({key: each[:2] for key, each in tensors.items()}, metadata)
    digest = FileDigest()

    def content() -> Iterator[bytes]:
        digest.update(header)
        yield header
        for key in order:
            for piece in _pieces(tensors[key].read()):
                digest.update(piece)
                yield piece

    try:
        files.write(f"{directory}/{name}" if directory else name, content())
    except FileError as error:
        raise _failure(error) from error
    return FileEntry(path=name, size=digest.size, sha256=digest.hexdigest())


def _failure(error: FileError) -> CheckpointError:
    return CheckpointError(
        f"a file of the checkpoint could not be written: {error.message}",
        where=error.where,
        mend="make room, or choose another place",
    )


def deferred(tensor: Tensor) -> Deferred:
    """Return a tensor that is there already as one that is read later."""
    return Deferred(tensor.dtype, tuple(tensor.shape), lambda: tensor)


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    memory = memory_of(tensor) if tensor.nbytes else memoryview(b"")
    for start in range(0, len(memory), CHUNK_BYTES):
        yield bytes(memory[start : start + CHUNK_BYTES])


def _digest(tensor: Tensor) -> str:
    return sha256(memory_of(tensor) if tensor.nbytes else b"").hexdigest()


def read_header(files: FileBackend, path: str) -> tuple[ShardInfo, dict[str, StoredTensor]]:
    """Read what a shard holds, and where.

    Raises:
        CheckpointError: It is missing, torn or no shard of ours.
    """
    where = f"{files.uri}/{path}"
    stored, metadata = read_entries(files, path)
    try:
        info = msgspec.json.decode(metadata[_SHARD], type=ShardInfo)
    except (msgspec.DecodeError, KeyError) as error:
        raise CheckpointError(f"the shard's header is torn or not ours: {error!r}", where=where) from error
    if info.version != VERSION:
        raise CheckpointError(f"the shard has version {info.version}, this Treenail reads {VERSION}", where=where)
    for key in info.chunks.keys() | stored.keys():
        if key not in stored or key not in info.chunks or not _fits(info.chunks[key], stored[key]):
            raise CheckpointError(f"the shard's header contradicts itself about '{key}'", where=where)
    return info, stored


def _fits(chunk: ChunkInfo, stored: StoredTensor) -> bool:
    sizes = stored.shape[:-1] if chunk.is_complex else stored.shape
    return len(sizes) == len(chunk.shape) == len(chunk.offsets) and all(
        offset + size <= whole for offset, size, whole in zip(chunk.offsets, sizes, chunk.shape, strict=True)
    )


def read_chunk(files: FileBackend, stored: StoredTensor, info: ChunkInfo, name: str) -> Tensor:
    """Read a chunk and compare it with its digest; complex if the whole is.

    Raises:
        CheckpointError: It is torn or damaged.
    """
    tensor = torch.empty(stored.shape, dtype=stored.dtype)
    if stored.size:
        with Source(files, stored.path) as source:
            source.read(stored.start, [memory_of(tensor)])
    if _digest(tensor) != info.sha256:
        where = f"{files.uri}/{stored.path}"
        raise CheckpointError(f"the shard is damaged: the checksum of '{name}' is not that of its header", where=where)
    return torch.view_as_complex(tensor) if info.is_complex else tensor

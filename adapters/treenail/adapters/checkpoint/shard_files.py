"""Safetensors files written and read one tensor at a time, with what a shard says of the whole it is part of.

A header of JSON, then the tensors' bytes; source: https://huggingface.co/docs/safetensors/index#format. A shard's
header holds in its ``__metadata__``, besides our own ``treenail_shard``, the offsets as
`torch.distributed.checkpoint.HuggingFaceStorageReader` looks for them, so that torch reads our shards as well.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

_BLOCK = 1 << 20  # bytes handed to a backend at once; copying them holds the GIL
_LARGEST_HEADER = 1 << 30  # of a file that is none, any eight bytes would be a size
_METADATA, _SHARD, _OFFSETS = "__metadata__", "treenail_shard", "DCP_SHARDING_INFO"
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

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


class StoredTensor(NamedTuple):
    """Where the bytes of a tensor lie in a file."""

    path: str
    start: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Deferred(NamedTuple):
    """A tensor that is read when it is needed."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


class _Entry(Struct, frozen=True):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


VERSION = 1


def write_shard(
    files: FileBackend, directory: str, name: str, chunks: Mapping[str, Chunk], rank: int, world_size: int
) -> FileEntry:
    """Write a rank's chunks, durably; the entry's path is the name.

    Raises:
        CheckpointError: The backend failed.
    """
    info = ShardInfo(
        version=VERSION,
        rank=rank,
        world_size=world_size,
        chunks={
            key: ChunkInfo(
                shape=chunk.shape,
                offsets=chunk.offsets,
                is_complex=chunk.is_complex,
                sha256=_digest(chunk.tensor),
            )
            for key, chunk in chunks.items()
        },
    )
    tail = {True: [0], False: []}  # the dimension of real and imaginary part
    offsets = {key: {"saved_offsets": [*chunk.offsets, *tail[chunk.is_complex]]} for key, chunk in chunks.items()}
    metadata = {
        "format": "pt",
        _SHARD: msgspec.json.encode(info).decode(),
        _OFFSETS: msgspec.json.encode(offsets).decode(),
    }
    return write_tensors(
        files, directory, name, metadata, {key: deferred(chunk.tensor) for key, chunk in chunks.items()}
    )


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
    encoded, order = encode_header({key: each[:2] for key, each in tensors.items()}, metadata)
    digest, size = sha256(), 0

    def content() -> Iterator[bytes]:
        nonlocal size
        for block in _content(encoded, order, tensors):
            digest.update(block)
            size += len(block)
            yield block

    path = f"{directory}/{name}" if directory else name
    try:
        files.write(path, content())
    except FileError as error:
        raise CheckpointError(
            f"a file of the checkpoint could not be written: {error.message}",
            where=error.where,
            mend="make room, or choose another place",
        ) from error
    return FileEntry(path=name, size=size, sha256=digest.hexdigest())


def encode_header(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Return what stands before the tensors in a file of safetensors, its own length included, and their order.

    Args:
        tensors: Dtypes and shapes.
        metadata: Texts.
    """
    # So that each lies at a multiple of its size.
    order = sorted(tensors, key=lambda key: (-tensors[key][0].itemsize, key))
    header: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for key in order:
        dtype, shape = tensors[key]
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[key] = _Entry(dtype=_NAMES[dtype], shape=shape, data_offsets=(start, end))
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded, order


def _content(header: bytes, order: list[str], tensors: Mapping[str, Deferred]) -> Iterator[bytes]:
    yield header
    for key in order:
        yield from _blocks(tensors[key].read())


def deferred(tensor: Tensor) -> Deferred:
    """Return a tensor that is there already as one that is read later."""
    return Deferred(tensor.dtype, tuple(tensor.shape), lambda: tensor)


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    # A tensor gives its bytes through numpy only, which need not be installed, or by their address.
    for start in range(0, tensor.nbytes, _BLOCK):
        yield ctypes.string_at(tensor.data_ptr() + start, min(_BLOCK, tensor.nbytes - start))


def _digest(tensor: Tensor) -> str:
    digest = sha256()
    for block in _blocks(tensor):
        digest.update(block)
    return digest.hexdigest()


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


def read_entries(files: FileBackend, path: str) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read which tensors a file of safetensors holds, and where, and the texts of its header.

    Raises:
        CheckpointError: It is missing or torn.
    """
    where = f"{files.uri}/{path}"
    first = _read(files, path, 0, 8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > _LARGEST_HEADER:
        raise CheckpointError("the file is torn: it has no header", where=where)
    encoded = _read(files, path, 8, length)
    try:
        header = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(header.pop(_METADATA, b"{}"), type=dict[str, str])
        entries = {key: msgspec.json.decode(raw, type=_Entry) for key, raw in header.items()}
        stored = {key: _stored(path, 8 + length, entry) for key, entry in entries.items()}
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the file's header is torn or not ours: {error!r}", where=where) from error
    size = _size(files, path)
    for key, found in sorted(stored.items(), key=lambda item: item[1].start):
        if found.start + found.size > size:
            there = max(0, size - found.start)
            raise CheckpointError(f"the file is torn: of '{key}' {there} of {found.size} bytes are there", where=where)
    return stored, metadata


def _stored(path: str, base: int, entry: _Entry) -> StoredTensor:
    start, end = entry.data_offsets
    dtype = _DTYPES[entry.dtype]
    if end - start != dtype.itemsize * math.prod(entry.shape):
        raise ValueError(f"{end - start} bytes for a {dtype} of shape {entry.shape}")
    return StoredTensor(path, base + start, end - start, dtype, entry.shape)


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
    content = _read(files, stored.path, stored.start, stored.size)
    where = f"{files.uri}/{stored.path}"
    if sha256(content).hexdigest() != info.sha256:
        raise CheckpointError(f"the shard is damaged: the checksum of '{name}' is not that of its header", where=where)
    if not content:
        tensor = torch.empty(stored.shape, dtype=stored.dtype)
    else:
        tensor = torch.frombuffer(bytearray(content), dtype=stored.dtype).view(stored.shape)
    return torch.view_as_complex(tensor) if info.is_complex else tensor


def _size(files: FileBackend, path: str) -> int:
    try:
        return files.stat(path).size
    except FileMissingError as error:
        raise CheckpointError(f"a file of the checkpoint is missing: {error.message}", where=error.where) from error
    except FileError as error:
        raise UnsuitableError(f"a shard is unreadable: {error.message}", where=error.where) from error


def _read(files: FileBackend, path: str, start: int, length: int) -> bytes:
    try:
        return files.read(path, start, length)
    except FileMissingError as error:
        raise CheckpointError(f"a file of the checkpoint is missing: {error.message}", where=error.where) from error
    except FileError as error:
        raise UnsuitableError(f"a shard is unreadable: {error.message}", where=error.where) from error

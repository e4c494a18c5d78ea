"""The header of a file of safetensors: which tensors lie in it, and where.

Source: https://huggingface.co/docs/safetensors/index#format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta, Struct

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

_LARGEST_HEADER = 1 << 30  # of a file that is none, any eight bytes would be a size
_METADATA = "__metadata__"
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


class StoredTensor(NamedTuple):
    """Where the bytes of a tensor lie in a file."""

    path: str
    start: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class _Entry(Struct, frozen=True):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


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


def read_entries(files: FileBackend, path: str) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read which tensors a file of safetensors holds, and where, and the texts of its header.

    Raises:
        CheckpointError: It is missing or torn.
    """
    where = f"{files.uri}/{path}"
    first = read_range(files, path, 0, 8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > _LARGEST_HEADER:
        raise CheckpointError("the file is torn: it has no header", where=where)
    encoded = read_range(files, path, 8, length)
    try:
        header = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(header.pop(_METADATA, b"{}"), type=dict[str, str])
        entries = {key: msgspec.json.decode(raw, type=_Entry) for key, raw in header.items()}
        stored = {key: _stored(path, 8 + length, entry) for key, entry in entries.items()}
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the file's header is torn or not ours: {error!r}", where=where) from error
    size = file_size(files, path)
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


def file_size(files: FileBackend, path: str) -> int:
    """Return the bytes of a file.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    try:
        return files.stat(path).size
    except FileMissingError as error:
        raise CheckpointError(f"a file of the checkpoint is missing: {error.message}", where=error.where) from error
    except FileError as error:
        raise UnsuitableError(f"a file of the checkpoint is unreadable: {error.message}", where=error.where) from error


def read_range(files: FileBackend, path: str, start: int, length: int) -> bytes:
    """Read a range of a file.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    try:
        return files.read(path, start, length)
    except FileMissingError as error:
        raise CheckpointError(f"a file of the checkpoint is missing: {error.message}", where=error.where) from error
    except FileError as error:
        raise UnsuitableError(f"a file of the checkpoint is unreadable: {error.message}", where=error.where) from error

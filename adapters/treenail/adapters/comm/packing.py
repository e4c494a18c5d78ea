"""Values as bytes: columns of equal things lie together, tensors as they are in memory.

Values are described column by column: of a thousand dicts with equal keys, the values of one key are one column, and a
column of tensors of one dtype is one stretch of memory. What msgpack keeps exactly travels as msgpack (numbers of 64
bits, strings, bytes, None) with the shape of lists, tuples and dicts around it; tensors and arrays travel as their memory;
everything else, for instance a set, a dataclass or a subclass of int, is pickled, with the tensors in it taken out.
Unpickling runs code: ranks of one run trust each other, which files and strangers are not to be.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import chain
from math import prod
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec
import torch
from torch import Tensor

from treenail.kernel import CommunicationError

if TYPE_CHECKING:
    from typing import Any

    # What stands in a node depends on its first item, which says what it is; see the functions that read them.
    Node: TypeAlias = list[Any]


class What(IntEnum):
    """What a description of a column begins with, and what follows."""

    PLAIN = 0  # the values
    TENSORS = 1  # dtype, [number of tensors, *their shape]
    ROWS = 2  # dtype, sizes of their first dimensions, the other dimensions
    SHAPES = 3  # dtype, their shapes
    ARRAYS = 4  # numpy's name of the dtype, their shapes
    SCALARS = 5  # numpy's name of the dtype, their number
    DICTS = 6  # the keys of all of them, a column for each key
    MAPS = 7  # their lengths, the column of all keys, that of all values
    TUPLES = 8  # a column for each place
    RUNS = 9  # whether they are tuples, else lists; their lengths, the column of all items
    MIXED = 10  # for each value the number of its column, the columns
    PICKLED = 11  # the pickle, the column of the tensors in it


_MSGPACK_KINDS = frozenset({type(None), bool, int, float, str, bytes})
_ALIGNMENT = 16  # bytes: the largest element, complex128
_DEEPEST = 64  # levels of nesting; what is deeper, or has no end, is pickled
LENGTH = 8
"""Bytes of the number that says how long the document is."""


class _Buffer(NamedTuple):
    """Tensors of one dtype that will lie one behind the other: stacked, or concatenated, into a tensor of a shape."""

    parts: Sequence[Tensor]
    stacked: bool
    shape: Sequence[int]
    nbytes: int

    @classmethod
    def of(cls, parts: Sequence[Tensor], shape: Sequence[int], *, stacked: bool = False) -> _Buffer:
        return cls(parts, stacked, shape, prod(shape) * parts[0].element_size())

    def write(self, memory: Tensor) -> None:
        """Copy the tensors to memory, uint8[nbytes]."""
        if not self.nbytes:
            return
        target = memory.view(self.parts[0].dtype).view(self.shape)
        with torch.no_grad():
            if len(self.parts) == 1:
                target.copy_(self.parts[0].view(self.shape) if self.stacked else self.parts[0])
                return
            devices = set(map(attrgetter("device"), self.parts))
            parts = list(self.parts) if len(devices) == 1 else [part.cpu() for part in self.parts]
            one = torch.stack if self.stacked else torch.cat
            if devices == {memory.device}:
                one(parts, out=target)  # one copy, from where they are
            else:
                target.copy_(one(parts))


class _TooDeepError(Exception):
    """Nesting goes on for more levels than are described, perhaps since a list holds itself."""


class Packed(NamedTuple):
    """A column of values, described; the tensors in it are copied when it is packed.

    Args:
        document: The description in msgpack.
        buffers: The memory that it speaks of, in its order.
    """

    document: bytes
    buffers: list[_Buffer]

    @property
    def nbytes(self) -> int:
        """About how many bytes it is, packed."""
        return len(self.document) + sum(buffer.nbytes for buffer in self.buffers)


def describe(values: Sequence[object]) -> Packed:
    """Describe a column of values.

    Args:
        values: Anything. Tensors keep dtype and shape, but neither device nor gradient: they arrive on the CPU, or where
            `unpack` is told to put them.

    Raises:
        CommunicationError: A value cannot be pickled; the message names its type.
    """
    buffers: list[_Buffer] = []
    try:
        node = _describe(values, buffers, 0)
    except _TooDeepError:
        buffers.clear()
        node = _describe_pickled(values, buffers)
    return Packed(msgspec.msgpack.encode(node), buffers)


def pack(columns: Sequence[Packed]) -> Tensor:
    """Return described columns as uint8[bytes] on the CPU; its length is a multiple of 16."""
    document = msgspec.msgpack.encode([msgspec.Raw(column.document) for column in columns])
    buffers = [buffer for column in columns for buffer in column.buffers]
    start = aligned(LENGTH + len(document))
    result = torch.empty(start + sum(aligned(buffer.nbytes) for buffer in buffers), dtype=torch.uint8, device="cpu")
    head = bytearray(len(document).to_bytes(LENGTH, "little") + document)
    result[: len(head)] = torch.frombuffer(head, dtype=torch.uint8)
    for buffer in buffers:
        buffer.write(result[start : start + buffer.nbytes])
        start += aligned(buffer.nbytes)
    return result


def aligned(nbytes: int) -> int:
    """Return at which multiple of 16, the largest element, what comes after so many bytes begins."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _numpy() -> ModuleType | None:
    """Return numpy if anyone has imported it: without it there are no arrays to send."""
    return sys.modules.get("numpy")


# Describing ----------------------------------------------------------------------------------------------------------


def _describe(values: Sequence[object], buffers: list[_Buffer], depth: int) -> Node:
    kinds = set(map(type, values))
    if kinds <= _MSGPACK_KINDS:
        return _described_plain(values) or _describe_pickled(values, buffers)
    if len(kinds) > 1:
        return _describe_mixed(values, type, buffers, depth)
    (kind,) = kinds
    if kind is Tensor:
        return _describe_tensors(values, buffers, depth)  # type: ignore[arg-type]  # all of them are tensors
    if kind is dict or kind is list or kind is tuple:
        if depth == _DEEPEST:
            raise _TooDeepError
        if len(set(map(id, values))) < len(values):  # one thing several times, which it shall be at the other end, too
            return _describe_pickled(values, buffers)
        describe_containers = _describe_dicts if kind is dict else _describe_runs
        return describe_containers(values, buffers, depth)  # type: ignore[arg-type]  # all of them are such
    numpy = _numpy()
    if numpy is not None and (kind is numpy.ndarray or issubclass(kind, numpy.generic)):
        return _describe_arrays(values, buffers, numpy, depth)
    return _describe_pickled(values, buffers)


def _described_plain(values: Sequence[object]) -> Node | None:
    """Describe values of kinds that msgpack keeps; None where one of them is out of its range."""
    try:
        return [What.PLAIN, msgspec.Raw(msgspec.msgpack.encode(values))]
    except (OverflowError, UnicodeError):  # an int of more than 64 bits, a lone surrogate
        return None


def _describe_mixed(
    values: Sequence[object], key: Callable[[object], object], buffers: list[_Buffer], depth: int
) -> Node:
    """Describe values of several kinds: a column of each, and for each value the number of its column."""
    numbers: dict[object, int] = {}
    columns: list[list[object]] = []
    places = []
    for value in values:
        number = numbers.setdefault(key(value), len(columns))
        if number == len(columns):
            columns.append([])
        columns[number].append(value)
        places.append(number)
    # One level only: values of one kind are never split by this kind again, so depth is that of containers.
    return [What.MIXED, places, [_describe(column, buffers, depth) for column in columns]]


def _describe_tensors(tensors: Sequence[Tensor], buffers: list[_Buffer], depth: int) -> Node:
    if not all(map(_is_raw, tensors)) or len(set(map(attrgetter("dtype"), tensors))) > 1:
        if len(tensors) == 1:
            return _describe_pickled(tensors, buffers)
        return _describe_mixed(tensors, lambda tensor: tensor.dtype if _is_raw(tensor) else id(tensor), buffers, depth)  # type: ignore[attr-defined,arg-type]  # all of them are tensors
    first = tensors[0]
    dtype = str(first.dtype).removeprefix("torch.")
    shapes = set(map(attrgetter("shape"), tensors))
    if len(shapes) == 1:
        shape = (len(tensors), *first.shape)
        buffers.append(_Buffer.of(tensors, shape, stacked=True))
        return [What.TENSORS, dtype, shape]
    if first.dim() and len({shape[1:] if shape else None for shape in shapes}) == 1:
        rows, trailing = [tensor.shape[0] for tensor in tensors], first.shape[1:]
        buffers.append(_Buffer.of(tensors, (sum(rows), *trailing)))
        return [What.ROWS, dtype, rows, tuple(trailing)]
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    buffers.append(_Buffer.of(flat, (sum(map(len, flat)),)))
    return [What.SHAPES, dtype, [tuple(tensor.shape) for tensor in tensors]]


def _is_raw(tensor: Tensor) -> bool:
    """Tell whether a tensor's elements are all there is to it."""
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized


def _describe_dicts(dicts: Sequence[dict[object, object]], buffers: list[_Buffer], depth: int) -> Node:
    kinds = set(map(type, chain.from_iterable(dicts)))
    inner = set(map(type, chain.from_iterable(map(dict.values, dicts))))
    if kinds <= {str} and inner <= _MSGPACK_KINDS and (plain := _described_plain(dicts)):
        return plain
    if kinds == {str} and len(dicts) > 1 and len(set(map(tuple, dicts))) == 1:
        columns = zip(*map(dict.values, dicts), strict=True)
        return [What.DICTS, list(dicts[0]), [_describe(column, buffers, depth + 1) for column in columns]]
    keys = [key for each in dicts for key in each]
    values = [value for each in dicts for value in each.values()]
    return [
        What.MAPS,
        list(map(len, dicts)),
        _describe(keys, buffers, depth + 1),
        _describe(values, buffers, depth + 1),
    ]


def _describe_runs(
    runs: Sequence[list[object]] | Sequence[tuple[object, ...]], buffers: list[_Buffer], depth: int
) -> Node:
    is_tuple = type(runs[0]) is tuple
    inner = set(map(type, chain.from_iterable(runs)))
    if not is_tuple and inner <= _MSGPACK_KINDS and (plain := _described_plain(runs)):
        return plain
    lengths = list(map(len, runs))
    if is_tuple and len(runs) > 1 and lengths[0] and len(set(lengths)) == 1:
        return [What.TUPLES, [_describe(column, buffers, depth + 1) for column in zip(*runs, strict=True)]]
    return [What.RUNS, is_tuple, lengths, _describe(list(chain.from_iterable(runs)), buffers, depth + 1)]


def _describe_arrays(values: Sequence[object], buffers: list[_Buffer], numpy: ModuleType, depth: int) -> Node:
    arrays: Any = values  # arrays or scalars of numpy, an extra whose types need not be there
    dtypes = {array.dtype for array in arrays}
    if any(dtype.kind not in "biufc" for dtype in dtypes):
        return _describe_pickled(values, buffers)
    if len(dtypes) > 1:
        return _describe_mixed(values, lambda array: array.dtype, buffers, depth)  # type: ignore[attr-defined]  # as above
    (dtype,) = dtypes
    flat = [numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8) for array in arrays]
    whole = flat[0] if len(flat) == 1 else numpy.concatenate(flat)
    content = torch.frombuffer(bytearray(whole.data), dtype=torch.uint8) if whole.nbytes else torch.empty(0).byte()
    buffers.append(_Buffer.of([content], content.shape))
    name = dtype.char if dtype.isnative else dtype.byteorder + dtype.char
    if isinstance(values[0], numpy.ndarray):
        return [What.ARRAYS, name, [list(array.shape) for array in arrays]]
    return [What.SCALARS, name, len(values)]


def tensor_at(place: int) -> Tensor:
    """Stand for a tensor in a pickle; `unpack` puts what it has in its place."""
    raise AssertionError(f"tensor {place} is not in this pickle")


class _Pickler(pickle.Pickler):
    """Pickles all but plain tensors, which are kept aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Tensor] = []

    def reducer_override(self, obj: object) -> Any:
        if type(obj) is not Tensor or not _is_raw(obj):
            return NotImplemented
        self.tensors.append(obj)
        return tensor_at, (len(self.tensors) - 1,)


def _pickled(value: object) -> tuple[bytes, list[Tensor]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.tensors


def _describe_pickled(values: Sequence[object], buffers: list[_Buffer]) -> Node:
    try:
        content, tensors = _pickled(list(values))
    except Exception:
        for value in values:  # which one was it?
            try:
                _pickled(value)
            except Exception as error:
                kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
                raise CommunicationError(
                    f"an object of type {kind} cannot be sent: {type(error).__name__}: {error}",
                    mend="send the data in it, or give it __getstate__",
                ) from error
        raise
    return [What.PICKLED, content, _describe(tensors, buffers, 0)]

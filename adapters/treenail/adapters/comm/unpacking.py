"""What `treenail.adapters.comm.packing` made bytes of, as values again."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor

from treenail.adapters.comm.packing import LENGTH, What, aligned, tensor_at
from treenail.kernel import CommunicationError, require

if TYPE_CHECKING:
    from typing import Any

    from treenail.adapters.comm.packing import Node


def unpack(packed: Tensor, device: torch.device | str = "cpu") -> list[list[object]]:
    """Return the columns that `pack` made uint8[bytes] of.

    Args:
        packed: The bytes. The tensors of the result are views of them where they lie on the device already.
        device: Where the tensors shall be.

    Raises:
        CommunicationError: Something cannot be rebuilt, for instance since its class is not known here.
    """
    try:
        length = int.from_bytes(to_bytes(packed[:LENGTH]), "little")
        document = to_bytes(packed[LENGTH : LENGTH + length])
        memory = _Memory(packed[aligned(LENGTH + length) :].to(device))
        return [_READERS[node[0]](node, memory) for node in msgspec.msgpack.decode(document)]
    except CommunicationError:
        raise
    except Exception as error:
        raise CommunicationError(
            f"what another rank sent cannot be rebuilt: {type(error).__name__}: {error}",
            mend="classes of objects must be importable on every rank",
        ) from error


def to_bytes(tensor: Tensor) -> bytearray:
    """Return a copy of the content of uint8[bytes]."""
    content = bytearray(len(tensor))
    if content:
        torch.frombuffer(content, dtype=torch.uint8).copy_(tensor)
    return content


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[object]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (tensor_at.__module__, tensor_at.__name__):
            return self._tensors.__getitem__
        return super().find_class(module, name)


class _Memory:
    """The buffers of a description, to be taken in its order."""

    def __init__(self, content: Tensor) -> None:
        self._content = content
        self._start = 0

    def take(self, nbytes: int) -> Tensor:
        """Return the next buffer, uint8[nbytes]."""
        start, self._start = self._start, self._start + aligned(nbytes)
        return self._content[start : start + nbytes]

    def take_tensor(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return the next buffer as a tensor."""
        dtype: torch.dtype = getattr(torch, name)
        return self.take(prod(shape) * dtype.itemsize).view(dtype).view(shape)


def _read(node: Node, memory: _Memory) -> list[object]:
    return _READERS[node[0]](node, memory)


def _read_plain(node: Node, memory: _Memory) -> list[object]:
    values: list[object] = node[1]
    return values


def _read_tensors(node: Node, memory: _Memory) -> list[object]:
    _, dtype, shape = node
    return list(memory.take_tensor(dtype, shape).unbind(0))


def _read_rows(node: Node, memory: _Memory) -> list[object]:
    _, dtype, rows, shape = node
    return list(memory.take_tensor(dtype, (sum(rows), *shape)).split_with_sizes(rows))


def _read_shapes(node: Node, memory: _Memory) -> list[object]:
    _, dtype, shapes = node
    sizes = list(map(prod, shapes))
    flat = memory.take_tensor(dtype, (sum(sizes),)).split_with_sizes(sizes)
    return [part.view(shape) for part, shape in zip(flat, shapes, strict=True)]


def _numpy_content(memory: _Memory, dtype: str, count: int) -> Any:
    numpy = require("numpy", extra="train", purpose="receiving an array from another rank")
    kind = numpy.dtype(dtype)
    content = to_bytes(memory.take(count * kind.itemsize).cpu())
    return numpy.frombuffer(content, dtype=kind)


def _read_arrays(node: Node, memory: _Memory) -> list[object]:
    _, dtype, shapes = node
    sizes = list(map(prod, shapes))
    flat = _numpy_content(memory, dtype, sum(sizes))
    arrays: list[object] = []
    start = 0
    for size, shape in zip(sizes, shapes, strict=True):
        arrays.append(flat[start : start + size].reshape(shape))
        start += size
    return arrays


def _read_scalars(node: Node, memory: _Memory) -> list[object]:
    _, dtype, count = node
    return list(_numpy_content(memory, dtype, count))


def _read_dicts(node: Node, memory: _Memory) -> list[object]:
    _, keys, columns = node
    values = [_read(column, memory) for column in columns]
    return [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)]


def _read_maps(node: Node, memory: _Memory) -> list[object]:
    _, lengths, keys, values = node
    pairs: Iterator[tuple[object, object]] = zip(_read(keys, memory), _read(values, memory), strict=True)
    return [{key: value for _, (key, value) in zip(range(length), pairs, strict=False)} for length in lengths]


def _read_tuples(node: Node, memory: _Memory) -> list[object]:
    return list(zip(*[_read(column, memory) for column in node[1]], strict=True))


def _read_runs(node: Node, memory: _Memory) -> list[object]:
    _, is_tuple, lengths, column = node
    values = _read(column, memory)
    runs: list[object] = []
    start = 0
    for length in lengths:
        run = values[start : start + length]
        runs.append(tuple(run) if is_tuple else run)
        start += length
    return runs


def _read_mixed(node: Node, memory: _Memory) -> list[object]:
    _, places, columns = node
    values = [iter(_read(column, memory)) for column in columns]
    return [next(values[place]) for place in places]


def _read_pickled(node: Node, memory: _Memory) -> list[object]:
    _, content, tensors = node
    values: list[object] = _Unpickler(io.BytesIO(content), _read(tensors, memory)).load()
    return values


_READERS: dict[int, Callable[[Node, _Memory], list[object]]] = {
    What.PLAIN: _read_plain,
    What.TENSORS: _read_tensors,
    What.ROWS: _read_rows,
    What.SHAPES: _read_shapes,
    What.ARRAYS: _read_arrays,
    What.SCALARS: _read_scalars,
    What.DICTS: _read_dicts,
    What.MAPS: _read_maps,
    What.TUPLES: _read_tuples,
    What.RUNS: _read_runs,
    What.MIXED: _read_mixed,
    What.PICKLED: _read_pickled,
}

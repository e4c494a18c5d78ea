"""The structures that are gathered: containers around leaves, each with a path, and how leaves of all ranks become one."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor, nn

from treenail.adapters.comm import telling
from treenail.adapters.comm.objects import all_gather_object
from treenail.kernel import CommunicationError, Communicator

if TYPE_CHECKING:
    from typing import Any

_TENSORS = (Tensor, nn.Parameter)

Rebuild = Callable[[Sequence[object]], object]


class Kind(Enum):
    """What a leaf is, which says how it is merged."""

    TENSOR = "a tensor"
    ARRAY = "an array"
    LIST = "a list"
    OBJECT = "a value"


class Leaf(msgspec.Struct):
    """What stands at a path of a structure.

    Args:
        path: Such as ``boxes[0].scores``; empty for the whole.
        kind: How it is merged.
        value: The tensor, array, list or object.
    """

    path: str
    kind: Kind
    value: Any


class Structure:
    """A value taken apart: its leaves, what is where, and how to put leaves into such a structure again.

    Dicts, tuples, dataclasses and Structs are containers. A list is a leaf: its items are kept whole.

    Args:
        data: The value.
    """

    def __init__(self, data: object) -> None:
        self.leaves: list[Leaf] = []
        self.forms: dict[str, str] = {}
        self._rebuild = self._walk(data, "")

    def rebuild(self, values: Sequence[object]) -> object:
        """Return the structure with other leaves, given in the order of `leaves`."""
        return self._rebuild(values)

    def with_leaves(self, values: Iterable[object]) -> Structure:
        """Return a structure of the same form with other leaves of the same kinds."""
        other = copy(self)
        other.leaves = [Leaf(leaf.path, leaf.kind, value) for leaf, value in zip(self.leaves, values, strict=True)]
        return other

    def _walk(self, data: object, path: str) -> Rebuild:
        if isinstance(data, tuple):
            return self._container(
                data, path, [f"[{place}]" for place in range(len(data))], data, _tuple_of(type(data))
            )
        if type(data) in (dict, OrderedDict, defaultdict):
            return self._dict(data, path)  # type: ignore[arg-type]  # it is a dict
        if isinstance(data, msgspec.Struct) or (dataclasses.is_dataclass(data) and not isinstance(data, type)):
            names = (
                data.__struct_fields__
                if isinstance(data, msgspec.Struct)
                else [field.name for field in dataclasses.fields(data) if hasattr(data, field.name)]
            )
            values = [getattr(data, name) for name in names]
            return self._container(data, path, [f".{name}" for name in names], values, _fields_of(data, names))
        return self._leaf(data, path)

    def _dict(self, data: dict[object, object], path: str) -> Rebuild:
        # Ranks may have inserted the keys in different orders.
        keys = sorted(data, key=lambda key: (type(key).__name__, repr(key)))
        steps = [f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in keys]

        if len(set(steps)) < len(steps):  # keys that cannot be told apart in words cannot be compared between ranks
            return self._leaf(data, path)

        def make(values: Sequence[object]) -> object:
            found = dict(zip(keys, values, strict=True))
            result = defaultdict(data.default_factory) if isinstance(data, defaultdict) else type(data)()
            for key in data:
                result[key] = found[key]
            return result

        return self._container(data, path, steps, [data[key] for key in keys], make)

    def _container(
        self,
        data: object,
        path: str,
        steps: Sequence[str],
        values: Iterable[object],
        make: Callable[[Sequence[object]], object],
    ) -> Rebuild:
        size = f" of {len(steps)}" if isinstance(data, tuple) else ""
        self.forms[path] = f"a {type(data).__qualname__}{size}"
        parts = [self._walk(value, (path + step).removeprefix(".")) for value, step in zip(values, steps, strict=True)]
        return lambda leaves: make([part(leaves) for part in parts])

    def _leaf(self, data: object, path: str) -> Rebuild:
        kind = Kind.OBJECT
        form = kind.value
        numpy = sys.modules.get("numpy")
        if type(data) in _TENSORS and data.layout is torch.strided and not data.is_quantized and not data.is_meta:  # type: ignore[attr-defined]  # it is a tensor
            kind, form = Kind.TENSOR, _form(data)
        elif type(data) is list:
            kind = Kind.LIST
            form = kind.value
        elif numpy is not None and type(data) is numpy.ndarray:
            kind, form = Kind.ARRAY, f"array {_form(data)}"
        place = len(self.leaves)
        self.leaves.append(Leaf(path, kind, data))
        self.forms[path] = form
        return lambda leaves: leaves[place]


def _form(array: Any) -> str:
    """Return dtype and shape of a tensor or array, without the size of its first dimension."""
    shape = ", ".join(["?", *map(str, array.shape[1:])]) if array.ndim else ""
    return f"{str(array.dtype).removeprefix('torch.')}[{shape}]"


def _tuple_of(kind: type) -> Callable[[Sequence[object]], object]:
    make: Callable[[Sequence[object]], object] = getattr(kind, "_make", kind)  # a named tuple's takes one sequence, too
    return make


def _fields_of(data: object, names: Sequence[str]) -> Callable[[Sequence[object]], object]:
    """Return what makes an object of the same class from its fields; neither __init__ nor __post_init__ runs again."""

    def make(values: Sequence[object]) -> object:
        if isinstance(data, msgspec.Struct):
            struct = copy(data)
            for name, value in zip(names, values, strict=True):
                msgspec.structs.force_setattr(struct, name, value)
            return struct
        result = object.__new__(type(data))
        for name, value in zip(names, values, strict=True):
            object.__setattr__(result, name, value)
        return result

    return make


def digest(forms: Mapping[str, str]) -> bytes:
    """Return 16 bytes that are equal where forms are, and only there."""
    return hashlib.blake2b(msgspec.msgpack.encode(forms), digest_size=16).digest()


def difference(communicator: Communicator, what: str, forms: Mapping[str, str], *, mend: str) -> CommunicationError:
    """Find out together where ranks differ, and return the error.

    Args:
        communicator: The ranks.
        what: What differs, in a few words.
        forms: What this rank has, by path; containers come before what they hold.
        mend: What to do.
    """
    told = all_gather_object(communicator, dict(forms))
    problems = []
    for rank, theirs in enumerate(told):
        differing: list[str] = []
        for path in {**told[0], **theirs}:
            here, there = told[0].get(path), theirs.get(path)
            if here == there or any(_within(path, container) for container in differing):
                continue
            differing.append(path)
            if here is None or there is None:
                problems.append(f"{path}: rank {rank if there is None else 0} lacks the key")
            else:
                problems.append(f"{path or 'the whole'}: rank {rank} has {there}, rank 0 {here}")
    return CommunicationError(f"{what} differ: {telling.listed(problems)}", mend=mend)


def _within(path: str, container: str) -> bool:
    return not container or (path.startswith(container) and path[len(container)] in ".[")


def merged(leaf: Leaf, parts: Sequence[Any]) -> object:
    """Return what one process would have in place of the leaves of all ranks.

    Args:
        leaf: The leaf here.
        parts: What stands there on each rank, in rank order.
    """
    if leaf.kind is Kind.TENSOR:
        return join(parts)
    if leaf.kind is Kind.ARRAY:
        numpy = sys.modules["numpy"]
        return numpy.concatenate(parts) if parts[0].ndim else numpy.stack(parts)
    return list(chain.from_iterable(parts)) if leaf.kind is Kind.LIST else list(parts)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors concatenated, those without a dimension stacked; without a copy where they are adjacent in memory.

    Args:
        parts: Of one dtype, on one device, with shapes that differ in the first dimension only.

    Returns:
        [sum of rows, …], or [number of parts]. Adjacent views of one contiguous tensor are joined to one view of it.
    """
    if not parts[0].dim():
        parts = [part.reshape(1) for part in parts]
    end = parts[0].storage_offset()
    memory = parts[0].untyped_storage().data_ptr()
    for part in parts:
        if part.storage_offset() != end or part.untyped_storage().data_ptr() != memory or not part.is_contiguous():
            return torch.cat(list(parts))
        end += part.numel()
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    return parts[0].as_strided(shape, _strides(shape))


def _strides(shape: Sequence[int]) -> list[int]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return strides

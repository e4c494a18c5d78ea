"""A state tree as plain JSON plus named tensors, and back, losing nothing.

JSON has no tuples, bytes, non-finite floats, integers beyond 64 bits or keys that are no strings; those become an object
with one key that begins with ``$``.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from treenail.kernel import CheckpointError

_INT64 = 2**63


class Snapshot(NamedTuple):
    """A state tree at rest: nothing in it is shared with the training.

    Args:
        tree: Plain JSON values; a tensor is ``{"$tensor": name}``.
        tensors: By name; on the CPU, contiguous, each with memory of its own.
    """

    tree: object
    tensors: dict[str, Tensor]


def freeze(state: object) -> Snapshot:
    """Copy a state tree.

    A tensor that occurs twice (tied weights) is kept once.

    Args:
        state: Nested mappings, lists and tuples of tensors, numbers, strings, bytes, booleans and None.

    Raises:
        CheckpointError: Something else is in the tree; the message names its path.
    """
    freezer = _Freezer()
    return Snapshot(freezer.freeze(state, ""), freezer.tensors)


class _Freezer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def freeze(self, value: object, path: str) -> object:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return value if -_INT64 <= value < _INT64 else {"$int": str(value)}
        if isinstance(value, float):
            return float(value) if isfinite(value) else {"$float": str(float(value))}
        if isinstance(value, Tensor):
            return {"$tensor": self._keep(value, path)}
        if isinstance(value, bytes):
            return {"$bytes": b64encode(value).decode()}
        if isinstance(value, Mapping):
            return self._freeze_mapping(value, path)
        if isinstance(value, list):
            return [self.freeze(item, f"{path}/{index}") for index, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": [self.freeze(item, f"{path}/{index}") for index, item in enumerate(value)]}
        raise CheckpointError(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot be saved",
            where=path or "state",
            mend="let state_dict() return tensors, numbers, strings, bytes, lists, tuples and dicts",
        )

    def _freeze_mapping(self, value: Mapping[object, object], path: str) -> object:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: self.freeze(item, f"{path}/{key}") for key, item in value.items()}
        pairs = [
            [self.freeze(key, f"{path}/{key!r}"), self.freeze(item, f"{path}/{key!r}")] for key, item in value.items()
        ]
        return {"$map": pairs}

    def _keep(self, tensor: Tensor, path: str) -> str:
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise CheckpointError(
                f"a tensor of layout {tensor.layout} cannot be saved", where=path, mend="make it dense"
            )
        tensor = tensor.detach()
        identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        name = self._names.get(identity) if tensor.numel() else None
        if name is None:
            name = self._names[identity] = path.lstrip("/")
            copied = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
            self.tensors[name] = copied.resolve_conj().resolve_neg()
        return name


def thaw(snapshot: Snapshot) -> object:
    """Rebuild the state tree of a snapshot.

    Raises:
        CheckpointError: The tree is not one that `freeze` makes.
    """
    try:
        return _thaw(snapshot.tree, snapshot.tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the state tree is malformed: {type(error).__name__}: {error}") from error


def _thaw(value: object, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(value, list):
        return [_thaw(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, content),) = value.items()
        if key == "$tensor":
            return tensors[content]
        if key == "$tuple":
            return tuple(_thaw(item, tensors) for item in content)
        if key == "$map":
            return {_thaw(name, tensors): _thaw(item, tensors) for name, item in content}
        if key == "$int":
            return int(content)
        if key == "$float":
            return float(content)
        if key == "$bytes":
            return b64decode(content, validate=True)
        if isinstance(key, str) and key.startswith("$"):
            raise ValueError(f"unknown mark {key!r}")
    return {name: _thaw(item, tensors) for name, item in value.items()}

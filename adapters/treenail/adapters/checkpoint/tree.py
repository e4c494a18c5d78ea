"""A state tree as plain JSON plus named tensors, and back, losing nothing.

JSON has no tuples, bytes, non-finite floats, integers beyond 64 bits or keys that are no strings; those, and mappings
that are more than a dict, become an object with one key that begins with ``$``.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from math import isfinite
from typing import NamedTuple

from torch import Tensor

from treenail.adapters.checkpoint.tensors import Buffers, check_tensor, pack, unpack
from treenail.kernel import CheckpointError

_INT64 = 2**63
_RESERVED = "__metadata__"  # safetensors' own name


class Snapshot(NamedTuple):
    """A state tree at rest: nothing in it is shared with the training, unless its `Buffers` borrow.

    Args:
        tree: Plain JSON values; a tensor is ``{"$tensor": name}``, or ``{"$tensor": {"name": name, …}}`` with its form.
        tensors: By name; on the CPU, contiguous, each with memory of its own.
    """

    tree: object
    tensors: dict[str, Tensor]


def freeze(state: object, buffers: Buffers | None = None) -> Snapshot:
    """Copy a state tree.

    A tensor that occurs twice (tied weights) is kept once. Tensors keep dtype and strides, but not that they are
    parameters, nor their device. Numpy's float64 becomes a float. A module's state_dict keeps the versions of its modules
    (``_metadata``), without which they would take the state for that of an old release.

    Args:
        state: Nested dicts, OrderedDicts, Counters, lists and tuples of tensors, numbers, strings, bytes, booleans and
            None; of exactly these types, since a subclass would come back as something else.
        buffers: Where the copies of tensors lie; each in memory of its own when None.

    Raises:
        CheckpointError: Something else is in the tree; the message names its path.
    """
    freezer = _Freezer(buffers)
    return Snapshot(freezer.freeze(state, ""), freezer.tensors)


class _Freezer:
    def __init__(self, buffers: Buffers | None) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._buffers = buffers
        self._marks: dict[tuple[object, ...], dict[str, object]] = {}
        self._kinds: dict[type, Callable[..., object]] = {
            int: lambda value, _: value if -_INT64 <= value < _INT64 else {"$int": str(value)},
            float: lambda value, _: value if isfinite(value) else {"$float": str(value)},
            bytes: lambda value, _: {"$bytes": b64encode(value).decode()},
            list: self._freeze_items,
            tuple: lambda value, path: {"$tuple": self._freeze_items(value, path)},
            dict: self._freeze_mapping,
            Counter: lambda value, path: {"$counter": self._freeze_mapping(value, path)},
            OrderedDict: self._freeze_ordered,
        }

    def freeze(self, value: object, path: str) -> object:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if isinstance(value, Tensor):
            return self._freeze_tensor(value, path)
        if isinstance(value, float) and kind.__module__ == "numpy":  # numpy's float64, the same 64 bits
            value, kind = float(value), float
        if freeze := self._kinds.get(kind):
            return freeze(value, path)
        raise CheckpointError(
            f"a {kind.__module__}.{kind.__qualname__} cannot be saved",
            where=path or "state",
            mend="let state_dict() return tensors, numbers, strings, bytes, lists, tuples and dicts, no subclasses of them",
        )

    def _freeze_items(self, value: list[object] | tuple[object, ...], path: str) -> list[object]:
        return [self.freeze(item, f"{path}/{index}") for index, item in enumerate(value)]

    def _freeze_mapping(self, value: Mapping[object, object], path: str) -> object:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.freeze(item, f"{path}/{key}") for key, item in value.items()}
        pairs = [
            [self.freeze(key, f"{path}/{key!r}"), self.freeze(item, f"{path}/{key!r}")] for key, item in value.items()
        ]
        return {"$map": pairs}

    def _freeze_ordered(self, value: OrderedDict[object, object], path: str) -> object:
        content = self._freeze_mapping(value, path)
        metadata = getattr(value, "_metadata", None)
        if metadata is None:
            return {"$ordered": content}
        return {"$state_dict": [content, self.freeze(metadata, f"{path}/_metadata")]}

    def _freeze_tensor(self, tensor: Tensor, path: str) -> dict[str, object]:
        check_tensor(tensor, path)
        identity = (
            *(tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype),
            *(tensor.is_conj(), tensor.is_neg()),
        )
        mark = self._marks.get(identity) if tensor.numel() else None
        if mark is None:
            name = self._free_name(path.removeprefix("/"))
            self.tensors[name], form = pack(tensor, self._buffers)
            mark = self._marks[identity] = {"$tensor": {"name": name, **form} if form else name}
        return mark

    def _free_name(self, path: str) -> str:
        # A key may hold a slash and different keys may look alike, so that a path can stand for several places.
        name, number = path, 1
        while name in self.tensors or name == _RESERVED:
            number += 1
            name = f"{path}~{number}"
        return name


def thaw(snapshot: Snapshot) -> object:
    """Rebuild the state tree of a snapshot.

    Raises:
        CheckpointError: The tree is not one that `freeze` makes.
    """
    try:
        return _Thawer(snapshot.tensors).thaw(snapshot.tree)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the state tree is malformed: {type(error).__name__}: {error}") from error


def copied_tensors(snapshot: Snapshot, branch: str) -> dict[str, Tensor]:
    """Return the tensors right below a branch, such as ``"model"``, by their keys, as they lie in the snapshot.

    Raises:
        CheckpointError: There is no such branch, or it is no mapping.
    """
    finder, tree = _Finder(snapshot.tensors), snapshot.tree
    if isinstance(tree, dict) and branch in tree:
        found = finder.thaw(tree[branch])
    else:  # a key among those beside it made it a list of pairs
        whole = finder.thaw(tree)
        found = whole.get(branch) if isinstance(whole, dict) else None
    if not isinstance(found, dict):
        raise CheckpointError(f"the state has no mapping '{branch}'", where=branch)
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


class _Thawer:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._unpacked: dict[str, Tensor] = {}
        self._marks: dict[str, Callable[..., object]] = {
            "$tensor": self._thaw_tensor,
            "$tuple": lambda content: tuple(self.thaw(item) for item in content),
            "$map": lambda content: {self.thaw(name): self.thaw(item) for name, item in content},
            "$int": int,
            "$float": float,
            "$bytes": lambda content: b64decode(content, validate=True),
            "$counter": lambda content: Counter(self._thaw_mapping(content)),
            "$ordered": lambda content: OrderedDict(self._thaw_mapping(content)),
            "$state_dict": self._thaw_state_dict,
        }

    def thaw(self, value: object) -> object:
        if isinstance(value, list):
            return [self.thaw(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, content),) = value.items()
            if key in self._marks:
                return self._marks[key](content)
            if isinstance(key, str) and key.startswith("$"):
                raise ValueError(f"unknown mark {key!r}")
        return {name: self.thaw(item) for name, item in value.items()}

    def _thaw_mapping(self, content: object) -> dict[object, object]:
        mapping = self.thaw(content)
        if type(mapping) is not dict:
            raise TypeError(f"a mapping is a {type(mapping).__name__}")
        return mapping

    def _thaw_state_dict(self, content: tuple[object, object]) -> object:
        values, metadata = content
        state_dict = OrderedDict(self._thaw_mapping(values))
        state_dict._metadata = self.thaw(metadata)  # type: ignore[attr-defined]  # as nn.Module.state_dict does
        return state_dict

    def _thaw_tensor(self, content: object) -> Tensor:
        form = dict(content) if isinstance(content, dict) else {"name": content}
        name = form.pop("name")
        if not isinstance(name, str):
            raise TypeError(f"a tensor's name is a {type(name).__name__}")
        if name not in self._unpacked:
            self._unpacked[name] = unpack(self._tensors[name], form)
        return self._unpacked[name]


class _Finder(_Thawer):
    """Finds tensors without rebuilding them."""

    def _thaw_tensor(self, content: object) -> Tensor:
        return self._tensors[content["name"] if isinstance(content, dict) else str(content)]

"""The tensors of a state tree that are spread over ranks: taken out before it is saved, and put back where they belong."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from treenail.adapters.checkpoint.tensors import is_spread
from treenail.kernel import CheckpointError

SHARDS: Final = "shards"
"""Entry of a saved tree: names of tensors that lie in shards, and their paths in the tree."""

Path = tuple[str | int, ...]


def take(tree: Mapping[str, object]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Return a state tree without its DTensors, and those by name; the tree itself is left as it is.

    The entry `SHARDS` of the returned tree says where they belong; there is none if there are no DTensors.

    Args:
        tree: Nested dicts, lists and tuples; DTensors are values of dicts.
    """
    taken: dict[Path, Tensor] = {}
    rest = {key: _without(value, (key,), taken) for key, value in tree.items()}
    names = {"/".join(map(str, path)): path for path in taken}
    if len(names) < len(taken):
        raise CheckpointError("two tensors of the state have names that differ by slashes only", mend="rename one")
    if names:
        rest[SHARDS] = {name: list(path) for name, path in names.items()}
    return rest, {name: taken[path] for name, path in names.items()}


def _without(value: object, path: Path, taken: dict[Path, Tensor]) -> object:
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_without(item, (*path, place), taken) for place, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    kept: dict[object, object] = OrderedDict() if isinstance(value, OrderedDict) else {}
    if hasattr(value, "_metadata"):
        kept._metadata = value._metadata  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    for key, item in value.items():
        if is_spread(item):
            taken[*path, key] = item
        else:
            kept[key] = _without(item, (*path, key), taken)
    return kept if type(value) in (dict, OrderedDict) else value


def places_of(recorded: object) -> dict[str, Path]:
    """Return the entry `SHARDS` of a tree that was read: paths by names.

    Raises:
        CheckpointError: It is none.
    """
    if not isinstance(recorded, dict) or not all(isinstance(path, list) and path for path in recorded.values()):
        raise CheckpointError("the state does not say where the tensors in its shards belong")
    return {name: tuple(path) for name, path in recorded.items()}


def put(tree: dict[str, object], path: Path, value: object) -> None:
    """Put a value where `take` took it from.

    Raises:
        CheckpointError: The tree has no such place.
    """
    place: object = tree
    for key in path[:-1]:
        inner = place[int(key)] if isinstance(place, list | tuple) else None
        place = place.get(key) if isinstance(place, dict) else inner
    if not isinstance(place, dict):
        raise CheckpointError(f"the state has no place for {'/'.join(map(str, path))}")
    place[path[-1]] = value

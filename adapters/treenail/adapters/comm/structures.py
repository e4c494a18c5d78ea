"""Gathering structures: what the ranks hold becomes what one process would hold.

=====================================  ================================================================================
on each rank                           merged
=====================================  ================================================================================
tensor or array [n, …]                 concatenated in rank order; n may differ, and be 0
tensor or array without a dimension    stacked to [world_size]
list                                   concatenated in rank order; its items are kept whole
dict, tuple, dataclass, Struct         of the same type, merged entry by entry
number, string, any other object       list of world_size
=====================================  ================================================================================

Tensors travel as their memory: large ones by themselves, so that nothing is copied on the way, all others in one message
with everything else. Ranks compare their structures first; where they differ, every rank gets an error with the path.
Tensors of a result have no gradient; those in items of lists share memory with each other, none with what was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor

from treenail.adapters.comm.arguments import check_rank
from treenail.adapters.comm.envelope import flat_bytes
from treenail.adapters.comm.objects import all_gather_object, exchange, gather_object, require_equal
from treenail.adapters.comm.packing import Packed, describe, pack
from treenail.adapters.comm.tree import Kind, Structure, difference, digest, join, merged
from treenail.adapters.comm.unpacking import unpack
from treenail.kernel import CommunicationError, Communicator

T = TypeVar("T")
K = TypeVar("K")

_LARGE = 2**20
"""Bytes of all ranks from which on a tensor travels by itself."""

gather_picklable = gather_object
all_gather_picklable = all_gather_object


# What stands under a key is merged by its own type, which a dict's type does not tell.
@overload
def gather_data(
    communicator: Communicator, data: Tensor, destination: int = 0, *, device: torch.device | str = "cpu"
) -> Tensor | None: ...
@overload
def gather_data(
    communicator: Communicator, data: list[T], destination: int = 0, *, device: torch.device | str = "cpu"
) -> list[T] | None: ...
@overload
def gather_data(
    communicator: Communicator, data: dict[K, T], destination: int = 0, *, device: torch.device | str = "cpu"
) -> dict[K, Any] | None: ...
@overload
def gather_data(
    communicator: Communicator, data: object, destination: int = 0, *, device: torch.device | str = "cpu"
) -> Any: ...
def gather_data(
    communicator: Communicator, data: object, destination: int = 0, *, device: torch.device | str = "cpu"
) -> object:
    """Return what all ranks hold, merged on rank `destination`; None elsewhere.

    Args:
        communicator: The ranks.
        data: Any nesting of dicts, lists, tuples, dataclasses, Structs, tensors, arrays and objects, in the same structure on
            every rank; see the table above.
        destination: Who receives.
        device: Where the tensors of the result shall be.

    Raises:
        CommunicationError: The structures differ, an object cannot be sent, the ranks disagree, or there is no such rank; on
            every rank.
    """
    return gathered(communicator, "gather_data", lambda: Structure(data), destination, device)


@overload
def all_gather_data(communicator: Communicator, data: Tensor, *, device: torch.device | str = "cpu") -> Tensor: ...
@overload
def all_gather_data(communicator: Communicator, data: list[T], *, device: torch.device | str = "cpu") -> list[T]: ...
@overload
def all_gather_data(
    communicator: Communicator, data: dict[K, T], *, device: torch.device | str = "cpu"
) -> dict[K, Any]: ...
@overload
def all_gather_data(communicator: Communicator, data: object, *, device: torch.device | str = "cpu") -> Any: ...
def all_gather_data(communicator: Communicator, data: object, *, device: torch.device | str = "cpu") -> object:
    """Return what all ranks hold, merged; on every rank.

    Args:
        communicator: The ranks.
        data: As for `gather_data`.
        device: Where the tensors of the result shall be.

    Raises:
        CommunicationError: As of `gather_data`.
    """
    return gathered(communicator, "all_gather_data", lambda: Structure(data), None, device)


def gather_list(
    communicator: Communicator, items: list[T], destination: int = 0, *, device: torch.device | str = "cpu"
) -> list[T] | None:
    """Return the items of all ranks in rank order on rank `destination`, None elsewhere.

    Args:
        communicator: The ranks.
        items: Anything, and as many as there are.
        destination: Who receives.
        device: Where the tensors in the items shall be.

    Raises:
        CommunicationError: As of `gather_data`, or it is no list.
    """
    result = gathered(communicator, "gather_list", lambda: _only(items, Kind.LIST), destination, device)
    return cast("list[T] | None", result)  # lists are merged to a list


def all_gather_list(communicator: Communicator, items: list[T], *, device: torch.device | str = "cpu") -> list[T]:
    """Return the items of all ranks in rank order, on every rank.

    Args:
        communicator: The ranks.
        items: Anything, and as many as there are.
        device: Where the tensors in the items shall be.

    Raises:
        CommunicationError: As of `gather_list`.
    """
    result = gathered(communicator, "all_gather_list", lambda: _only(items, Kind.LIST), None, device)
    return cast("list[T]", result)  # lists are merged to a list


def gather_tensors(
    communicator: Communicator, tensor: Tensor, destination: int = 0, *, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Return the tensors of all ranks as one on rank `destination`, None elsewhere.

    Args:
        communicator: The ranks.
        tensor: [n, …] with any n, or without a dimension.
        destination: Who receives.
        device: Where the result shall be.

    Returns:
        [sum of n, …] in rank order; [world_size] of tensors without a dimension.

    Raises:
        CommunicationError: As of `gather_data`, or it is no tensor.
    """
    result = gathered(communicator, "gather_tensors", lambda: _only(tensor, Kind.TENSOR), destination, device)
    return cast("Tensor | None", result)  # tensors are merged to a tensor


def all_gather_tensors(communicator: Communicator, tensor: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
    """Return the tensors of all ranks as one, on every rank.

    Args:
        communicator: The ranks.
        tensor: [n, …] with any n, or without a dimension.
        device: Where the result shall be.

    Raises:
        CommunicationError: As of `gather_tensors`.
    """
    result = gathered(communicator, "all_gather_tensors", lambda: _only(tensor, Kind.TENSOR), None, device)
    return cast("Tensor", result)  # tensors are merged to a tensor


def gathered(
    communicator: Communicator,
    doing: str,
    bring: Callable[[], Structure],
    destination: int | None,
    device: torch.device | str,
) -> object:
    """Return the merged structure on rank `destination` (on every rank where that is None), None elsewhere.

    Args:
        communicator: The ranks.
        doing: What is done, for messages.
        bring: Returns this rank's structure; the error that it raises is raised on every rank.
        destination: Who receives.
        device: Where the tensors of the result shall be.

    Raises:
        CommunicationError: See `gather_data`.
    """
    brought: list[Structure] = []
    columns: list[Packed] = []

    def prepare() -> list[list[object]]:
        """Describe what this rank has, but for tensors, of which the sizes decide how they travel."""
        if destination is not None:
            check_rank(destination, communicator.world_size)
        structure = bring()
        brought.append(structure)
        columns.append(describe([leaf.value for leaf in structure.leaves if leaf.kind in {Kind.OBJECT, Kind.ARRAY}]))
        columns.extend(describe(leaf.value) for leaf in structure.leaves if leaf.kind is Kind.LIST)
        sizes = [leaf.value.nbytes for leaf in structure.leaves if leaf.kind is Kind.TENSOR]
        return [[digest(structure.forms), destination], sizes]

    told = exchange(communicator, doing, prepare)
    structure = brought[0]
    if len({each[0][0] for each in told}) > 1:
        raise difference(
            communicator,
            f"{doing}: the structures",
            structure.forms,
            mend="give values of the same structure on every rank; "
            "one that holds nothing gives tensors of no rows, and empty lists",
        )
    require_equal(doing, ["destination"], [each[0][1:] for each in told])
    totals = map(sum, zip(*(cast("list[int]", each[1]) for each in told), strict=True))  # sizes are numbers
    tensors = [leaf for leaf in structure.leaves if leaf.kind is Kind.TENSOR]
    large = {leaf.path for leaf, total in zip(tensors, totals, strict=True) if total >= _LARGE}
    columns.insert(0, describe([leaf.value.detach() for leaf in tensors if leaf.path not in large]))
    found = _message(communicator, structure, large, columns, destination, device)
    values: list[object] = []
    for leaf in structure.leaves:
        if leaf.path in large:
            parts = _to(communicator, flat_bytes(leaf.value), destination)
            if parts is not None:
                flat = join(parts).to(device).view(leaf.value.dtype)
                values.append(flat.view(-1, *leaf.value.shape[1:]))
        elif found is not None:
            values.append(merged(leaf, found[leaf.path]))
    return structure.rebuild(values) if destination in {None, communicator.rank} else None


def _message(
    communicator: Communicator,
    structure: Structure,
    large: set[str],
    columns: Sequence[Packed],
    destination: int | None,
    device: torch.device | str,
) -> dict[str, list[object]] | None:
    """Move all but large tensors at once; returns the parts of all ranks by path where they are received."""
    others = [leaf for leaf in structure.leaves if leaf.path not in large]
    if not others:
        return {} if destination in {None, communicator.rank} else None
    parts = _to(communicator, pack(columns), destination)
    if parts is None:
        return None
    ordered = [leaf.path for leaf in others if leaf.kind is Kind.TENSOR]
    ordered += [leaf.path for leaf in others if leaf.kind in {Kind.OBJECT, Kind.ARRAY}]
    lists = [leaf.path for leaf in others if leaf.kind is Kind.LIST]
    found: dict[str, list[object]] = {leaf.path: [] for leaf in others}
    for part in parts:
        tensors, objects, *runs = unpack(part, device)
        for path, value in zip([*ordered, *lists], [*tensors, *objects, *runs], strict=True):
            found[path].append(value)
    return found


def _to(communicator: Communicator, content: Tensor, destination: int | None) -> list[Tensor] | None:
    return communicator.all_gather(content) if destination is None else communicator.gather(content, destination)


def _only(value: object, kind: Kind) -> Structure:
    structure = Structure(value)
    if structure.forms.keys() != {""} or structure.leaves[0].kind is not kind:
        raise CommunicationError(f"{kind.value} is expected, this is a {type(value).__name__}")
    return structure

"""The distributed functions of SCEPTER's `utils.distribute`, in any world, whatever the backend.

They work on `current_communicator`, or on the `group` that is given: a communicator, a process group of torch, or a list of
ranks. In a world of one rank they have their mathematical meaning: a number that is gathered is a list of one. Where a
tensor is filled in place, it is also returned. `we` is in `treenail.adapters.launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, overload

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from treenail.adapters.comm import objects, reductions, structures
from treenail.adapters.comm.compat.groups import Group, communicator_of, filled, members, rank_in
from treenail.adapters.comm.compat.mmengine import Op, operation
from treenail.adapters.comm.current import current_communicator, get_dist_info
from treenail.kernel import CommunicationError

__all__ = [
    "Pending",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather_data",
    "gather_gpu_tensors",
    "gather_list",
    "gather_picklable",
    "get_dist_info",
    "irecv",
    "isend",
    "recv",
    "reduce",
    "reduce_scatter",
    "scatter",
    "send",
    "shared_random_seed",
]

T = TypeVar("T")


def gather_data(data: object) -> object:
    """Return what all ranks hold, merged in the same structure, on rank 0; None elsewhere.

    See `treenail.adapters.comm.structures` for how each kind of value is merged. Tensors of the result are on the CPU.

    Raises:
        CommunicationError: The structures differ, or an object cannot be sent; on every rank, with the path.
    """
    result: object = structures.gather_data(current_communicator(), data)
    return result


def gather_list(data: list[T]) -> list[T] | None:
    """Return the items of all ranks as one list on rank 0, None elsewhere."""
    return structures.gather_list(current_communicator(), data)


def gather_picklable(data: T) -> list[T] | None:
    """Return the objects of all ranks in rank order on rank 0, None elsewhere."""
    return objects.gather_object(current_communicator(), data)


@overload
def gather_gpu_tensors(
    tensor: Tensor, all_recv: bool = False, is_cat: Literal[True] = True, *, device: torch.device | str = "cpu"
) -> Tensor | None: ...
@overload
def gather_gpu_tensors(
    tensor: Tensor, all_recv: bool = False, *, is_cat: Literal[False], device: torch.device | str = "cpu"
) -> tuple[list[Tensor], list[int]] | None: ...
def gather_gpu_tensors(
    tensor: Tensor, all_recv: bool = False, is_cat: bool = True, *, device: torch.device | str = "cpu"
) -> Tensor | tuple[list[Tensor], list[int]] | None:
    """Return the tensors of all ranks as one, wherever they are and whatever the backend.

    Args:
        tensor: [n, …] with any n on each rank, or without a dimension.
        all_recv: Return it on every rank; else on rank 0 only, None elsewhere.
        is_cat: Return one tensor; else the tensors of each rank, and how many rows each has (1 without a dimension).
        device: Where the result shall be.

    Raises:
        CommunicationError: The tensors differ in more than their first dimension; on every rank.
    """
    communicator = current_communicator()
    if is_cat:
        if all_recv:
            return structures.all_gather_tensors(communicator, tensor, device=device)
        return structures.gather_tensors(communicator, tensor, device=device)
    parts = communicator.all_gather(tensor) if all_recv else communicator.gather(tensor)
    if parts is None:
        return None
    return [part.to(device) for part in parts], [len(part) if part.dim() else 1 for part in parts]


def broadcast(tensor: Tensor, src: int | str = 0, group: Group = None) -> Tensor:
    """Fill a tensor with that of rank `src` of the group, and return it; the ranks outside of the group keep theirs."""
    communicator = members(group)
    if communicator is None:
        return tensor
    source = rank_in(group, src)
    received = communicator.broadcast(tensor, source)
    return tensor if communicator.rank == source else filled(tensor, received)


def broadcast_object_list(data: list[T], src: int | str = 0, group: Group = None) -> list[T]:
    """Fill a list with the objects of rank `src`'s list, which is as long, and return it."""
    if (communicator := members(group)) is not None:
        objects.broadcast_object_list(communicator, data, rank_in(group, src))
    return data


def barrier() -> None:
    """Wait until every rank is here."""
    current_communicator().barrier()


def all_reduce(tensor: Tensor, op: Op = ReduceOp.SUM, group: Group = None) -> Tensor:
    """Replace a tensor by its element-wise reduction over the group, and return it."""
    communicator = members(group)
    return tensor if communicator is None else filled(tensor, communicator.all_reduce(tensor, operation(op)))


def reduce(tensor: Tensor, dst: int, op: Op = ReduceOp.SUM, group: Group = None) -> Tensor:
    """Replace the tensor of rank `dst` by the element-wise reduction over the group; return the tensor."""
    communicator = members(group)
    if communicator is None:
        return tensor
    reduced = reductions.reduce(communicator, tensor, rank_in(group, dst), operation(op))
    return tensor if reduced is None else filled(tensor, reduced)


def reduce_scatter(output: Tensor, input_list: Sequence[Tensor], op: Op = ReduceOp.SUM, group: Group = None) -> Tensor:
    """Fill `output` with the reduction over the group of the ranks' tensors number `rank`, and return it."""
    communicator = members(group)
    if communicator is None:
        return output
    return filled(output, reductions.reduce_scatter(communicator, input_list, operation(op)))


def all_gather(tensor: Tensor, uniform_size: bool = True, group: Group = None) -> list[Tensor]:
    """Return every rank's tensor in rank order, on every rank of the group.

    Args:
        tensor: On the ranks of the group.
        uniform_size: The tensors have one shape, which is checked; else first dimensions may differ.
        group: The ranks.

    Raises:
        CommunicationError: The shapes differ, or this rank is not in the group.
    """
    parts = communicator_of(group).all_gather(tensor)
    if uniform_size and len({part.shape for part in parts}) > 1:
        raise CommunicationError(
            f"the ranks' tensors have the shapes {', '.join(str(list(part.shape)) for part in parts)}",
            mend="give uniform_size=False",
        )
    return parts


def all_to_all(tensors: Sequence[Tensor], group: Group = None) -> list[Tensor]:
    """Send the i-th tensor to rank i of the group; return what its ranks sent here."""
    return communicator_of(group).all_to_all(tensors)


def scatter(data: Tensor, scatter_list: Sequence[Tensor] | None = None, src: int = 0, group: Group = None) -> Tensor:
    """Fill `data` with this rank's one of the tensors of rank `src`, and return it."""
    communicator = members(group)
    if communicator is None:
        return data
    source = rank_in(group, src)
    return filled(data, communicator.scatter(scatter_list if communicator.rank == source else None, source))


class Pending:
    """A message under way.

    Args:
        finish: Waits for it.
    """

    def __init__(self, finish: Callable[[], object]) -> None:
        self._finish: Callable[[], object] | None = finish

    def wait(self) -> bool:
        """Wait until the tensor may be used; returns True."""
        if self._finish is not None:
            self._finish()
        self._finish = None
        return True


def send(tensor: Tensor, dst: int, group: Group = None, *, tag: int = 0) -> None:
    """Send a tensor to another rank; nothing in a world of one."""
    isend(tensor, dst, group, tag=tag).wait()


def recv(tensor: Tensor, src: int, group: Group = None, *, tag: int = 0) -> Tensor:
    """Fill a tensor with what another rank sends, and return it; as it is in a world of one."""
    irecv(tensor, src, group, tag=tag).wait()
    return tensor


def isend(tensor: Tensor, dst: int, group: Group = None, *, tag: int = 0) -> Pending:
    """Begin to send a tensor to another rank; `wait` for it before it is changed."""
    communicator = communicator_of(group)
    if communicator.world_size == 1:
        return Pending(lambda: None)
    return Pending(communicator.isend(tensor, rank_in(group, dst), tag))


def irecv(tensor: Tensor, src: int, group: Group = None, *, tag: int = 0) -> Pending:
    """Begin to fill a tensor with what another rank sends; `wait` for it."""
    communicator = communicator_of(group)
    if communicator.world_size == 1:
        return Pending(lambda: None)
    receive = communicator.irecv(rank_in(group, src), tag)
    return Pending(lambda: filled(tensor, receive()))


def shared_random_seed() -> int:
    """Return a random number, the same on every rank."""
    return reductions.sync_random_seed(current_communicator())

"""Each way in which tensors come from other ranks, in one form: some tensors go in, some come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from treenail.contracts.laws.comm._tensors import Described
from treenail.contracts.laws.comm._world import Rank


def _all_reduce(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    return [rank.communicator.all_reduce(given[0])]


def _broadcast(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    return [rank.communicator.broadcast(given[0], rank.world_size - 1)]


def _all_gather(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    return rank.communicator.all_gather(given[0])


def _gather(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    return rank.communicator.gather(given[0], rank.world_size - 1) or []


def _scatter(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    source = rank.world_size - 1
    return [rank.communicator.scatter(given if rank.number == source else None, source)]


def _all_to_all(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    return rank.communicator.all_to_all(given)


def _messages(rank: Rank, given: list[Tensor]) -> list[Tensor]:
    if rank.world_size == 1:
        return []
    receive = rank.communicator.irecv(rank.before)
    send = rank.communicator.isend(given[0], rank.after)
    found = receive()
    send()
    return [found]


CALLS: Final[dict[str, Callable[[Rank, list[Tensor]], list[Tensor]]]] = {
    "all_reduce": _all_reduce,
    "broadcast": _broadcast,
    "all_gather": _all_gather,
    "gather": _gather,
    "scatter": _scatter,
    "all_to_all": _all_to_all,
    "isend and irecv": _messages,
}


def arguments_of(rank: Rank, name: str, tensors: Sequence[Described]) -> list[Tensor]:
    """Return what a call takes on this rank, of one tensor for each rank."""
    if name in {"scatter", "all_to_all"}:
        return rank.make_all(tensors)
    return [rank.make(tensors[rank.number])]


def due_of(rank: Rank, name: str, tensors: Sequence[Described]) -> list[Tensor]:
    """Return what a call gives on this rank, of integers."""
    made, last = rank.make_all(tensors), rank.number == rank.world_size - 1
    if name == "all_reduce":
        return [torch.stack(made).sum(0).to(made[0].dtype)]
    if name == "broadcast":
        return [made[-1]]
    if name == "scatter":
        return [made[rank.number]]
    if name == "all_to_all":
        return [made[rank.number]] * rank.world_size
    if name == "isend and irecv":
        return [made[rank.number - 1]] if rank.world_size > 1 else []
    return made if last or name == "all_gather" else []

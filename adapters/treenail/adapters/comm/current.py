"""The communicator of whoever asks: code that is free of ranks need not be handed one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist

from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.torch_world import TorchCommunicator
from treenail.kernel import Communicator

P = ParamSpec("P")
T = TypeVar("T")

_CHOSEN: ContextVar[Communicator | None] = ContextVar("treenail_communicator", default=None)
# One communicator for each group of the process, since ranks count the collectives of each; it is forgotten with the group.
_OVER_GROUPS: WeakKeyDictionary[dist.ProcessGroup, Communicator] = WeakKeyDictionary()


def current_communicator() -> Communicator:
    """Return the communicator in use here: the one that was chosen, torch's process group, or a world of one."""
    chosen = _CHOSEN.get()
    if chosen is not None:
        return chosen
    if not dist.is_available() or not dist.is_initialized():
        return SingleProcess()
    group = dist.group.WORLD
    if group is None:
        raise AssertionError("torch.distributed is initialised")
    if group not in _OVER_GROUPS:
        _OVER_GROUPS[group] = TorchCommunicator(group)
    return _OVER_GROUPS[group]


@contextmanager
def use_communicator(communicator: Communicator) -> Iterator[None]:
    """Let `current_communicator` return this one in the block, in this thread or task."""
    token = _CHOSEN.set(communicator)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def get_dist_info() -> tuple[int, int]:
    """Return (rank, world_size) of the communicator in use; (0, 1) in one process."""
    communicator = current_communicator()
    return communicator.rank, communicator.world_size


def is_main_process() -> bool:
    """Return whether this is rank 0."""
    return current_communicator().rank == 0


def master_only(func: Callable[P, T]) -> Callable[P, T | None]:
    """Make a function do its work on rank 0 only, and return None elsewhere."""

    @functools.wraps(func)
    def on_rank_0(*arguments: P.args, **keywords: P.kwargs) -> T | None:
        return func(*arguments, **keywords) if is_main_process() else None

    return on_rank_0

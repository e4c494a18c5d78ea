"""The communicator of whoever asks: code that is free of ranks need not be handed one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch.distributed as dist

from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.torch_world import TorchCommunicator
from treenail.kernel import Communicator

P = ParamSpec("P")
T = TypeVar("T")

_CHOSEN: ContextVar[Communicator | None] = ContextVar("treenail_communicator", default=None)
_FOUND: ContextVar[tuple[object, Communicator] | None] = ContextVar("treenail_process_group", default=None)


def current_communicator() -> Communicator:
    """Return the communicator in use here: the one that was chosen, torch's process group, or a world of one."""
    chosen = _CHOSEN.get()
    if chosen is not None:
        return chosen
    if not dist.is_available() or not dist.is_initialized():
        return SingleProcess()
    found = _FOUND.get()
    if found is None or found[0] is not dist.group.WORLD:  # that group may have been destroyed, and another one made
        found = dist.group.WORLD, TorchCommunicator()
        _FOUND.set(found)
    return found[1]


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


def master_only(function: Callable[P, T]) -> Callable[P, T | None]:
    """Make a function do its work on rank 0 only, and return None elsewhere."""

    @functools.wraps(function)
    def on_rank_0(*arguments: P.args, **keywords: P.kwargs) -> T | None:
        return function(*arguments, **keywords) if is_main_process() else None

    return on_rank_0

"""What tests of functions over communicators have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from treenail.adapters.comm import run_threads
from treenail.kernel import CommunicationError, Communicator

T = TypeVar("T")


def on_ranks(world_size: int, function: Callable[[Communicator], T]) -> list[T]:
    """Return what a function returns on every rank of a world of threads."""
    return run_threads(world_size, function, timeout=60.0)


def refusal(world_size: int, function: Callable[[Communicator], object]) -> str:
    """Return the one `CommunicationError` that every rank gets, and check that the ranks can go on afterwards."""

    def attempt(communicator: Communicator) -> str:
        try:
            result = function(communicator)
        except CommunicationError as error:
            message = str(error)
        else:
            raise AssertionError(f"rank {communicator.rank} was given {result!r} in place of an error")
        assert communicator.all_reduce(torch.ones(1)).item() == communicator.world_size
        return message

    messages = set(on_ranks(world_size, attempt))
    assert len(messages) == 1, messages
    return messages.pop()


def same(one: object, other: object) -> bool:
    """Tell whether two values are equal, with equal types, dtypes, shapes and NaNs all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bytes(one), _bytes(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def _bytes(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1).view(torch.uint8)


def storages(value: object) -> set[int]:
    """Return where the memory of all tensors in nested dicts, lists and tuples begins."""
    if isinstance(value, Tensor):
        return {value.untyped_storage().data_ptr()} if value.numel() else set()
    if isinstance(value, dict):
        return storages(list(value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(storages, value))
    return set()

"""Code over any communicator, and one of one's own that counts collectives."""

from typing import TypeVar

import torch
from torch import Tensor

from treenail.adapters.comm import SingleProcess
from treenail.kernel import Communicator

T = TypeVar("T")


class Counting:
    def __init__(self, inner: Communicator) -> None:
        self._inner = inner
        self.calls = 0

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def world_size(self) -> int:
        return self._inner.world_size

    def barrier(self) -> None:
        self.calls += 1
        self._inner.barrier()

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        self.calls += 1
        return self._inner.all_reduce(tensor, op)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        self.calls += 1
        return self._inner.broadcast(tensor, source)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        self.calls += 1
        return self._inner.all_gather(tensor)

    def broadcast_object(self, value: T, source: int = 0) -> T:
        self.calls += 1
        return self._inner.broadcast_object(value, source)

    def all_gather_object(self, value: T) -> list[T]:
        self.calls += 1
        return self._inner.all_gather_object(value)


def mean_loss(communicator: Communicator, loss: float, weight: int) -> float:
    pairs = communicator.all_gather_object((loss, weight))
    return sum(loss * weight for loss, weight in pairs) / sum(weight for _, weight in pairs)


counting = Counting(SingleProcess())
assert mean_loss(counting, 0.5, weight=3) == 0.5
assert counting.all_reduce(torch.ones(2), op="max").tolist() == [1.0, 1.0]
assert counting.calls == 2

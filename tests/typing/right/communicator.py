"""Code over any communicator, and one of one's own that counts collectives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treenail.adapters.comm import SingleProcess, all_gather_object
from treenail.kernel import Communicator


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

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        self.calls += 1
        return self._inner.broadcast(tensor, source)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        self.calls += 1
        return self._inner.all_gather(tensor)

    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        self.calls += 1
        return self._inner.gather(tensor, destination)

    def scatter(self, tensors: Sequence[Tensor] | None, source: int = 0) -> Tensor:
        self.calls += 1
        return self._inner.scatter(tensors, source)

    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.calls += 1
        return self._inner.all_to_all(tensors)

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        return self._inner.isend(tensor, destination, tag)

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        return self._inner.irecv(source, tag)

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        return self._inner.group(ranks)

    def abort(self, reason: str) -> None:
        self._inner.abort(reason)


def mean_loss(communicator: Communicator, loss: float, weight: int) -> float:
    pairs = all_gather_object(communicator, (loss, weight))
    return sum(loss * weight for loss, weight in pairs) / sum(weight for _, weight in pairs)


counting = Counting(SingleProcess())
assert mean_loss(counting, 0.5, weight=3) == 0.5
assert counting.all_reduce(torch.ones(2), op="max").tolist() == [1.0, 1.0]
assert counting.calls == 2

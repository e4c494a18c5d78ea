"""A gather of one tensor instead of a list."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treenail.adapters.comm import SingleProcess
from treenail.kernel import CommunicationError, Communicator


class Alone:
    rank = 0
    world_size = 1

    def barrier(self) -> None:
        return

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        return tensor.clone()

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        return torch.zeros(1) if tensor is None else tensor.clone()

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        return [tensor.clone()]

    def scatter(self, tensors: Sequence[Tensor] | None, source: int = 0) -> Tensor:
        return (tensors or [])[0].clone()

    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.clone() for tensor in tensors]

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        return lambda: None

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        raise CommunicationError("nobody sends anything")

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        return SingleProcess()

    def abort(self, reason: str) -> None:
        return


communicator: Communicator = Alone()  # E: Got: ... def all_gather(self, tensor: Tensor) -> Tensor

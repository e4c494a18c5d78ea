"""The communicator of one process: every collective with its mathematical meaning for a world of one rank."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


class SingleProcess:
    """A world of one rank."""

    @property
    def rank(self) -> int:
        """0."""
        return 0

    @property
    def world_size(self) -> int:
        """1."""
        return 1

    def barrier(self) -> None:
        """Everyone is here."""

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        """Return a copy: sum, mean, max and min over one rank are its own value."""
        if op not in ("sum", "mean", "max", "min"):
            raise ValueError(f"unknown reduction '{op}'; known are sum, mean, max, min")
        return tensor.clone()

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Return a copy of the tensor of rank 0."""
        _check_source(source)
        return tensor.clone()

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return a copy of the tensor of rank 0 in a list."""
        return [tensor.clone()]

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """Return the value of rank 0."""
        _check_source(source)
        return value

    def all_gather_object(self, value: T) -> list[T]:
        """Return the value of rank 0 in a list."""
        return [value]


def _check_source(source: int) -> None:
    if source != 0:
        raise ValueError(f"there is no rank {source} in a world of 1")

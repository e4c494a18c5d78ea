"""A sampler that cannot be advanced."""

from collections.abc import Iterator

import torch
from torch import Tensor

from treenail.kernel import Sampler


class Forward:
    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = 0
        self.cursor = 0

    def __len__(self) -> int:
        return self.size

    def indices(self, cursor: int, count: int) -> Tensor:
        return torch.arange(self.size)[cursor : cursor + count]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.cursor, self.size))

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.cursor = epoch, 0

    def state_dict(self) -> dict[str, object]:
        return {"epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.set_epoch(0)


sampler: Sampler = Forward(10)  # E: "Forward" is missing following "Sampler" protocol member ... advance

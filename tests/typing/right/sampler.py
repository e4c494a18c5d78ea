"""A sampler of one's own: every index, from the last to the first."""

from collections.abc import Iterator, Sized

import torch
from torch import Tensor

from treenail.adapters.data import Loader
from treenail.contracts import Data
from treenail.kernel import Late, Sampler, late, spec


class ReversedSampler:
    def __init__(self, dataset: Sized, stride: int = 1) -> None:
        self.size = len(dataset)
        self.stride = stride
        self.epoch = 0
        self.cursor = 0

    def __len__(self) -> int:
        return len(range(0, self.size, self.stride))

    def indices(self, cursor: int, count: int) -> Tensor:
        return torch.arange(self.size - 1, -1, -self.stride)[cursor : cursor + count]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(self.cursor, len(self)).tolist())

    def advance(self, count: int) -> None:
        self.cursor += count

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.cursor = epoch, 0

    def state_dict(self) -> dict[str, object]:
        return {"epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        epoch, cursor = state_dict["epoch"], state_dict["cursor"]
        assert isinstance(epoch, int)
        assert isinstance(cursor, int)
        self.epoch, self.cursor = epoch, cursor


class Squares:
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> int:
        return index * index


described: Late[Sized, Sampler] = late(ReversedSampler)(stride=2)
data = Data(dataset=spec(Squares)(), batch_size=2, sampler=described)
sampler = described.build(range(5))
loader = Loader(data.dataset.build(), sampler, batch_size=data.batch_size)
assert [batch.tolist() for batch in loader if isinstance(batch, Tensor)] == [[16, 4], [0]]

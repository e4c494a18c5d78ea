"""Batches that tell which samples they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from treenail.contracts import Dataset


class IndexedBatch(NamedTuple):
    """A batch, and which samples are in it.

    Args:
        batch: As the samples were collated.
        indices: Of the samples in the dataset, int64[samples]; None where a sampler gives other things than indices.
        padding: Which of them are repeated only to give every rank as many, bool[samples].
    """

    batch: object
    indices: Tensor | None
    padding: Tensor


class Indexed:
    """A dataset whose samples carry their index; its `collate` makes an `IndexedBatch` of them.

    Args:
        dataset: The samples.
        collate: Makes a batch of a list of samples; torch's default_collate when None.
    """

    def __init__(self, dataset: Dataset, collate: Callable[[list[object]], object] | None = None) -> None:
        self.dataset = dataset
        self._collate = collate or default_collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, object]:
        return index, self.dataset[index]

    def collate(self, samples: list[object]) -> IndexedBatch:
        """Make a batch of samples that `__getitem__` gave."""
        indices, plain = zip(*samples, strict=True)
        padding = torch.tensor([bool(getattr(index, "padding", False)) for index in indices])
        whole = all(isinstance(index, int) for index in indices)
        numbers = torch.tensor([int(index) for index in indices]) if whole else None
        return IndexedBatch(self._collate(list(plain)), numbers, padding)

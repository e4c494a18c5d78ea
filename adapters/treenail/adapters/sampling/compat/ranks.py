"""What the samplers of other libraries have in common: the share of one rank, drawn from an order that ranks have in common."""

from __future__ import annotations

from collections.abc import Sized

import torch
from torch import Tensor

from treenail.adapters.sampling.epochs import IndexSampler
from treenail.adapters.sampling.samplers import RandomSampler, SequentialSampler, Shuffle
from treenail.adapters.sampling.shard import Shard

ENDLESS = 2**60
"""Length of an order without end: more than any run draws, and small enough for sums of it to be int64."""


def is_endless(length: int) -> bool:
    """Return whether a length is that of an order without end, or of one of a few thousand ranks' share in it."""
    return length >= ENDLESS >> 16


class RankSampler(Shard[int]):
    """A `Shard` that also gives its indices in blocks, so that configs take it wherever they take a sampler."""

    def indices(self, cursor: int, count: int) -> Tensor:
        """Return the next indices that this rank draws when all ranks together stand at a cursor.

        Args:
            cursor: Position in the current epoch, counted over all ranks: 0 … length of the epoch, without padding.
            count: How many of this rank's, at least 0.

        Returns:
            int64[min(count, what is left for this rank)]

        Raises:
            ValueError: cursor or count is out of range.
        """
        length = len(self.sampler)
        if not 0 <= cursor <= length or count < 0:
            raise ValueError(f"nothing to draw: {count} from cursor {cursor} on; the epoch has 0 … {length}")
        start, stop = cursor + self.rank, cursor + self._stop(length - cursor)
        positions = torch.arange(
            start, max(start, min(start + count * self.world_size, stop)), self.world_size, device="cpu"
        )
        if not len(positions):
            return positions
        return torch.tensor(self.draw(self.epoch, positions), dtype=torch.int64, device="cpu")


def shuffled_or_not(dataset: int | Sized, seed: int, order: Shuffle, *, shuffle: bool) -> IndexSampler:
    """Return the order of a dataset's indices that ranks share."""
    return RandomSampler(dataset, seed, shuffle=order) if shuffle else SequentialSampler(dataset)

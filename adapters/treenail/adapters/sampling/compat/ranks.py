"""What the samplers of other libraries have in common: the share of one rank, drawn from an order that ranks have in common."""

from __future__ import annotations

from collections.abc import Sized

import torch
from torch import Tensor

from treenail.adapters.sampling.epochs import IndexSampler, at_least, whole
from treenail.adapters.sampling.samplers import RandomSampler, SequentialSampler, Shuffle
from treenail.adapters.sampling.shard import Shard, process_rank

ENDLESS = 2**60
"""Length of an order without end: more than any run draws, and small enough for sums of it to be int64."""


def is_endless(order: object) -> bool:
    """Return whether an order has no end, which a true attribute ``endless`` says; however long others are, they have one."""
    return getattr(order, "endless", False) is True


def any_rank(rank: int | None) -> int:
    """Return a rank in a world whose size does not matter: the process group's when None is given, 0 without one.

    Raises:
        ValueError: It is negative.
    """
    return process_rank(None, None)[0] if rank is None else at_least(0, rank, "rank")


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
        cursor, count, length = whole(cursor, "cursor"), whole(count, "count"), len(self.sampler)
        if not 0 <= cursor <= length or count < 0:
            raise ValueError(f"nothing to draw: {count} from cursor {cursor} on; the epoch has 0 … {length}")
        start, stop = cursor + self.rank, cursor + self.stop(length - cursor)
        positions = torch.arange(
            start, max(start, min(start + count * self.world_size, stop)), self.world_size, device="cpu"
        )
        if not len(positions):
            return positions
        return torch.tensor(self.draw(self.epoch, positions), dtype=torch.int64, device="cpu")


def shuffled_or_not(dataset: int | Sized, seed: int, order: Shuffle, *, shuffle: bool) -> IndexSampler:
    """Return the order of a dataset's indices that ranks share."""
    return RandomSampler(dataset, seed, shuffle=order) if shuffle else SequentialSampler(dataset)

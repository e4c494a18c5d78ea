"""What ranks draw of Treenail's samplers, and of a stranger's, obeys the laws of shards."""

from collections.abc import Hashable, Iterator, Mapping

import torch
from torch import Tensor

from treenail.adapters.sampling import BucketBatchSampler, Padding, RandomSampler, Shard, SubsetSampler
from treenail.contracts import SamplerShard
from treenail.contracts.laws import SamplerLaws, ShardLaws
from treenail.kernel import Sampler, StateError


class ReversedOrder:
    """A stranger's sampler, written by the kernel's Protocol alone: the last index first, every second epoch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.position = (0, 0)

    @property
    def epoch(self) -> int:
        return self.position[0]

    @property
    def cursor(self) -> int:
        return self.position[1]

    def __len__(self) -> int:
        return self.size

    def indices(self, cursor: int, count: int) -> Tensor:
        if not 0 <= cursor <= self.size or count < 0:
            raise ValueError(f"{count} from {cursor} of {self.size}")
        positions = torch.arange(cursor, min(cursor + count, self.size))
        return positions if self.epoch % 2 else self.size - 1 - positions

    def __iter__(self) -> Iterator[int]:
        places = range(self.cursor, self.size)
        return iter(places) if self.epoch % 2 else (self.size - 1 - place for place in places)

    def advance(self, count: int) -> None:
        if not 0 <= count <= self.size - self.cursor:
            raise ValueError(f"{count} at {self.cursor} of {self.size}")
        self.position = self.epoch, self.cursor + count

    def set_epoch(self, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"epoch {epoch}")
        if epoch != self.epoch:
            self.position = epoch, 0

    def state_dict(self) -> dict[str, object]:
        return {"epoch": self.epoch, "cursor": self.cursor, "of": self.size}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        epoch, cursor, size = (state_dict.get(name) for name in ("epoch", "cursor", "of"))
        if size != self.size:
            raise StateError(f"a state of {size}", mend=f"take one of {self.size}")
        if type(epoch) is not int or type(cursor) is not int or epoch < 0 or not 0 <= cursor <= self.size:
            raise StateError(f"no position {epoch}, {cursor}")
        self.position = epoch, cursor


class TestReversedOrder(SamplerLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return ReversedOrder(size)

    def stream(self, seed: int, epoch: int) -> Hashable:
        return epoch % 2

    def pass_stream(self, seed: int, epoch: int, number: int) -> Hashable:
        return epoch % 2

    seeded = False


class TestShard(ShardLaws):
    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        return Shard(RandomSampler(size, seed), rank, world_size, padding=padding)


class TestMarkedShard(ShardLaws):
    marked = True

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        sampler = RandomSampler(size, seed)
        return Shard(sampler, rank, world_size, padding=padding, marked=True)


class TestShardOfBatches(ShardLaws):
    marked = True

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        lengths = [float(number % 5) for number in range(size)]
        batches = BucketBatchSampler(size, lengths, 2, num_buckets=3, seed=seed)
        return Shard(batches, rank, world_size, padding=padding, marked=True)


class TestShardOfASubset(ShardLaws):
    marked = True

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        sampler = SubsetSampler(2 * size, range(1, 2 * size, 2), seed=seed)
        return Shard(sampler, rank, world_size, padding=padding, marked=True)

    def counts(self, size: int) -> Mapping[int, int]:
        return dict.fromkeys(range(1, 2 * size, 2), 1)


class TestShardOfAStrangersSampler(ShardLaws):
    seeded = False
    marked = True

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        return Shard(ReversedOrder(size), rank, world_size, padding=padding, marked=True)

    def stream(self, seed: int, epoch: int) -> Hashable:
        return epoch % 2

"""Each law of batch samplers fails on one that breaks it; a comment names the real bug that a mutant repeats."""

import pytest
import torch
from torch import Tensor

from treenail.adapters.sampling import IndexBatchSampler as EpochBatchSampler
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import BatchSampler
from treenail.contracts.laws import BatchSamplerLaws, SamplerLaws

from .mutation import Law, assert_all_proved, assert_kills, laws_of


class Mutant(EpochBatchSampler):
    """What mutants change: a shuffled order cut into batches."""

    def __init__(self, size: int, batch_size: int, seed: int, drop_last: bool) -> None:
        self.check(batch_size)
        self.size, self.batch_size, self.seed, self.drop_last = size, batch_size, seed, drop_last
        self.orders = dict[int, list[int]]()  # by epoch
        identity: dict[str, object] = {"size": size, "batch_size": batch_size, "seed": seed, "drop_last": drop_last}
        super().__init__(self.length(), identity)

    def check(self, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}")

    def length(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def draw(self, epoch: int, positions: Tensor) -> list[list[int]]:
        return [self.batch(epoch, number) for number in positions.tolist()]

    def batch(self, epoch: int, number: int) -> list[int]:
        if epoch not in self.orders:
            self.orders[epoch] = RandomSampler(self.size, self.seed).draw(epoch, torch.arange(self.size))
        return self.orders[epoch][number * self.batch_size : (number + 1) * self.batch_size]


class FillsUpTheLastBatch(Mutant):
    # SCEPTER SMP-05: a batch larger than its leaf is filled with records that it has
    def batch(self, epoch: int, number: int) -> list[int]:
        batch = super().batch(epoch, number)
        return (batch * self.batch_size)[: self.batch_size]


class DrawsShortLeavesMoreOften(Mutant):
    # SCEPTER SMP-05, weakness E 12: a leaf is chosen uniformly, so that a short last one is drawn too often
    def batch(self, epoch: int, number: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed + epoch * 1000 + number)
        return super().batch(epoch, int(torch.randint(self.length(), (), generator=generator)))


class LosesTheRemainder(Mutant):
    # grain's DataLoader dropped the remainder of a shard without drop_remainder, too
    def length(self) -> int:
        return self.size // self.batch_size


class YieldsRecords(Mutant):
    # SCEPTER SMP-03 and SMP-05: what comes is [*fields, image_size, …], not indices
    def batch(self, epoch: int, number: int) -> list[int]:
        return [str(index) for index in super().batch(epoch, number)]  # type: ignore[misc]  # what it breaks


class YieldsTuples(Mutant):
    def batch(self, epoch: int, number: int) -> list[int]:
        return tuple(super().batch(epoch, number))  # type: ignore[return-value]  # what it breaks


class YieldsBlanks(Mutant):
    # SCEPTER SMP-04 and SMP-05, weakness E 12: an empty leaf or a missing index file gives blank batches
    def length(self) -> int:
        return super().length() + 1

    def batch(self, epoch: int, number: int) -> list[int]:
        return super().batch(epoch, number) if number * self.batch_size < self.size else []


class KeepsTheLastBatch(Mutant):
    def length(self) -> int:
        return -(-self.size // self.batch_size)


class DropsACompleteBatch(Mutant):
    # helios HEL-07: drop_last leaves out more than "the final sample"
    def length(self) -> int:
        return max(0, (self.size - 1) // self.batch_size) if self.drop_last else super().length()


class ChecksWhenIterated(Mutant):
    # helios HEL-04: a batch_size of 0 is found when the first batch is drawn
    def check(self, batch_size: int) -> None:
        pass

    def length(self) -> int:
        return super().length() if self.batch_size > 0 else self.size


class ReturnsItsMemory(Mutant):
    memory: dict[tuple[int, int], list[int]] | None = None

    def batch(self, epoch: int, number: int) -> list[int]:
        self.memory = self.memory if self.memory is not None else {}
        return self.memory.setdefault((epoch, number), super().batch(epoch, number))


class ShufflesBatchesOnly(Mutant):
    # accelerate and others shuffle the batches of one fixed order
    def batch(self, epoch: int, number: int) -> list[int]:
        return super().batch(0, int(RandomSampler(self.length(), self.seed).at(epoch, torch.tensor([number]))))


class ShufflesBucketsGlobally(Mutant):
    # SCEPTER SMP-08: the order of buckets comes from the global generator
    def batch(self, epoch: int, number: int) -> list[int]:
        return super().batch(epoch, int(torch.randperm(self.length())[number]))


MUTANTS: list[tuple[type[Mutant], Law]] = [
    (FillsUpTheLastBatch, BatchSamplerLaws.test_an_epoch_has_what_it_should),
    (DrawsShortLeavesMoreOften, BatchSamplerLaws.test_an_epoch_has_what_it_should),
    (LosesTheRemainder, BatchSamplerLaws.test_an_epoch_has_what_it_should),
    (YieldsRecords, BatchSamplerLaws.test_batches_are_lists_of_ints),
    (YieldsTuples, BatchSamplerLaws.test_batches_are_lists_of_ints),
    (YieldsBlanks, BatchSamplerLaws.test_batches_are_lists_of_ints),
    (KeepsTheLastBatch, BatchSamplerLaws.test_drop_last_leaves_out_incomplete_batches_only),
    (DropsACompleteBatch, BatchSamplerLaws.test_drop_last_leaves_out_incomplete_batches_only),
    (ChecksWhenIterated, BatchSamplerLaws.test_a_batch_has_samples),
    (ReturnsItsMemory, BatchSamplerLaws.test_batches_are_not_aliased),
    (ShufflesBatchesOnly, BatchSamplerLaws.test_blocks_tell_epochs_apart),
    (ShufflesBucketsGlobally, BatchSamplerLaws.test_global_generators_are_left_alone),
]


class TestUnchanged(BatchSamplerLaws):
    """What the mutants change obeys the laws."""

    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        return Mutant(size, batch_size, seed, drop_last)


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(mutant: type[Mutant], law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(BatchSamplerLaws):
        def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
            return mutant(size, batch_size, seed, drop_last)

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    """Those that batch samplers share with samplers of indices are proved by the mutants of those."""
    shared = [
        getattr(SamplerLaws, name)
        for name in laws_of(SamplerLaws)
        if getattr(SamplerLaws, name) is getattr(BatchSamplerLaws, name, None)
    ]
    assert_all_proved(BatchSamplerLaws, [*shared, *(law for _, law in MUTANTS)])

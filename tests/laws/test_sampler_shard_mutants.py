"""Each law of shards fails on one that breaks it; a comment names the real bug that a mutant repeats."""

from collections.abc import Iterator

import pytest
import torch

from treenail.adapters.sampling import Padding, RandomSampler, SampleIndex, Shard
from treenail.contracts import SamplerShard
from treenail.contracts.laws import ShardLaws
from treenail.kernel import mix

from .mutation import Law, assert_all_proved, assert_kills


class Mutant(Shard[int]):
    """What mutants change: every world_size-th index of a shuffled order."""

    sampler: RandomSampler
    padding: Padding

    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        super().__init__(RandomSampler(size, seed), rank, world_size, padding=padding, marked=True)
        self.size, self.seed = size, seed

    def left(self) -> list[int]:
        return list(self.sampler)


class EachRankDrawsAll(Mutant):
    # SCEPTER SMP-02, weakness E 3: the evaluation sampler does not split, metrics are over world_size copies
    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)


class DrawsContiguousBlocks(Mutant):
    # SCEPTER SMP-02's layout: after k steps, no prefix of an order has been seen that another world could go on from
    def __iter__(self) -> Iterator[int]:
        left, each = self.left(), self.remaining
        return iter((left + left)[self.rank * each : (self.rank + 1) * each])


class LenIsRoundedUp(Mutant):
    # SCEPTER SMP-02: len is ceil(N / world_size) on a last rank that has fewer
    def __len__(self) -> int:
        return -(-self.size // self.world_size) if self.padding == "none" else super().__len__()


class LenIsWhatIsLeft(Mutant):
    def __len__(self) -> int:
        return self.remaining


class RemainingIsLen(Mutant):
    # helios HEL-10: the loader's length stays that of the whole epoch after a resume, progress is wrong
    @property
    def remaining(self) -> int:
        return len(self)


class PadsOnceOver(Mutant):
    # SCEPTER SMP-01: the padding is cut from a list that is shorter than what is missing (1 sample, 4 ranks)
    def __iter__(self) -> Iterator[int]:
        most = len(range(self.rank, 2 * (self.size - self.cursor), self.world_size))
        drawing = super().__iter__()
        return iter([index for _, index in zip(range(most), drawing, strict=False)])


class DropsUnevenly(Mutant):
    # mmengine round_up=False and others: the first ranks have one more, and wait for ever in the last all-reduce
    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        super().__init__(size, seed, rank, world_size, "none" if padding == "drop" else padding)


class DropsTheRemainder(Mutant):
    # grain's DataLoader dropped the remainder of a shard, whatever drop_remainder said
    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        super().__init__(size, seed, rank, world_size, "drop" if padding == "none" else padding)


class LosesTheLastSample(Mutant):
    # helios HEL-07's wording: drop_last drops "the final sample", here always
    def __iter__(self) -> Iterator[int]:
        return iter(list(super().__iter__())[: max(0, len(self) - 1)] if self.world_size == 1 else super().__iter__())


class SeedsByRank(Mutant):
    # SCEPTER SMP-05 and SMP-06, weakness E 12: ranks draw from seed + rank, seed 1 rank 0 is seed 0 rank 1
    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        super().__init__(size, seed, rank, world_size, padding)
        self.streams = RandomSampler(size, seed + rank)

    def __iter__(self) -> Iterator[int]:
        self.streams.set_epoch(self.epoch)
        order = self.streams.indices(0, self.size).tolist()
        return iter([order[(self.cursor + step) % self.size] for step in range(self.remaining)])


class SeedsByWorld(Mutant):
    # streaming and others: a shuffle that knows the number of ranks is another one after a change of it
    def __iter__(self) -> Iterator[int]:
        order = RandomSampler(self.size, mix(self.seed, self.world_size))
        order.set_epoch(self.epoch)
        order.advance(self.cursor)
        return iter(Shard(order, self.rank, self.world_size, padding=self.padding, marked=True))


class SavesItsOwnCount(Mutant):
    # torchdata (ANCHORS G4), helios HEL-04 and HEL-07: the state counts a rank's items; 4 to 2 ranks repeats samples
    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"cursor": self.cursor // self.world_size}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        cursor = state_dict["cursor"]
        assert isinstance(cursor, int)
        super().load_state_dict(state_dict | {"cursor": min(cursor * self.world_size, self.size)})


class AdvancesByOne(Mutant):
    # helios HEL-12, weakness E 2: the batch size is not passed on; after a step of 4 a resume goes on at 1, not at 4
    def advance(self, count: int) -> None:
        super().advance(min(count, 1))


class CountsWhatIsPrefetched(Mutant):
    # loaders whose state counts what workers fetched
    def __iter__(self) -> Iterator[int]:
        for index in super().__iter__():
            self.sampler.advance(min(self.world_size, self.size - self.cursor))
            yield index


class SavesABatchAhead(Mutant):
    # accelerate #3034: the wrapper around shards holds the next batch when the state is taken
    ahead = 0

    def __iter__(self) -> Iterator[int]:
        for index in super().__iter__():
            self.ahead = min(self.world_size, self.size - self.cursor)
            yield index

    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"cursor": self.cursor + self.ahead}


class LooksAtThePositionWhileIterating(Mutant):
    def __iter__(self) -> Iterator[int]:
        while self.remaining:
            yield next(iter(super().__iter__()))


class ChangesEpochWhileIterating(Mutant):
    def __iter__(self) -> Iterator[int]:
        for place in range(self.cursor + self.rank, self.size, 1000 * self.world_size):
            yield from self.sampler.indices(place, 1000 * self.world_size)[:: self.world_size].tolist()


class AdvancesPastTheEnd(Mutant):
    # helios HEL-10: a position past the end is taken, and the epoch is empty
    def advance(self, count: int) -> None:
        if count < 0 or self.remaining:
            super().advance(count)


class AdvancesBackwards(Mutant):
    def advance(self, count: int) -> None:
        super().advance(max(count, 0))


class StartsOverInTheSameEpoch(Mutant):
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.sampler.cursor = 0


class NeverEndsItsEpoch(Mutant):
    # helios HEL-13, weakness E 1: saved at an epoch's last batch, all later epochs are empty
    def set_epoch(self, epoch: int) -> None:
        cursor = self.cursor
        super().set_epoch(epoch)
        self.sampler.cursor = cursor


class TakesNegativeEpochs(Mutant):
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(abs(epoch))


class IgnoresTheEpoch(Mutant):
    # torch's DistributedSampler without set_epoch: every epoch has the same order
    def __iter__(self) -> Iterator[int]:
        return iter(Shard(RandomSampler(self.size, self.seed), self.rank, self.world_size))


class ChecksTheRankWhenIterated(Mutant):
    # SCEPTER SMP-01: a rank outside the world is found at the first iteration
    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        world_size = max(world_size, 1)
        super().__init__(size, seed, rank % world_size, world_size, padding)


class TakesAnyPadding(Mutant):
    def __init__(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> None:
        super().__init__(size, seed, rank, world_size, padding if padding in {"repeat", "drop"} else "none")


class SavesItsRank(Mutant):
    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"rank": self.rank}


class TakesAnySeed(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"seed": self.seed})


class MarksNothing(Mutant):
    # torch's DistributedSampler: 50 samples on 8 ranks are 56, and no metric can tell which 6 to leave out
    def __iter__(self) -> Iterator[int]:
        return (SampleIndex(index, self.epoch, padding=False) for index in super().__iter__())


class MarksTheWholeLastStep(Mutant):
    def __iter__(self) -> Iterator[int]:
        indices = list(super().__iter__())
        return (SampleIndex(index, self.epoch, number == len(indices) - 1) for number, index in enumerate(indices))


class ShufflesGlobally(Mutant):
    # torch's RandomSampler without a generator
    def __iter__(self) -> Iterator[int]:
        indices = list(super().__iter__())
        return (indices[place] for place in torch.randperm(len(indices)).tolist())


class GoesForwardOnly(Mutant):
    # loops that resume by skipping what comes: an earlier checkpoint cannot be gone back to
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        epoch, cursor = self.epoch, self.cursor
        super().load_state_dict(state_dict)
        if self.epoch == epoch:
            self.sampler.cursor = max(cursor, self.cursor)


MUTANTS: list[tuple[type[Mutant], Law]] = [
    (EachRankDrawsAll, ShardLaws.test_shares_are_disjoint_and_cover_the_epoch),
    (DropsTheRemainder, ShardLaws.test_shares_are_disjoint_and_cover_the_epoch),
    (SeedsByRank, ShardLaws.test_shares_are_disjoint_and_cover_the_epoch),
    (DrawsContiguousBlocks, ShardLaws.test_steps_follow_the_global_order),
    (SeedsByWorld, ShardLaws.test_steps_follow_the_global_order),
    (SavesItsOwnCount, ShardLaws.test_a_run_changes_its_world_size_at_any_step),
    (LosesTheLastSample, ShardLaws.test_a_single_process_draws_the_whole_epoch),
    (PadsOnceOver, ShardLaws.test_shares_are_equally_long),
    (DropsUnevenly, ShardLaws.test_shares_are_equally_long),
    (LenIsRoundedUp, ShardLaws.test_len_and_remaining_count_what_is_drawn),
    (LenIsWhatIsLeft, ShardLaws.test_len_and_remaining_count_what_is_drawn),
    (RemainingIsLen, ShardLaws.test_len_and_remaining_count_what_is_drawn),
    (MarksNothing, ShardLaws.test_repeated_items_are_marked),
    (MarksTheWholeLastStep, ShardLaws.test_repeated_items_are_marked),
    (ShufflesGlobally, ShardLaws.test_global_generators_are_left_alone),
    (CountsWhatIsPrefetched, ShardLaws.test_drawing_moves_nothing),
    (SavesABatchAhead, ShardLaws.test_drawing_moves_nothing),
    (AdvancesByOne, ShardLaws.test_advance_counts_the_items_of_each_rank),
    (LooksAtThePositionWhileIterating, ShardLaws.test_advancing_does_not_disturb_an_iteration),
    (ChangesEpochWhileIterating, ShardLaws.test_an_iteration_stays_in_its_epoch),
    (AdvancesPastTheEnd, ShardLaws.test_advance_refuses_what_does_not_exist),
    (AdvancesBackwards, ShardLaws.test_advance_refuses_what_does_not_exist),
    (StartsOverInTheSameEpoch, ShardLaws.test_set_epoch_of_this_epoch_keeps_the_position),
    (NeverEndsItsEpoch, ShardLaws.test_set_epoch_of_another_epoch_goes_to_its_start),
    (TakesNegativeEpochs, ShardLaws.test_set_epoch_refuses_negative_epochs),
    (IgnoresTheEpoch, ShardLaws.test_epochs_and_seeds_differ),
    (ChecksTheRankWhenIterated, ShardLaws.test_ranks_and_paddings_exist),
    (TakesAnyPadding, ShardLaws.test_ranks_and_paddings_exist),
    (SavesItsRank, ShardLaws.test_the_state_is_equal_on_all_ranks),
    (TakesAnySeed, ShardLaws.test_a_state_of_another_order_is_refused),
    (GoesForwardOnly, ShardLaws.test_any_sequence_of_actions),
]


class TestUnchanged(ShardLaws):
    """What the mutants change obeys the laws."""

    marked = True

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        return Mutant(size, seed, rank, world_size, padding)


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(mutant: type[Mutant], law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(ShardLaws):
        marked = True

        def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
            return mutant(size, seed, rank, world_size, padding)

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(ShardLaws, [law for _, law in MUTANTS])

"""Each law of samplers fails on a sampler that breaks it; a comment names the real bug that a mutant repeats.

The laws that batch samplers share are proved here, too.
"""

import random
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from treenail.adapters.sampling import RandomSampler
from treenail.contracts.laws import SamplerLaws
from treenail.kernel import Sampler, StateError, mix

from .mutation import Law, assert_all_proved, assert_kills


class Mutant(RandomSampler):
    """What mutants change: the order from one position to another."""

    passes = 1

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(size, seed, repeats=self.passes)
        self.size = size

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        return self._order(epoch, int(positions[0]), int(positions[-1]) + 1) if len(positions) else positions

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return super().at(epoch, torch.arange(start, stop))


class WithReplacement(Mutant):
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return super()._order(epoch, 0, self.size)[(super()._order(epoch, 0, self.size) // 2)][start:stop]


class ForgetsTheLastOfPowersOfTwo(Mutant):
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        order = super()._order(epoch, 0, self.size)
        if self.size > 2 and self.size & (self.size - 1) == 0:
            order[order == self.size - 1] = 0
        return order[start:stop]


class SortsEachBlock(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        return super().indices(cursor, count).sort().values


class PadsTheEnd(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        block = super().indices(cursor, count)
        return torch.cat([block, block[: count - len(block)]])


class Int32(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        return super().indices(cursor, count).int()


class Columns(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        return super().indices(cursor, count).unsqueeze(1)


class DependsOnThePast(Mutant):
    drawn = 0

    def set_epoch(self, epoch: int) -> None:
        self.drawn += epoch != self.epoch
        super().set_epoch(epoch)

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, self.drawn))
        return torch.randperm(self.size, generator=generator)[start:stop]


class DependsOnTheGlobalSeed(Mutant):
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, torch.initial_seed()))
        return torch.randperm(self.size, generator=generator)[start:stop]


class SeedsTheGlobalGenerator(Mutant):
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        torch.manual_seed(mix(self.seed, self.epoch))
        return torch.randperm(self.size)[start:stop]


class ConsumesRandom(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        random.random()
        return super().indices(cursor, count)


class IgnoresTheEpoch(Mutant):
    # SCEPTER SMP-06: the mixture passes set_epoch on to none of its sources
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))[start:stop]


class IgnoresTheSeed(Mutant):
    # SCEPTER SMP-01, weakness E 11: MultiFold takes no seed, every experiment has the same orders
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch))[start:stop]


class AddsSeedAndEpoch(Mutant):
    # torch, mmengine, helios HEL-05 and HEL-11: seed 0 epoch 1 is seed 1 epoch 0
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(self.size, generator=generator)[start:stop]


class ReturnsItsMemory(Mutant):
    memory: Tensor | None = None

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        if self.memory is None:
            self.memory = super()._order(epoch, 0, self.size)
        return self.memory[start:stop]


class BeginsAtEpochOne(Mutant):
    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(size, seed)
        self.epoch = 1


class DrawingMoves(Mutant):
    # Lightning and others: the state counts what workers prefetched, not what was consumed
    def __iter__(self) -> Iterator[int]:
        for index in super().__iter__():
            self.cursor += 1
            yield index


class IteratesFromTheStart(Mutant):
    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(0, self.size).tolist())


class IteratesTensors(Mutant):
    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(self.cursor, self.size))


class LooksAtTheCursorWhileIterating(Mutant):
    def __iter__(self) -> Iterator[int]:
        number = 0
        while self.cursor + number < self.size:
            yield int(self.indices(self.cursor + number, 1))
            number += 1


class ChangesEpochWhileIterating(Mutant):
    def __iter__(self) -> Iterator[int]:
        for start in range(self.cursor, self.size, 1000):
            yield from self.indices(start, 1000).tolist()


class AdvancesByOne(Mutant):
    def advance(self, count: int) -> None:
        super().advance(min(count, 1))


class AdvancesAnywhere(Mutant):
    # helios HEL-10: start_iter = -1 leads to the last batch, one too large to an empty epoch
    def advance(self, count: int) -> None:
        self.cursor += count


class StopsAtTheEnd(Mutant):
    def advance(self, count: int) -> None:
        super().advance(min(count, self.size - self.cursor))


class SlicesLikePython(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        return self._order(self.epoch, 0, self.size)[cursor : cursor + count]


class TakesANegativeCount(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        return super().indices(cursor, max(count, 0))


class LenIsWhatIsLeft(Mutant):
    def __len__(self) -> int:
        return self.size - self.cursor


class StartsOverInTheSameEpoch(Mutant):
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.cursor = 0


class KeepsTheCursorInTheNextEpoch(Mutant):
    def set_epoch(self, epoch: int) -> None:
        self.epoch, cursor = (epoch, self.cursor) if epoch >= 0 else (self.epoch, self.cursor)
        super().set_epoch(epoch)
        self.cursor = cursor


class TakesNegativeEpochs(Mutant):
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(abs(epoch))


class ForgetsTheCursor(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"cursor": 0})


class ForgetsTheEpoch(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"epoch": 0})


class CountsSinceTheResume(Mutant):
    resumed_at = 0

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.resumed_at = self.cursor

    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"cursor": self.cursor - self.resumed_at}


class SavesThePermutation(Mutant):
    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"order": self.indices(0, self.size).tolist()}


class SavesTensors(Mutant):
    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"cursor": torch.tensor(self.cursor)}


class TakesAnySize(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"size": self.size})


class TakesAnySeed(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"seed": self.seed})


class MovesBeforeItRefuses(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.cursor = 0
        super().load_state_dict(state_dict)


class ShufflesByBatchSize(Mutant):
    def indices(self, cursor: int, count: int) -> Tensor:
        super().indices(cursor, count)
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, count))
        return torch.randperm(self.size, generator=generator)[cursor : cursor + count]


class LosesARecordAfterAPowerOfTwo(Mutant):
    # grain's index_shuffle (ANCHORS G1): at N = 2^k+1 the cipher is one bit short; record N-1 is lost, another doubled
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        order = super()._order(epoch, start, stop)
        if self.size > 2**16 and (self.size - 1).bit_count() == 1:
            order[order == self.size - 1] = 0
        return order


class FoldsOverlap(Mutant):
    # SCEPTER SMP-01, weakness E 11: pass f is seeded by epoch + f, so that pass 1 of epoch 0 is pass 0 of epoch 1
    passes = 2

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        positions, once = torch.arange(start, stop), RandomSampler(self.size, self.seed)
        parts = [
            once.at(epoch + fold, positions[positions // max(self.size, 1) == fold] % self.size) for fold in (0, 1)
        ]
        return torch.cat(parts)


class CountsInInt32(Mutant):
    # positions beyond 2**31 wrap around, as in tables of int32 offsets
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return RandomSampler.at(self, epoch, torch.arange(start, stop) % 2**31)


class CountsInFloat32(Mutant):
    # neighbouring positions beyond 2**24 fall together
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        positions = torch.arange(start, stop).float().long().clamp_(max=self.size - 1)
        return RandomSampler.at(self, epoch, positions)


class SavesARoundedCursor(Mutant):
    # a progress of float32 cannot say a position beyond 2**24
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.cursor = min(int(torch.tensor(self.cursor, dtype=torch.float32)), self.size)


class IteratesInWholeBlocks(Mutant):
    # the incomplete last block of a long epoch is never drawn
    def __iter__(self) -> Iterator[int]:
        stop = self.size // 4096 * 4096 if self.size > 10**6 else self.size
        for start in range(self.cursor, stop, 4096):
            yield from self.at(self.epoch, torch.arange(start, min(start + 4096, stop))).tolist()


class TruncatesLaterEpochs(Mutant):
    # helios HEL-04, HEL-10, HEL-13, weakness E 1: start_iter is never reset, every later epoch lacks what the first had
    skipped = 0

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.skipped = self.cursor

    def set_epoch(self, epoch: int) -> None:
        if epoch > self.epoch:
            super().set_epoch(epoch)
            self.cursor = self.skipped


class ResumesInTheNextEpoch(Mutant):
    # helios HEL-13, weakness E 1: the epoch was counted up before it was saved, the rest of epoch 0 is that of epoch 1
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        self.epoch += 1


class SavesABatchAhead(Mutant):
    # accelerate #3034: its loader has fetched the next batch when the state is taken
    ahead = 0

    def __iter__(self) -> Iterator[int]:
        for index in super().__iter__():
            self.ahead = min(1, self.size - self.cursor)
            yield index
        self.ahead = 0

    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"cursor": self.cursor + self.ahead}


class IteratesOn(Mutant):
    # SCEPTER SMP-05 and SMP-06, weakness E 12: a second iteration goes on where the first one ended
    under_way: Iterator[int] | None = None

    def __iter__(self) -> Iterator[int]:
        self.under_way = self.under_way or super().__iter__()
        return self.under_way


class EndsInRuntimeError(Mutant):
    # SCEPTER SMP-06: the end of a finite source is a StopIteration within a generator
    def __iter__(self) -> Iterator[int]:
        source = super().__iter__()
        while True:
            yield next(source)


class HasNoState(Mutant):
    # SCEPTER SMP-05 and SMP-06, weakness E 12: nothing is saved, a resumed run begins the epoch again
    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


class IsEndless(Mutant):
    # SCEPTER SMP-05 and SMP-06: len is sys.maxsize, list() of it a MemoryError
    def __len__(self) -> int:
        return sys.maxsize


class GoesToAnyPosition(Mutant):
    # helios HEL-10: a position is not looked at before it is used
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict | {"cursor": 0})
        cursor = state_dict.get("cursor")
        self.cursor = cursor if isinstance(cursor, int) else 0


class SharesItsState(Mutant):
    shared: dict[str, object] | None = None

    def state_dict(self) -> dict[str, object]:
        self.shared = self.shared if self.shared is not None else {}
        self.shared.update(super().state_dict())
        return self.shared

    def advance(self, count: int) -> None:
        super().advance(count)
        self.state_dict()


class RefusesWithoutAMend(Mutant):
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        try:
            super().load_state_dict(state_dict)
        except StateError as error:
            raise StateError(error.message) from None


class GoesForwardOnly(Mutant):
    # mmengine and others that resume by skipping what comes: an earlier checkpoint cannot be gone back to
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        epoch, cursor = self.epoch, self.cursor
        super().load_state_dict(state_dict)
        if self.epoch == epoch:
            self.cursor = max(cursor, self.cursor)


MUTANTS: list[tuple[type[Mutant], Law]] = [
    (WithReplacement, SamplerLaws.test_an_epoch_has_what_it_should),
    (ForgetsTheLastOfPowersOfTwo, SamplerLaws.test_an_epoch_has_what_it_should),
    (SortsEachBlock, SamplerLaws.test_blocks_join),
    (PadsTheEnd, SamplerLaws.test_fewer_come_back_at_the_end),
    (Int32, SamplerLaws.test_indices_are_int64_vectors),
    (Columns, SamplerLaws.test_indices_are_int64_vectors),
    (DependsOnThePast, SamplerLaws.test_the_order_is_a_pure_function),
    (DependsOnTheGlobalSeed, SamplerLaws.test_the_order_is_a_pure_function),
    (SeedsTheGlobalGenerator, SamplerLaws.test_global_generators_are_left_alone),
    (ConsumesRandom, SamplerLaws.test_global_generators_are_left_alone),
    (IgnoresTheEpoch, SamplerLaws.test_epochs_differ),
    (IgnoresTheSeed, SamplerLaws.test_seeds_differ),
    (AddsSeedAndEpoch, SamplerLaws.test_seed_and_epoch_are_not_added),
    (ReturnsItsMemory, SamplerLaws.test_blocks_are_not_aliased),
    (BeginsAtEpochOne, SamplerLaws.test_a_new_sampler_stands_at_the_start),
    (DrawingMoves, SamplerLaws.test_drawing_moves_nothing),
    (IteratesFromTheStart, SamplerLaws.test_iteration_goes_from_the_cursor_to_the_end),
    (IteratesTensors, SamplerLaws.test_iteration_yields_ints),
    (LooksAtTheCursorWhileIterating, SamplerLaws.test_advancing_does_not_disturb_an_iteration),
    (ChangesEpochWhileIterating, SamplerLaws.test_an_iteration_stays_in_its_epoch),
    (AdvancesByOne, SamplerLaws.test_advance_moves_the_cursor),
    (AdvancesAnywhere, SamplerLaws.test_advance_refuses_what_does_not_exist),
    (StopsAtTheEnd, SamplerLaws.test_advance_refuses_what_does_not_exist),
    (SlicesLikePython, SamplerLaws.test_blocks_refuse_what_does_not_exist),
    (TakesANegativeCount, SamplerLaws.test_blocks_refuse_what_does_not_exist),
    (LenIsWhatIsLeft, SamplerLaws.test_len_is_the_whole_epoch),
    (StartsOverInTheSameEpoch, SamplerLaws.test_set_epoch_of_this_epoch_keeps_the_cursor),
    (KeepsTheCursorInTheNextEpoch, SamplerLaws.test_set_epoch_of_another_epoch_goes_to_its_start),
    (TakesNegativeEpochs, SamplerLaws.test_set_epoch_refuses_negative_epochs),
    (ForgetsTheCursor, SamplerLaws.test_resume_equals_the_suffix),
    (ForgetsTheEpoch, SamplerLaws.test_resume_equals_the_suffix),
    (CountsSinceTheResume, SamplerLaws.test_a_run_resumes_twice_in_an_epoch),
    (SavesThePermutation, SamplerLaws.test_the_state_is_small_json),
    (SavesTensors, SamplerLaws.test_the_state_is_small_json),
    (TakesAnySize, SamplerLaws.test_a_state_of_another_size_is_refused),
    (TakesAnySeed, SamplerLaws.test_a_state_of_another_seed_is_refused),
    (MovesBeforeItRefuses, SamplerLaws.test_a_state_of_another_seed_is_refused),
    (ShufflesByBatchSize, SamplerLaws.test_shares_of_ranks_cover_the_epoch),
    (LosesARecordAfterAPowerOfTwo, SamplerLaws.test_a_large_epoch_has_each_index_once),
    (FoldsOverlap, SamplerLaws.test_passes_differ),
    (CountsInInt32, SamplerLaws.test_a_huge_epoch_repeats_no_index),
    (CountsInFloat32, SamplerLaws.test_a_huge_epoch_repeats_no_index),
    (SavesARoundedCursor, SamplerLaws.test_a_huge_epoch_resumes_anywhere),
    (IteratesInWholeBlocks, SamplerLaws.test_a_huge_epoch_ends),
    (TruncatesLaterEpochs, SamplerLaws.test_epochs_after_a_resume_are_whole),
    (ResumesInTheNextEpoch, SamplerLaws.test_resume_equals_the_suffix),
    (SavesABatchAhead, SamplerLaws.test_drawing_moves_nothing),
    (IteratesOn, SamplerLaws.test_iteration_goes_from_the_cursor_to_the_end),
    (EndsInRuntimeError, SamplerLaws.test_iteration_goes_from_the_cursor_to_the_end),
    (HasNoState, SamplerLaws.test_resume_equals_the_suffix),
    (IsEndless, SamplerLaws.test_len_is_the_whole_epoch),
    (GoesToAnyPosition, SamplerLaws.test_a_damaged_state_is_refused),
    (SharesItsState, SamplerLaws.test_a_state_is_a_copy),
    (RefusesWithoutAMend, SamplerLaws.test_a_state_of_another_size_is_refused),
    (GoesForwardOnly, SamplerLaws.test_any_sequence_of_actions),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(mutant: type[Mutant], law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(SamplerLaws):
        repeats = mutant.passes

        def make(self, size: int, seed: int) -> Sampler:
            return mutant(size, seed)

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(SamplerLaws, [law for _, law in MUTANTS])

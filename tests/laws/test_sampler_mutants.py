"""Each law of samplers fails on a sampler that breaks it."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from treenail.adapters.sampling import RandomSampler
from treenail.contracts.laws import SamplerLaws
from treenail.kernel import Sampler, mix

from .mutation import Law, assert_all_proved, assert_kills


class Mutant(RandomSampler):
    """What mutants change: the order from one position to another."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(size, seed)
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
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed))[start:stop]


class IgnoresTheSeed(Mutant):
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch))[start:stop]


class AddsSeedAndEpoch(Mutant):
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


MUTANTS: list[tuple[Callable[[int, int], Sampler], Law]] = [
    (WithReplacement, SamplerLaws.test_an_epoch_has_each_index_once),
    (ForgetsTheLastOfPowersOfTwo, SamplerLaws.test_an_epoch_has_each_index_once),
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
    (IteratesTensors, SamplerLaws.test_iteration_goes_from_the_cursor_to_the_end),
    (LooksAtTheCursorWhileIterating, SamplerLaws.test_advancing_does_not_disturb_an_iteration),
    (ChangesEpochWhileIterating, SamplerLaws.test_an_iteration_stays_in_its_epoch),
    (AdvancesByOne, SamplerLaws.test_advance_moves_the_cursor),
    (AdvancesAnywhere, SamplerLaws.test_advance_refuses_what_does_not_exist),
    (StopsAtTheEnd, SamplerLaws.test_advance_refuses_what_does_not_exist),
    (SlicesLikePython, SamplerLaws.test_indices_refuses_what_does_not_exist),
    (TakesANegativeCount, SamplerLaws.test_indices_refuses_what_does_not_exist),
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
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: Callable[[int, int], Sampler], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(SamplerLaws):
        def make(self, size: int, seed: int) -> Sampler:
            return mutant(size, seed)

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(SamplerLaws, [law for _, law in MUTANTS])

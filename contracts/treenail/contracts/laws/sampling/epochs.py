"""The laws that samplers of indices and samplers of batches share: an order, a position in it, a state."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.sampling._inputs import EPOCHS, FRACTIONS, LARGE, SEEDS, SIZES, keys
from treenail.kernel import Stateful

T_co = TypeVar("T_co", covariant=True)


class Ordered(Stateful, Protocol[T_co]):
    """What `treenail.kernel.Sampler` and `treenail.contracts.BatchSampler` have in common."""

    @property
    def epoch(self) -> int:
        """The current epoch."""
        ...

    @property
    def cursor(self) -> int:
        """Items of it that were consumed."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...

    def advance(self, count: int) -> None:
        """Record consumed items."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        ...


S = TypeVar("S", bound=Ordered[object])


class EpochLaws(ABC, Generic[S]):
    """An order is a function of the arguments and the epoch alone; a position in it is moved by `advance` alone.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
        hashed: False for an order that depends on the sum of seed and epoch only, as torch's own samplers have it.
    """

    seeded: bool = True
    hashed: bool = True

    @abstractmethod
    def new(self, size: int, seed: int) -> S:
        """Return a new sampler of `size` samples."""

    @abstractmethod
    def read(self, sampler: S, cursor: int, count: int) -> list[Hashable]:
        """Return a block of the current epoch."""

    def stream(self, seed: int, epoch: int) -> Hashable:
        """Return what decides the order: equal where it must be equal, different where it must not."""
        if not self.seeded:
            return None
        return (seed, epoch) if self.hashed else seed + epoch

    def at(self, size: int, seed: int, epoch: int, cursor: int = 0) -> S:
        """Return a new sampler at a position."""
        sampler = self.new(size, seed)
        sampler.set_epoch(epoch)
        sampler.advance(cursor)
        return sampler

    def part(self, size: int, seed: int, epoch: int, part: float) -> S:
        """Return a new sampler of which a part of the epoch was consumed."""
        sampler = self.at(size, seed, epoch)
        sampler.advance(int(part * len(sampler)))
        return sampler

    def order(self, sampler: S) -> list[Hashable]:
        """Return the whole current epoch."""
        return self.read(sampler, 0, len(sampler))

    def assert_streams(self, pairs: list[tuple[int, int]]) -> None:
        """Fail unless orders are equal where their streams are, and only there."""
        seen: dict[Hashable, tuple[object, tuple[int, int]]] = {}
        streams = set()
        for seed, epoch in pairs:
            order, stream = tuple(self.order(self.at(LARGE, seed, epoch))), self.stream(seed, epoch)
            other, pair = seen.setdefault(order, (stream, (seed, epoch)))
            assert other == stream, f"(seed, epoch) = {(seed, epoch)} has the order of {pair}"
            streams.add(stream)
        assert len(seen) == len(streams), (
            f"{len(pairs)} (seed, epoch) have {len(seen)} orders, must have {len(streams)}"
        )

    # The order

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, cuts=st.lists(FRACTIONS, max_size=6))
    @examples(25)
    def test_blocks_join(self, size: int, seed: int, epoch: int, cuts: list[float]) -> None:
        """However a range of positions is cut into blocks, the blocks joined are the range."""
        sampler = self.at(size, seed, epoch)
        whole, length = self.order(sampler), len(sampler)
        bounds = sorted({0, length, *(int(cut * length) for cut in cuts)})
        for start, stop in pairwise(bounds):
            block = self.read(sampler, start, stop - start)
            assert block == whole[start:stop], f"positions {start} … {stop - 1} differ from those of the whole epoch"

    @given(size=SIZES, seed=SEEDS, at=FRACTIONS, extra=st.integers(0, 10_000))
    @examples(20)
    def test_fewer_come_back_at_the_end(self, size: int, seed: int, at: float, extra: int) -> None:
        """A block that reaches past the end of the epoch holds min(count, len - cursor) items."""
        sampler = self.new(size, seed)
        cursor = int(at * len(sampler))
        left = len(sampler) - cursor
        block = self.read(sampler, cursor, left + extra)
        assert block == self.order(sampler)[cursor:], f"{len(block)} items past the end, {left} are left"

    def test_blocks_refuse_what_does_not_exist(self) -> None:
        """A cursor outside 0 … len or a negative count raises ValueError."""
        for size in (0, 10):
            end = len(self.new(size, 0))
            for cursor, count in ((-1, 1), (end + 1, 0), (end + 1, 1), (0, -1), (end, -1)):
                with refused(f"a block of {count} at {cursor} of {end}", ValueError):
                    self.read(self.new(size, 0), cursor, count)

    @given(size=SIZES, seed=SEEDS, others=st.lists(EPOCHS, max_size=4), epoch=EPOCHS, noise=SEEDS)
    @examples(20)
    def test_the_order_is_a_pure_function(
        self, size: int, seed: int, others: list[int], epoch: int, noise: int
    ) -> None:
        """The order depends on the arguments and the epoch alone, not on the object, its past or global generators."""
        expected = self.order(self.at(size, seed, epoch))
        used = self.new(size, seed)
        for other in others:
            used.set_epoch(other)
            self.order(used)
            keys(used, 3)
        used.set_epoch(epoch)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(noise)
            assert self.order(used) == expected, f"epoch {epoch} differs in another object, with {others} drawn before"

    def test_global_generators_are_left_alone(self) -> None:
        """Drawing neither seeds nor consumes torch's or random's global generator."""
        before = torch.random.get_rng_state(), random.getstate()
        sampler = self.at(100, 3, 1)
        self.order(sampler)
        list(sampler)
        assert torch.equal(before[0], torch.random.get_rng_state()), "torch's global generator was touched"
        assert before[1] == random.getstate(), "random's global generator was touched"

    def test_epochs_differ(self) -> None:
        """Two epochs of a seeded sampler have different orders; those of another one are equal."""
        self.assert_streams([(0, epoch) for epoch in range(4)])

    def test_seeds_differ(self) -> None:
        """Two seeds give different orders of the same epoch; where there is no seed, they are equal."""
        self.assert_streams([(seed, 0) for seed in range(4)])

    def test_seed_and_epoch_are_not_added(self) -> None:
        """Different pairs of seed and epoch have different orders: (0, 1) is not (1, 0)."""
        self.assert_streams([(seed, epoch) for seed in range(5) for epoch in range(5)])

    # The position

    def test_a_new_sampler_stands_at_the_start(self) -> None:
        """A new sampler has epoch 0 and cursor 0."""
        for size in (0, 1, 50):
            sampler = self.new(size, 0)
            assert (sampler.epoch, sampler.cursor) == (0, 0), f"it begins at {sampler.epoch}, {sampler.cursor}"

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, part=FRACTIONS)
    @examples(20)
    def test_drawing_moves_nothing(self, size: int, seed: int, epoch: int, part: float) -> None:
        """Neither blocks nor iteration, whole or cut off, changes epoch, cursor or state: what is drawn is not consumed."""
        sampler = self.part(size, seed, epoch, part)
        before = sampler.epoch, sampler.cursor, sampler.state_dict()
        self.read(sampler, sampler.cursor, 7)
        drawing = iter(sampler)
        keys(drawing, 3)
        under_way = sampler.epoch, sampler.cursor, sampler.state_dict()
        assert under_way == before, f"an iteration under way moved the sampler from {before} to {under_way}"
        keys(sampler)
        after = sampler.epoch, sampler.cursor, sampler.state_dict()
        assert after == before, f"drawing moved the sampler from {before} to {after}"

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, part=FRACTIONS)
    @examples(20)
    def test_iteration_goes_from_the_cursor_to_the_end(self, size: int, seed: int, epoch: int, part: float) -> None:
        """Every iteration yields what blocks give from the cursor to the end of the epoch."""
        sampler = self.part(size, seed, epoch, part)
        expected = self.order(sampler)[sampler.cursor :]
        for which in ("an", "another"):
            drawn = keys(sampler, len(expected) + 1)
            assert drawn == expected, f"{which} iteration at cursor {sampler.cursor} differs from blocks"

    def test_advancing_does_not_disturb_an_iteration(self) -> None:
        """An iteration under way goes on unchanged while its items are recorded as consumed."""
        sampler = self.at(100, 0, 1, 10)
        expected, drawn = self.order(sampler)[10:], list[Hashable]()
        drawing = iter(sampler)
        while following := keys(drawing, 1):
            drawn += following
            assert len(drawn) <= len(expected), "the iteration runs past the end while the cursor advances"
            sampler.advance(1)
        assert drawn == expected, f"with advance after each item, {len(drawn)} of {len(expected)} came, or other ones"

    def test_an_iteration_stays_in_its_epoch(self) -> None:
        """An iteration under way goes on in the epoch in which it began when the sampler goes to another one."""
        sampler = self.new(20_000, 0)  # more than a sampler is likely to draw at once
        expected, drawing = self.order(sampler), iter(sampler)
        drawn = keys(drawing, 1)
        sampler.set_epoch(1)
        drawn += keys(drawing)
        assert drawn == expected, f"of {len(expected)} items {len(drawn)} or others came after set_epoch in between"

    @given(size=SIZES, seed=SEEDS, steps=st.lists(st.integers(0, 50), max_size=5))
    @examples(15)
    def test_advance_moves_the_cursor(self, size: int, seed: int, steps: list[int]) -> None:
        """The cursor is the sum of what was advanced in this epoch."""
        sampler, total = self.new(size, seed), 0
        for step in steps:
            if total + step <= len(sampler):
                sampler.advance(step)
                total += step
            assert sampler.cursor == total, f"after advancing by {total} the cursor is {sampler.cursor}"

    def test_advance_refuses_what_does_not_exist(self) -> None:
        """A negative advance and one past the end raise ValueError and leave the cursor."""
        for size in (0, 10):
            end = len(self.new(size, 0))
            for cursor, count in ((end // 2, -1), (end // 2, end), (end, 1), (0, end + 1), (0, -1)):
                if count == 0:
                    continue  # an empty epoch's own length
                sampler = self.at(size, 0, 0, cursor)
                with refused(f"advance({count}) at cursor {cursor} of {end}", ValueError):
                    sampler.advance(count)
                assert sampler.cursor == cursor, f"a refused advance({count}) moved the cursor to {sampler.cursor}"

    def test_len_is_the_whole_epoch(self) -> None:
        """Len is what a whole epoch yields, at every cursor and epoch."""
        for size, epoch, part in ((0, 0, 0.0), (10, 0, 0.0), (10, 0, 0.4), (10, 3, 1.0)):
            sampler = self.part(size, 0, epoch, part)
            expected = len(keys(self.at(size, 0, epoch), 10_000))
            found = len(sampler)
            assert found == expected, f"len is {found} at epoch {epoch}, cursor {sampler.cursor} of {expected}"

    def test_set_epoch_of_this_epoch_keeps_the_cursor(self) -> None:
        """set_epoch of the current epoch changes nothing."""
        sampler = self.at(20, 0, 3, 2)
        sampler.set_epoch(3)
        assert (sampler.epoch, sampler.cursor) == (3, 2), f"set_epoch(3) in epoch 3 moved 2 to {sampler.cursor}"

    def test_set_epoch_of_another_epoch_goes_to_its_start(self) -> None:
        """set_epoch of a later or earlier epoch puts the cursor at 0 of that epoch, and the whole of it comes."""
        for epoch in (4, 2, 0, 1000):
            sampler = self.at(20, 0, 3, 2)
            sampler.set_epoch(epoch)
            position = sampler.epoch, sampler.cursor
            assert position == (epoch, 0), f"set_epoch({epoch}) from epoch 3, cursor 2 leads to {position}"
            assert keys(sampler) == self.order(self.at(20, 0, epoch)), f"epoch {epoch} after a part of epoch 3 differs"

    def test_set_epoch_refuses_negative_epochs(self) -> None:
        """A negative epoch raises ValueError and leaves the position."""
        sampler = self.at(20, 0, 3, 2)
        with refused("set_epoch(-1)", ValueError):
            sampler.set_epoch(-1)
        assert (sampler.epoch, sampler.cursor) == (3, 2), "a refused set_epoch moved the sampler"

"""The laws of a `Sampler`."""

from __future__ import annotations

import json
from itertools import cycle, islice

from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.orders import EPOCHS, FRACTIONS, SEEDS, SIZES, OrderLaws, block_of, order_of, through_json
from treenail.kernel import StateError

LIMIT = 1024  # bytes of a state

_batches = st.tuples(st.integers(1, 5), st.integers(1, 9))  # world size, samples of a rank


class SamplerLaws(OrderLaws):
    """What every sampler obeys: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
    """

    # The position

    def test_a_new_sampler_stands_at_the_start(self) -> None:
        """A new sampler has epoch 0 and cursor 0."""
        for size in (0, 1, 50):
            sampler = self.make(size, 0)
            assert (sampler.epoch, sampler.cursor) == (0, 0), f"it begins at {sampler.epoch}, {sampler.cursor}"

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, at=FRACTIONS)
    @examples(40)
    def test_drawing_moves_nothing(self, size: int, seed: int, epoch: int, at: float) -> None:
        """Neither indices nor iteration changes epoch, cursor or state."""
        sampler = self.at(size, seed, epoch, int(at * size))
        before = sampler.epoch, sampler.cursor, sampler.state_dict()
        sampler.indices(sampler.cursor, 7)
        list(islice(sampler, 3))
        list(sampler)
        after = sampler.epoch, sampler.cursor, sampler.state_dict()
        assert after == before, f"drawing moved the sampler from {before} to {after}"

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, at=FRACTIONS)
    @examples(40)
    def test_iteration_goes_from_the_cursor_to_the_end(self, size: int, seed: int, epoch: int, at: float) -> None:
        """Iteration yields Python ints, those of indices(cursor, size - cursor)."""
        sampler = self.at(size, seed, epoch, int(at * size))
        drawn = list(sampler)
        assert drawn == order_of(sampler)[sampler.cursor :], (
            f"iteration at cursor {sampler.cursor} differs from indices"
        )
        assert all(type(index) is int for index in drawn), "iteration yields something else than int"

    def test_advancing_does_not_disturb_an_iteration(self) -> None:
        """An iteration under way goes on unchanged while its samples are recorded as consumed."""
        sampler = self.at(100, 0, 1, 10)
        expected, drawn = order_of(sampler)[10:], []
        for index in sampler:
            drawn.append(index)
            sampler.advance(1)
            assert len(drawn) <= 90, "the iteration runs past the end while the cursor advances"
        assert drawn == expected, f"with advance after each index, {len(drawn)} of 90 came, or other ones"

    def test_an_iteration_stays_in_its_epoch(self) -> None:
        """An iteration under way goes on in the epoch in which it began when the sampler goes to another one."""
        size = 20_000  # more than a sampler is likely to draw at once
        sampler = self.make(size, 0)
        expected, drawing = order_of(sampler), iter(sampler)
        drawn = [next(drawing)]
        sampler.set_epoch(1)
        drawn += drawing
        assert drawn == expected, f"{len(set(drawn))} different indices of {size} came after set_epoch in between"

    @given(size=SIZES, seed=SEEDS, steps=st.lists(st.integers(0, 50), max_size=5))
    @examples(30)
    def test_advance_moves_the_cursor(self, size: int, seed: int, steps: list[int]) -> None:
        """The cursor is the sum of what was advanced in this epoch."""
        sampler, total = self.make(size, seed), 0
        for step in steps:
            if total + step <= size:
                sampler.advance(step)
                total += step
            assert sampler.cursor == total, f"after advancing by {total} the cursor is {sampler.cursor}"

    def test_advance_refuses_what_does_not_exist(self) -> None:
        """A negative advance and one past the end raise ValueError and leave the cursor."""
        for size, cursor, count in ((10, 5, -1), (10, 5, 6), (10, 10, 1), (0, 0, 1)):
            sampler = self.at(size, 0, 0, cursor)
            with refused(f"advance({count}) at cursor {cursor} of {size}", ValueError):
                sampler.advance(count)
            assert sampler.cursor == cursor, f"a refused advance({count}) moved the cursor to {sampler.cursor}"

    def test_indices_refuses_what_does_not_exist(self) -> None:
        """A cursor outside 0 … size or a negative count raises ValueError."""
        for size, cursor, count in ((10, -1, 1), (10, 11, 0), (10, 11, 1), (10, 0, -1), (0, 1, 0), (0, -1, 1)):
            with refused(f"indices({cursor}, {count}) of {size}", ValueError):
                self.make(size, 0).indices(cursor, count)

    def test_len_is_the_whole_epoch(self) -> None:
        """Len is the size, at every cursor and epoch."""
        for size, epoch, cursor in ((0, 0, 0), (10, 0, 0), (10, 0, 4), (10, 3, 10)):
            found = len(self.at(size, 0, epoch, cursor))
            assert found == size, f"len is {found} at epoch {epoch}, cursor {cursor} of {size}"

    def test_set_epoch_of_this_epoch_keeps_the_cursor(self) -> None:
        """set_epoch of the current epoch changes nothing, after a resume too."""
        sampler = self.at(20, 0, 3, 7)
        for each in (sampler, self.resumed(sampler, 0)):
            each.set_epoch(3)
            assert (each.epoch, each.cursor) == (3, 7), f"set_epoch(3) in epoch 3 moved 7 to {each.cursor}"

    def test_set_epoch_of_another_epoch_goes_to_its_start(self) -> None:
        """set_epoch of a later or earlier epoch puts the cursor at 0 of that epoch."""
        for epoch in (4, 2, 0, 1000):
            sampler = self.at(20, 0, 3, 7)
            sampler.set_epoch(epoch)
            position = sampler.epoch, sampler.cursor
            assert position == (epoch, 0), f"set_epoch({epoch}) from epoch 3, cursor 7 leads to {position}"

    def test_set_epoch_refuses_negative_epochs(self) -> None:
        """A negative epoch raises ValueError and leaves the position."""
        sampler = self.at(20, 0, 3, 7)
        with refused("set_epoch(-1)", ValueError):
            sampler.set_epoch(-1)
        assert (sampler.epoch, sampler.cursor) == (3, 7), "a refused set_epoch moved the sampler"

    # The state

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, at=FRACTIONS)
    @examples(60)
    def test_resume_equals_the_suffix(self, size: int, seed: int, epoch: int, at: float) -> None:
        """A new object given the state, at any cursor, yields exactly what was left of the epoch."""
        sampler = self.at(size, seed, epoch, int(at * size))
        resumed = self.resumed(sampler, seed)
        position = resumed.epoch, resumed.cursor
        assert position == (epoch, sampler.cursor), f"saved at {(epoch, sampler.cursor)}, resumed at {position}"
        assert list(resumed) == order_of(sampler)[sampler.cursor :], f"at {position} the rest of the epoch differs"

    @given(size=st.integers(3, 300), seed=SEEDS, epoch=EPOCHS, cuts=st.lists(FRACTIONS, min_size=2, max_size=4))
    @examples(40)
    def test_a_run_resumes_twice_in_an_epoch(self, size: int, seed: int, epoch: int, cuts: list[float]) -> None:
        """Resumed any number of times in one epoch, a sampler still has each index of the epoch once, in order."""
        sampler, consumed = self.at(size, seed, epoch), list[int]()
        expected = order_of(sampler)
        for cut in cuts:
            count = int(cut * (size - len(consumed)))
            consumed += islice(sampler, count)
            sampler.advance(count)
            sampler = self.resumed(sampler, seed)
        consumed += sampler
        assert consumed == expected, (
            f"resumed {len(cuts)} times, the epoch's order has {len(consumed)} of {size} or others"
        )

    def test_the_state_is_small_json(self) -> None:
        """A state is JSON, survives it, and has less than 1 KB whatever the size."""
        sampler = self.at(4096, 2**31 - 1, 10**6, 4000)
        state = sampler.state_dict()
        assert through_json(state) == state, "the state is not what JSON gives back"
        size = len(json.dumps(state))
        assert size < LIMIT, f"the state of 4096 indices has {size} bytes, must be less than {LIMIT}"

    def test_a_state_of_another_size_is_refused(self) -> None:
        """A state of another number of samples raises StateError and leaves the position."""
        for size in (9, 11, 1000):
            sampler = self.at(size, 0, 2, 3)
            with refused(f"the state of 10 samples by a sampler of {size}", StateError):
                sampler.load_state_dict(through_json(self.at(10, 0, 1, 5).state_dict()))
            assert (sampler.epoch, sampler.cursor) == (2, 3), "a refused state moved the sampler"

    def test_a_state_of_another_seed_is_refused(self) -> None:
        """A state of another seed raises StateError and leaves the position."""
        self.needs_seed()
        sampler = self.at(10, 1, 2, 3)
        with refused("the state of seed 0 by a sampler of seed 1", StateError):
            sampler.load_state_dict(through_json(self.at(10, 0, 1, 5).state_dict()))
        assert (sampler.epoch, sampler.cursor) == (2, 3), "a refused state moved the sampler"

    # Ranks

    @given(size=st.integers(0, 120), seed=SEEDS, shapes=st.lists(_batches, min_size=1))
    @examples(40)
    def test_shares_of_ranks_cover_the_epoch(self, size: int, seed: int, shapes: list[tuple[int, int]]) -> None:
        """Strided shares of each global batch are disjoint and cover the epoch, though the world size changes midway."""
        sampler, seen = self.at(size, seed, 1), list[int]()
        for world, each in cycle(shapes):
            for rank in range(world):
                seen += block_of(self.resumed(sampler, seed), sampler.cursor, world * each)[rank::world]
            sampler.advance(min(world * each, size - sampler.cursor))
            if sampler.cursor == size:
                break
        assert sorted(seen) == list(range(size)), f"{len(seen)} drawn, {len(set(seen))} different ones of {size}"

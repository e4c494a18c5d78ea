"""The laws of a sampler's state, and of any sequence of what can be done to a sampler."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.sampling._inputs import (
    EPOCHS,
    FRACTIONS,
    SEEDS,
    SIZES,
    SMALL,
    assert_mends,
    assert_small_json,
    keys,
    through_json,
)
from treenail.contracts.laws.sampling.epochs import EpochLaws, S
from treenail.kernel import StateError

ACTIONS: Final = ("iterate", "begin", "continue", "read", "advance", "set_epoch", "save", "load", "resume")
NOT_POSITIONS: Final = (-1, 10**15, 2.5, "3", None)


class StateLaws(EpochLaws[S]):
    """A state is a few integers that lead any equal sampler to the same position, and no other sampler."""

    def resumed(self, sampler: S, size: int, seed: int) -> S:
        """Return a new sampler in the state of another."""
        resumed = self.new(size, seed)
        with accepted("the state of an equal sampler"):
            resumed.load_state_dict(through_json(sampler.state_dict()))
        return resumed

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, part=FRACTIONS)
    @examples(25)
    def test_resume_equals_the_suffix(self, size: int, seed: int, epoch: int, part: float) -> None:
        """A new object given the state, at any cursor, yields exactly what was left of the epoch."""
        sampler = self.part(size, seed, epoch, part)
        resumed = self.resumed(sampler, size, seed)
        position = resumed.epoch, resumed.cursor
        assert position == (epoch, sampler.cursor), f"saved at {(epoch, sampler.cursor)}, resumed at {position}"
        assert keys(resumed) == self.order(sampler)[sampler.cursor :], f"at {position} the rest of the epoch differs"

    @given(size=st.integers(3, 300), seed=SEEDS, epoch=EPOCHS, cuts=st.lists(FRACTIONS, min_size=2, max_size=4))
    @examples(20)
    def test_a_run_resumes_twice_in_an_epoch(self, size: int, seed: int, epoch: int, cuts: list[float]) -> None:
        """Resumed any number of times in one epoch, a run still has each item of the epoch once, in order."""
        sampler, consumed = self.at(size, seed, epoch), list[Hashable]()
        expected = self.order(sampler)
        for cut in cuts:
            following = keys(sampler, int(cut * (len(expected) - len(consumed))))
            sampler.advance(len(following))
            consumed += following
            sampler = self.resumed(sampler, size, seed)
        consumed += keys(sampler)
        assert consumed == expected, (
            f"resumed {len(cuts)} times, the epoch's order has {len(consumed)} of {len(expected)} items or other ones"
        )

    def test_epochs_after_a_resume_are_whole(self) -> None:
        """After a resume, in the middle or at the end of an epoch, this epoch's rest and all later epochs are right."""
        for part in (0.0, 0.5, 1.0):
            sampler = self.part(20, 1, 0, part)
            resumed = self.resumed(sampler, 20, 1)
            resumed.set_epoch(0)  # a run says so at the start of each epoch, of the resumed one too
            rest = self.order(sampler)[sampler.cursor :]
            assert keys(resumed) == rest, f"resumed at {part:.0%} of epoch 0, its rest differs"
            for epoch in (1, 2):
                resumed.set_epoch(epoch)
                drawn, expected = keys(resumed), self.order(self.at(20, 1, epoch))
                assert drawn == expected, (
                    f"resumed at {part:.0%} of epoch 0, epoch {epoch} has {len(drawn)} of {len(expected)} items or others"
                )

    def test_the_state_is_small_json(self) -> None:
        """A state is JSON, survives it, and has less than 1 KB whatever the size."""
        assert_small_json(self.part(4096, 2**31 - 1, 10**6, 0.9).state_dict())

    def test_a_state_is_a_copy(self) -> None:
        """Neither a later move of the sampler changes a state, nor does a change of the state move the sampler."""
        sampler = self.at(20, 0, 1, 2)
        state = sampler.state_dict()
        saved = through_json(state)
        sampler.advance(1)
        sampler.set_epoch(2)
        assert state == saved, "a saved state changed when the sampler moved on"
        state.clear()
        assert (sampler.epoch, sampler.cursor) == (2, 0), "clearing a saved state moved the sampler"

    def test_a_state_of_another_size_is_refused(self) -> None:
        """A state of another number of samples raises StateError with a mend and leaves the position."""
        for size in (9, 11, 1000):
            sampler = self.at(size, 0, 2, 2)
            with refused(f"the state of 10 samples by a sampler of {size}", StateError) as refusal:
                sampler.load_state_dict(through_json(self.at(10, 0, 1, 1).state_dict()))
            assert_mends(refusal)
            assert (sampler.epoch, sampler.cursor) == (2, 2), "a refused state moved the sampler"

    def test_a_state_of_another_seed_is_refused(self) -> None:
        """A state of another seed raises StateError with a mend and leaves the position; without a seed it fits."""
        sampler, other = self.at(10, 1, 2, 2), self.at(10, 0, 1, 1).state_dict()
        if not self.seeded:
            with accepted("the state of an equal sampler without a seed"):
                sampler.load_state_dict(through_json(other))
            return
        with refused("the state of seed 0 by a sampler of seed 1", StateError) as refusal:
            sampler.load_state_dict(through_json(other))
        assert_mends(refusal)
        assert (sampler.epoch, sampler.cursor) == (2, 2), "a refused state moved the sampler"

    def test_a_damaged_state_is_refused(self) -> None:
        """A state that lacks an entry, or whose numbers are none or lead nowhere, raises StateError; nothing moves."""
        whole = through_json(self.at(20, 0, 1, 2).state_dict())
        damaged = [{name: whole[name] for name in whole if name != gone} for gone in whole]
        damaged += [whole | {name: wrong} for name in whole for wrong in NOT_POSITIONS if type(whole[name]) is int]
        for state in damaged:
            sampler = self.at(20, 0, 2, 1)
            try:
                sampler.load_state_dict(state)
            except StateError:
                assert (sampler.epoch, sampler.cursor) == (2, 1), f"the refused state {state} moved the sampler"
            except Exception as error:
                raise AssertionError(f"the state {state} raised {error!r}, must raise StateError") from error
            else:  # a very late epoch exists
                found = sampler.epoch, sampler.cursor
                assert found == (10**15, 2), f"the state {state} was accepted, and leads to {found}"

    @given(
        size=SMALL,
        seed=SEEDS,
        actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(-2, 60)), min_size=6, max_size=20),
    )
    @examples(40)
    def test_any_sequence_of_actions(self, size: int, seed: int, actions: list[tuple[str, int]]) -> None:
        """Iterating, reading, advancing, saving, loading, resuming and changing epochs compose in any order."""
        orders = [self.order(self.at(size, seed, epoch)) for epoch in range(3)]
        sampler, epoch, cursor = self.new(size, seed), 0, 0
        saved = [(through_json(sampler.state_dict()), 0, 0)]
        under_way, expected = iter(sampler), orders[0]
        for action, number in actions:
            order, count = orders[epoch], max(number, 0)
            if action == "iterate":
                assert keys(sampler, count) == order[cursor : cursor + count], f"iteration differs after {actions}"
            elif action == "begin":
                under_way, expected = iter(sampler), order[cursor:]
            elif action == "continue":
                assert keys(under_way, count) == expected[:count], f"an iteration was disturbed by {actions}"
                expected = expected[count:]
            elif action == "read":
                start = min(count, len(order))
                assert self.read(sampler, start, 5) == order[start : start + 5], f"a block differs after {actions}"
            elif action == "save":
                saved.append((through_json(sampler.state_dict()), epoch, cursor))
            elif action == "load":
                state, epoch, cursor = saved[number % len(saved)]
                with accepted("the state of an equal sampler"):
                    sampler.load_state_dict(state)
            elif action == "resume":
                sampler = self.resumed(sampler, size, seed)
            else:
                epoch, cursor = self.moved(sampler, action, number, len(order))
            found = sampler.epoch, sampler.cursor
            assert found == (epoch, cursor), f"{action} led to {found}, not {(epoch, cursor)}, in {actions}"
            assert len(sampler) == len(order), f"{action} changed len in {actions}"

    def moved(self, sampler: S, action: str, number: int, length: int) -> tuple[int, int]:
        """Advance or go to an epoch, or see it refused, and return where that should lead."""
        epoch, cursor = sampler.epoch, sampler.cursor
        if action == "set_epoch":
            following = number if number < 0 else number % 3
            if following >= 0:
                sampler.set_epoch(following)
                return following, cursor if following == epoch else 0
            with refused(f"set_epoch({number})", ValueError):
                sampler.set_epoch(following)
        elif 0 <= number <= length - cursor:
            sampler.advance(number)
            return epoch, cursor + number
        else:
            with refused(f"advance({number}) at {cursor} of {length}", ValueError):
                sampler.advance(number)
        return epoch, cursor

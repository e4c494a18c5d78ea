"""The laws of a `treenail.contracts.SamplerShard`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from hypothesis import assume, given
from hypothesis import strategies as st

from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.sampling._inputs import (
    FRACTIONS,
    LARGE,
    SEEDS,
    SMALL,
    assert_mends,
    assert_small_json,
    keys,
    through_json,
)
from treenail.contracts.laws.sampling.worlds import PADDING, WORLDS, Padding, Shares, WorldLaws
from treenail.kernel import StateError

ACTIONS: Final = ("iterate", "advance", "set_epoch", "save", "load", "resume", "change of world")


class ShardLaws(WorldLaws):
    """What the shares of ranks obey: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
        marked: Whether what is drawn says so (`.padding`) where it repeats a sample, and knows its `.epoch`.
        paddings: Those that there are; `make` must take each of them in a world of one, where none does anything.
    """

    seeded: bool = True

    def stream(self, seed: int, epoch: int) -> Hashable:
        """Return what decides the order: equal where it must be equal, different where it must not."""
        return (seed, epoch) if self.seeded else None

    # The position

    @given(size=SMALL, seed=SEEDS, part=FRACTIONS, world=WORLDS, padding=PADDING, count=st.integers(0, 5))
    @examples(25)
    def test_drawing_moves_nothing(
        self, size: int, seed: int, part: float, world: int, padding: Padding, count: int
    ) -> None:
        """What is drawn, of a part or all, is not consumed: the state and what remains stay as they are."""
        assume(padding in self.paddings)
        state, _ = self.state_at(size, seed, 2, part)
        for share in self.world(size, seed, world, padding, state):
            before = share.epoch, share.remaining, share.state_dict()
            drawing = iter(share)
            first = keys(drawing, count)
            assert (share.epoch, share.remaining, share.state_dict()) == before, f"{count} items drawn ahead count"
            rest = keys(drawing)
            assert (share.epoch, share.remaining, share.state_dict()) == before, "drawing all of it moved a share"
            assert keys(share) == first + rest, "a second iteration goes another way"

    @given(
        size=SMALL,
        seed=SEEDS,
        world=WORLDS,
        padding=PADDING,
        counts=st.lists(st.integers(0, 9), max_size=5),
    )
    @examples(25)
    def test_advance_counts_the_items_of_each_rank(
        self, size: int, seed: int, world: int, padding: Padding, counts: list[int]
    ) -> None:
        """After advance(n) each rank goes on behind its n-th item, or at the end where it had fewer."""
        assume(padding in self.paddings)
        shares = self.world(size, seed, world, padding)
        left = [keys(share) for share in shares]
        for count in counts:
            if not left[0]:
                break
            for share in shares:
                share.advance(count)
            left = [items[count:] for items in left]
            found = [keys(share) for share in shares]
            assert found == left, f"after advance of {counts}, ranks go on with {found}, not {left}"

    def test_advancing_does_not_disturb_an_iteration(self) -> None:
        """An iteration under way goes on unchanged while its items are recorded as consumed."""
        for share in self.world(400, 0, 3, "repeat"):
            expected, drawing, drawn = keys(share, len(share)), iter(share), list[Hashable]()
            while following := keys(drawing, 1):
                drawn += following
                assert len(drawn) <= len(expected), "the iteration runs past the end while the share advances"
                share.advance(1)
            assert drawn == expected, "with advance after each item, other items come"
            assert share.remaining == 0, f"{share.remaining} remain of a share that was consumed"

    def test_an_iteration_stays_in_its_epoch(self) -> None:
        """An iteration under way goes on in the epoch in which it began when the share goes to another one."""
        share = self.make(60_000, 0, 1, 3, "repeat")  # more than is likely to be drawn at once
        expected, drawing = keys(share), iter(share)
        drawn = keys(drawing, 1)
        share.set_epoch(1)
        drawn += keys(drawing)
        assert drawn == expected, f"of {len(expected)} items {len(drawn)} or others came after set_epoch in between"

    def test_advance_refuses_what_does_not_exist(self) -> None:
        """A negative advance raises ValueError, and so does one where no rank has anything left; nothing moves."""
        for padding in self.paddings:
            for size, count in ((10, -1), (0, 1), (10, 1)):
                share = self.make(size, 0, 0, 3, padding)
                if count > 0 and size:
                    share.advance(len(share))
                before = share.state_dict()
                with refused(f"advance({count}) where {share.remaining} remain", ValueError):
                    share.advance(count)
                assert share.state_dict() == before, f"a refused advance({count}) moved the share"

    def test_set_epoch_of_this_epoch_keeps_the_position(self) -> None:
        """set_epoch of the current epoch changes nothing."""
        for share in self.world(40, 0, 3, "repeat"):
            share.set_epoch(3)
            share.advance(2)
            before = share.state_dict(), share.remaining
            share.set_epoch(3)
            assert (share.state_dict(), share.remaining) == before, "set_epoch of the current epoch moved the share"

    def test_set_epoch_of_another_epoch_goes_to_its_start(self) -> None:
        """set_epoch of a later or earlier epoch, after a part or all of one, is followed by the whole of it."""
        for epoch in (4, 2, 0):
            for consumed in (2, len(self.make(40, 0, 0, 3, "repeat"))):
                shares = self.world(40, 0, 3, "repeat")
                for share in shares:
                    share.set_epoch(3)
                    share.advance(consumed)
                    share.set_epoch(epoch)
                    assert share.epoch == epoch, f"set_epoch({epoch}) leads to epoch {share.epoch}"
                whole = self.order(40, 0, epoch)
                self.assert_steps(shares, whole, whole, "repeat", f"epoch {epoch} after {consumed} steps of epoch 3")

    def test_set_epoch_refuses_negative_epochs(self) -> None:
        """A negative epoch raises ValueError and leaves the position."""
        share = self.make(20, 0, 0, 2, "repeat")
        before = share.state_dict()
        with refused("set_epoch(-1)", ValueError):
            share.set_epoch(-1)
        assert share.state_dict() == before, "a refused set_epoch moved the share"

    def test_epochs_and_seeds_differ(self) -> None:
        """Every epoch of every seed has an order of its own in each rank's share, if the order is seeded."""
        for rank in (0, 1):
            orders = set()
            pairs = [(0, 0), (0, 1), (5, 0), (5, 1)]
            for seed, epoch in pairs:
                share = self.make(LARGE, seed, rank, 2, "repeat")
                share.set_epoch(epoch)
                orders.add(tuple(keys(share)))
            due = len({self.stream(*pair) for pair in pairs})
            assert len(orders) == due, f"2 epochs of 2 seeds have {len(orders)} orders, must have {due}"

    def test_ranks_and_paddings_exist(self) -> None:
        """A rank outside the world, a world without ranks, and an unknown padding raise ValueError when it is made."""
        for rank, world in ((-1, 2), (2, 2), (0, 0)):
            with refused(f"rank {rank} in a world of {world}", ValueError):
                self.make(10, 0, rank, world, "repeat")
        with refused("a padding of 'zero'", ValueError):
            self.make(10, 0, 0, 2, "zero")  # type: ignore[arg-type]  # on purpose

    # The state

    @given(size=SMALL, seed=SEEDS, world=WORLDS, padding=PADDING, count=st.integers(0, 20))
    @examples(25)
    def test_the_state_is_equal_on_all_ranks(
        self, size: int, seed: int, world: int, padding: Padding, count: int
    ) -> None:
        """All ranks have the same state, so that any one of them can save it for all; it is JSON of less than 1 KB."""
        assume(padding in self.paddings)
        shares = self.world(size, seed, world, padding)
        for share in shares:
            share.set_epoch(1)
        taken = min(count, shares[0].remaining)  # no rank has more than the first one
        for share in shares:
            share.advance(taken)
        states = [share.state_dict() for share in shares]
        assert all(state == states[0] for state in states), f"ranks have different states: {states}"
        assert_small_json(states[0])

    def test_a_state_of_another_order_is_refused(self) -> None:
        """A state of another dataset size or seed raises StateError with a mend; nothing moves."""
        for size, seed in ((9, 0), (11, 0), *([(10, 1)] if self.seeded else [])):
            share = self.make(size, seed, 1, 2, "repeat")
            share.set_epoch(2)
            share.advance(1)
            before = share.state_dict(), share.remaining
            with refused(f"the state of 10 samples, seed 0, by a share of {size}, seed {seed}", StateError) as refusal:
                share.load_state_dict(through_json(self.state_at(10, 0, 1, 0.5)[0]))
            assert_mends(refusal)
            assert (share.state_dict(), share.remaining) == before, "a refused state moved the share"

    @given(
        size=SMALL,
        seed=SEEDS,
        world=WORLDS,
        padding=PADDING,
        actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(-2, 30)), min_size=6, max_size=20),
    )
    @examples(40)
    def test_any_sequence_of_actions(
        self, size: int, seed: int, world: int, padding: Padding, actions: list[tuple[str, int]]
    ) -> None:
        """Iterating, advancing, saving, loading, changes of epoch and of the world size compose in any order."""
        assume(padding in self.paddings)
        orders = [self.order(size, seed, epoch) for epoch in range(3)]
        shares, epoch, cursor = self.world(size, seed, world, padding), 0, 0
        saved = [(shares[0].state_dict(), 0, 0)]
        for action, number in actions:
            if action == "iterate":
                at = f"{action} in {actions}"
                self.assert_steps(shares, orders[epoch][cursor:], orders[epoch], padding, at)
            elif action == "advance":
                cursor += self.advanced(shares, len(orders[epoch]) - cursor, number, padding)
            elif action == "set_epoch":
                following = abs(number) % 3
                epoch, cursor = following, cursor if following == epoch else 0
                for share in shares:
                    share.set_epoch(following)
            elif action == "save":
                saved.append((through_json(shares[number % len(shares)].state_dict()), epoch, cursor))
            elif action == "load":
                state, epoch, cursor = saved[number % len(saved)]
                for share in shares:
                    with accepted("the state of an equal order"):
                        share.load_state_dict(state)
            else:
                ranks = number % 9 + 1 if action == "change of world" else len(shares)
                shares = self.world(size, seed, ranks, padding, shares[-1].state_dict())
            assert {share.epoch for share in shares} == {epoch}, f"{action} left epoch {epoch}, in {actions}"
            left, ranks = len(orders[epoch]) - cursor, len(shares)
            due = {"repeat": -(-left // ranks), "drop": left // ranks, "none": -(-left // ranks)}[padding]
            assert shares[0].remaining == due, f"{shares[0].remaining} remain, not {due}, after {action} in {actions}"

    def advanced(self, shares: Shares, left: int, count: int, padding: Padding) -> int:
        """Advance all ranks and return how many items that consumes, or see it refused."""
        world = len(shares)
        most = left // world if padding == "drop" else -(-left // world)
        for share in shares:
            if count < 0 or (count and not most):
                with refused(f"advance({count}) where {most} remain", ValueError):
                    share.advance(count)
            else:
                share.advance(count)
        return min(min(max(count, 0), most) * world, left)

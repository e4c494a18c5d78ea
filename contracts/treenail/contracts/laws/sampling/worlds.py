"""The laws of shares of ranks: what all of them draw together does not depend on how many there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import zip_longest
from typing import Literal, Protocol, runtime_checkable
from unittest import SkipTest

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from treenail.contracts import SamplerShard
from treenail.contracts.laws._support import accepted, examples
from treenail.contracts.laws.sampling._inputs import (
    EPOCHS,
    FRACTIONS,
    SEEDS,
    SMALL,
    assert_counts,
    key,
    keys,
    through_json,
)

Padding = Literal["repeat", "drop", "none"]

PADDINGS: tuple[Padding, ...] = ("repeat", "drop", "none")
WORLDS = st.integers(1, 9)
PADDING = st.sampled_from(PADDINGS)

Shares = Sequence[SamplerShard[object]]


@runtime_checkable
class Marked(Protocol):
    """An index that knows where it was drawn."""

    padding: bool
    epoch: int


class WorldLaws(ABC):
    """In each step, all ranks together draw the next items of one global order.

    Attributes:
        marked: Whether what is drawn says so (`.padding`) where it repeats a sample, and knows its `.epoch`.
        paddings: Those that there are; `make` must take each of them in a world of one, where none does anything.
    """

    marked: bool = False
    paddings: tuple[Padding, ...] = PADDINGS

    @abstractmethod
    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        """Return what a new rank draws.

        Args:
            size: Samples of the dataset.
            seed: Seed of the order, equal on all ranks.
            rank: 0 … world_size-1.
            world_size: Number of ranks.
            padding: ``"repeat"``: items come again where ranks would have fewer; ``"drop"``: the last ones are left out;
                ``"none"``: the last ranks have one less.
        """

    def counts(self, size: int) -> Mapping[int, int] | None:
        """Return how often an epoch has each index; None where it only has indices 0 … size-1."""
        return dict.fromkeys(range(size), 1)

    def world(
        self, size: int, seed: int, world: int, padding: Padding, state: dict[str, object] | None = None
    ) -> Shares:
        """Return all ranks of a world, new or in a state."""
        shares = [self.make(size, seed, rank, world, padding) for rank in range(world)]
        for share in shares if state is not None else ():
            with accepted(f"a state in a world of {world}"):
                share.load_state_dict(through_json(state or {}))
        return shares

    def order(self, size: int, seed: int, epoch: int) -> list[Hashable]:
        """Return the global order of an epoch: what a single process draws."""
        alone = self.make(size, seed, 0, 1, "none")
        alone.set_epoch(epoch)
        return keys(alone)

    def state_at(self, size: int, seed: int, epoch: int, part: float) -> tuple[dict[str, object], int]:
        """Return the state of a single process that consumed a part of an epoch, and how many items that were."""
        alone = self.make(size, seed, 0, 1, "none")
        alone.set_epoch(epoch)
        consumed = int(part * len(alone))
        if consumed:
            alone.advance(consumed)
        return alone.state_dict(), consumed

    def assert_steps(
        self, shares: Shares, rest: list[Hashable], whole: list[Hashable], padding: Padding, at: str
    ) -> None:
        """Fail unless the ranks, step by step, draw what is left of an order."""
        world = len(shares)
        due = [rest[start : start + world] for start in range(0, len(rest), world)]
        if padding == "drop" and due and len(due[-1]) < world:
            due.pop()
        missing = object()
        steps = list(zip_longest(*(keys(share, len(rest) + 2) for share in shares), fillvalue=missing))
        assert len(steps) == len(due), f"{at}: {len(steps)} steps come of {len(due)}"
        for number, (step, expected) in enumerate(zip(steps, due, strict=True)):
            found = Counter(item for item in step if item is not missing)
            lost, more = Counter(expected) - found, found - Counter(expected)
            assert not lost, f"{at}: step {number} lacks {list(lost)} of the global order's {expected}"
            most = world - len(expected) if padding == "repeat" else 0
            assert more.total() == most, f"{at}: step {number} has {list(more.elements())} beyond {expected}"
            assert set(more) <= set(whole), f"{at}: what was repeated is not of this epoch: {set(more) - set(whole)}"

    def test_a_single_process_draws_the_whole_epoch(self) -> None:
        """In a world of one, an epoch has each index as often as it should, whatever the padding."""
        for size in (0, 1, 2, 7, 64, 65):
            for padding in self.paddings:
                alone = self.make(size, 0, 0, 1, padding)
                with accepted("iterating"):
                    items: list[int | list[int]] = list(alone)  # type: ignore[arg-type]  # what a share may draw
                drawn: list[int] = [index for item in items for index in (item if isinstance(item, list) else [item])]
                assert_counts(drawn, self.counts(size), size, f"{size} samples in a world of 1")

    @given(size=SMALL, seed=SEEDS, epoch=EPOCHS, world=WORLDS, padding=PADDING)
    @examples(30)
    def test_shares_are_disjoint_and_cover_the_epoch(
        self, size: int, seed: int, epoch: int, world: int, padding: Padding
    ) -> None:
        """The shares joined are the epoch: plus what is repeated, less what is dropped, and nothing else twice."""
        assume(padding in self.paddings)
        shares, whole = self.world(size, seed, world, padding), self.order(size, seed, epoch)
        for share in shares:
            share.set_epoch(epoch)
        found = Counter(item for share in shares for item in keys(share, len(whole) + 2))
        odd = len(whole) % world
        lost, more = (Counter(whole) - found).total(), (found - Counter(whole)).total()
        dropped, repeated = odd if padding == "drop" else 0, (world - odd) % world if padding == "repeat" and odd else 0
        assert (lost, more) == (dropped, repeated), (
            f"{world} ranks leave out {lost} of {len(whole)} items, not {dropped}, and repeat {more}, not {repeated}"
        )

    @given(size=SMALL, seed=SEEDS, epoch=EPOCHS, part=FRACTIONS, world=WORLDS, padding=PADDING)
    @examples(40)
    def test_steps_follow_the_global_order(
        self, size: int, seed: int, epoch: int, part: float, world: int, padding: Padding
    ) -> None:
        """From any position on, every world size draws the same global order, one step of all ranks after another."""
        assume(padding in self.paddings)
        state, consumed = self.state_at(size, seed, epoch, part)
        whole = self.order(size, seed, epoch)
        shares = self.world(size, seed, world, padding, state)
        at = f"world {world}, {padding}, {consumed} of {len(whole)} consumed"
        self.assert_steps(shares, whole[consumed:], whole, padding, at)

    @given(
        size=SMALL,
        seed=SEEDS,
        epoch=st.integers(0, 3),
        padding=PADDING,
        stages=st.lists(st.tuples(WORLDS, st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=6),
    )
    @examples(40)
    def test_a_run_changes_its_world_size_at_any_step(
        self, size: int, seed: int, epoch: int, padding: Padding, stages: list[tuple[int, int, int]]
    ) -> None:
        """However often a run goes on with more ranks or fewer, each item left comes exactly once, padding excepted."""
        assume(padding in self.paddings)
        whole, consumed = self.order(size, seed, epoch), 0
        state, _ = self.state_at(size, seed, epoch, 0)
        for world, batch, steps in stages:
            shares = self.world(size, seed, world, padding, state)
            drawing = [iter(share) for share in shares]
            for _ in range(steps):
                due = whole[consumed : consumed + world * batch]
                if padding == "drop":
                    due = due[: len(due) // world * world]
                if not due:
                    break
                drawn = Counter(item for each in drawing for item in keys(each, batch))
                lost, more = Counter(due) - drawn, drawn - Counter(due)
                at = f"after {consumed} of {len(whole)} in worlds {stages}, a step of {batch} in a world of {world}"
                assert not lost, f"{at} lacks {list(lost)} of {due}"
                repeated = -len(due) % world if padding == "repeat" else 0
                assert more.total() == repeated, f"{at} has {list(more.elements())} beyond {due}"
                for share in shares:
                    share.advance(batch)
                consumed += len(due)
            state = shares[-1].state_dict()
        alone = self.world(size, seed, 1, padding, state)[0]
        assert keys(alone) == whole[consumed:], f"after worlds {stages}, {consumed} consumed, what is left differs"

    @given(size=SMALL, seed=SEEDS, part=FRACTIONS, world=WORLDS)
    @examples(25)
    def test_shares_are_equally_long(self, size: int, seed: int, part: float, world: int) -> None:
        """From any position on, ranks draw equally many items; without padding, the first ones at most one more."""
        state, _ = self.state_at(size, seed, 0, part)
        for padding in self.paddings:
            drawn = [len(keys(share)) for share in self.world(size, seed, world, padding, state)]
            most = 1 if padding == "none" else 0
            assert max(drawn) - min(drawn) <= most, f"{world} ranks with padding {padding} draw {drawn} items"

    @given(size=SMALL, seed=SEEDS, part=FRACTIONS, world=WORLDS, padding=PADDING)
    @examples(30)
    def test_len_and_remaining_count_what_is_drawn(
        self, size: int, seed: int, part: float, world: int, padding: Padding
    ) -> None:
        """Len is what this rank yields in a whole epoch, remaining what it still yields, after a resume too."""
        assume(padding in self.paddings)
        state, consumed = self.state_at(size, seed, 0, part)
        fresh, resumed = self.world(size, seed, world, padding), self.world(size, seed, world, padding, state)
        for rank, (new, old) in enumerate(zip(fresh, resumed, strict=True)):
            whole, left = len(keys(new)), len(keys(old))
            at = f"rank {rank} of {world}, padding {padding}, {consumed} consumed"
            assert len(new) == len(old) == whole, f"{at}: len is {len(new)}, then {len(old)}, of {whole}"
            assert new.remaining == whole, f"{at}: {new.remaining} remain of {whole} at the start"
            assert old.remaining == left, f"{at}: {old.remaining} remain, {left} come"

    @given(size=SMALL, seed=SEEDS, epoch=EPOCHS, part=FRACTIONS, world=WORLDS, padding=PADDING)
    @examples(25)
    def test_repeated_items_are_marked(
        self, size: int, seed: int, epoch: int, part: float, world: int, padding: Padding
    ) -> None:
        """Items without a mark are what is left of the epoch, each once; all know their epoch."""
        assume(padding in self.paddings)
        if not self.marked:
            raise SkipTest("items carry no marks")
        state, consumed = self.state_at(size, seed, epoch, part)
        due, unmarked = self.order(size, seed, epoch)[consumed:], list[Hashable]()
        if padding == "drop":
            due = due[: len(due) // world * world]
        for share in self.world(size, seed, world, padding, state):
            for item in share:
                padded = set[bool]()
                for index in item if isinstance(item, list) else [item]:
                    assert isinstance(index, Marked), f"{index!r} has no mark"
                    assert index.epoch == epoch, f"an index drawn in epoch {epoch} says {index.epoch}"
                    padded.add(index.padding)
                assert len(padded) == 1, f"in {item} some indices are repeated, and some not"
                unmarked += [] if padded == {True} else [key(item)]
        found = Counter(unmarked)
        assert found == Counter(due), f"{found - Counter(due)} too many without a mark, {Counter(due) - found} too few"

    def test_global_generators_are_left_alone(self) -> None:
        """What ranks draw depends on no global generator, and touches none."""
        drawn = []
        for noise in (1, 2):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(noise)
                before = torch.random.get_rng_state()
                drawn.append([keys(share) for share in self.world(50, 3, 4, "repeat")])
                assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator was touched"
        assert drawn[0] == drawn[1], "what ranks draw depends on torch's global generator"

"""The laws of groups of ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples
from treenail.contracts.laws.comm._calls import CALLS, arguments_of, due_of
from treenail.contracts.laws.comm._tensors import (
    INTEGERS,
    SIZES,
    SOME_SHAPES,
    Described,
    assert_all_same,
    even,
)
from treenail.contracts.laws.comm._world import Rank, WorldLaws
from treenail.kernel import Communicator


class Members(NamedTuple):
    """Some ranks in some order, some of those in another order, and what they exchange."""

    order: list[int]
    size: int
    nested: list[int]
    tensors: list[Described]

    def of(self, world_size: int) -> list[int]:
        """Return the ranks of the group in a world of so many."""
        inside = [rank for rank in self.order if rank < world_size]
        return inside[: 1 + self.size % len(inside)]


class Split(NamedTuple):
    """Which of two groups each rank belongs to, and how many collectives each group does."""

    sides: list[bool]
    counts: tuple[int, int]


members = st.builds(
    Members, st.permutations(range(5)), st.integers(0, 4), st.permutations(range(5)), even(INTEGERS, SOME_SHAPES)
)
splits = st.builds(
    Split, st.lists(st.booleans(), min_size=5, max_size=5), st.tuples(st.integers(1, 4), st.integers(1, 4))
)


def assert_group(group: Communicator | None, rank: int, ranks: list[int]) -> bool:
    """Fail unless this is the group of these ranks as one of them, or none, sees it; return whether it is one of them."""
    if rank not in ranks:
        assert group is None, f"a group of {ranks} is {group!r} on rank {rank}, must be None"
        return False
    assert group is not None, f"a group of {ranks} is None on rank {rank}"
    found, due = (group.rank, group.world_size), (ranks.index(rank), len(ranks))
    assert found == due, f"in a group of {ranks}, rank {rank} is {found[0]} of {found[1]}, must be {due[0]} of {due[1]}"
    return True


def _is_numbered(rank: Rank, case: Members) -> None:
    ranks = case.of(rank.world_size)
    group = rank.communicator.group(ranks)
    if not assert_group(group, rank.number, ranks):
        return
    assert group is not None
    nested = [place for place in case.nested if place < len(ranks)][: max(1, len(ranks) - 1)]
    assert_group(group.group(nested), group.rank, nested)


def _works_as_a_world(rank: Rank, case: Members) -> None:
    ranks = case.of(rank.world_size)
    group = rank.communicator.group(ranks)
    if group is None:
        return
    world = Rank(group, rank.device)
    for name, call in CALLS.items():
        found = call(world, arguments_of(world, name, case.tensors))
        assert_all_same(found, due_of(world, name, case.tensors), f"in a group of {ranks}, {name}")
    nested = [place for place in case.nested if place < len(ranks)]
    inner = group.group(nested)
    assert inner is not None, "a group of all ranks is None"
    found = inner.all_gather(torch.tensor([rank.number]))
    due = [torch.tensor([ranks[place]]) for place in nested]
    assert_all_same(found, due, f"all_gather in a group of {nested} of a group of {ranks}")


def _is_independent(rank: Rank, case: Split) -> None:
    sides = case.sides[: rank.world_size]
    parts = [[other for other, side in enumerate(sides) if side == which] for which in (False, True)]
    groups = [rank.communicator.group(part) if part else None for part in parts]
    which = sides[rank.number]
    group = groups[which]
    assert group is not None, f"a group of {parts[which]} is None on rank {rank.number}"
    for number in range(case.counts[which]):
        found = group.all_gather(torch.tensor([rank.number, number]))
        due = [torch.tensor([other, number]) for other in parts[which]]
        assert_all_same(found, due, f"beside another group, all_gather {number} of ranks {parts[which]}")
    # Messages of the world and of a group, with one tag, between the same two ranks.
    if len(parts[which]) > 1:
        inside = Rank(group, rank.device)
        sends = [
            rank.communicator.isend(torch.tensor(1), parts[which][inside.after]),
            group.isend(torch.tensor(2), inside.after),
        ]
        received = [group.irecv(inside.before)(), rank.communicator.irecv(parts[which][inside.before])()]
        assert [int(one) for one in received] == [2, 1], f"a group's message and the world's came as {received}"
        for wait in sends:
            wait()
    found = rank.communicator.all_gather(torch.tensor([rank.number]))
    due = [torch.tensor([other]) for other in range(rank.world_size)]
    assert_all_same(found, due, "after collectives of two groups, all_gather of the world")


class GroupLaws(WorldLaws):
    """What groups of ranks are."""

    @given(size=SIZES, case=members)
    @examples(40)
    def test_a_group_is_numbered_in_the_given_order(self, size: int, case: Members) -> None:
        """The ranks of a group are numbered as they were given, also in a group of a group; the others get None."""
        self.held(self.size(size), _is_numbered, case)

    @given(size=SIZES, case=members)
    @examples(30)
    def test_a_group_is_a_world(self, size: int, case: Members) -> None:
        """Every collective and message works among a group's ranks as in a world of them."""
        self.held(self.size(size), _works_as_a_world, case)

    @given(size=SIZES, case=splits)
    @examples(30)
    def test_groups_do_not_disturb_each_other(self, size: int, case: Split) -> None:
        """Two groups do different numbers of collectives at the same time; messages of each and of the world stay apart."""
        self.held(self.size(size), _is_independent, case)

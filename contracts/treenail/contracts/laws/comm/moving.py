"""The laws of collectives that move tensors."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treenail.contracts.laws._support import examples
from treenail.contracts.laws.comm._calls import CALLS, arguments_of
from treenail.contracts.laws.comm._tensors import (
    FLOATS,
    INTEGERS,
    RANKS,
    SIZES,
    SOME_SHAPES,
    Described,
    assert_all_same,
    assert_same,
    bits,
    described,
    even,
    uneven,
)
from treenail.contracts.laws.comm._world import Rank, WorldLaws

LATE = 0.05  # seconds that the slow rank comes late


class Rooted(NamedTuple):
    """A tensor per rank, and the rank that sends or receives."""

    tensors: list[Described]
    root: int
    others_give_none: bool = True


class Crossing(NamedTuple):
    """A tensor for each pair of ranks, and how long each of them is."""

    tensor: Described
    lengths: list[list[int]]

    def between(self, source: int, destination: int) -> Described:
        """Return what one rank sends another."""
        one = self.tensor._replace(seed=self.tensor.seed + 5 * source + destination)
        return one.of_length(self.lengths[source][destination])


crossings = st.builds(
    Crossing,
    described(special=True),
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=5, max_size=5),
)


def _numbers(rank: Rank, _: None) -> tuple[int, int]:
    return rank.number, rank.world_size


def _meets(rank: Rank, late: int) -> tuple[float, float]:
    rank.communicator.barrier()
    time.sleep(LATE if rank.number == late else 0)
    before = time.monotonic()
    rank.communicator.barrier()
    return before, time.monotonic()


def _broadcasts(rank: Rank, case: Rooted) -> None:
    source, sent = case.root, case.tensors[case.root]
    like = sent._replace(seed=sent.seed + 1 + rank.number, layout=case.tensors[rank.number].layout)
    given = rank.make(sent if rank.number == source else like)
    found = rank.communicator.broadcast(None if case.others_give_none and rank.number != source else given, source)
    assert_same(found, rank.make(sent), f"broadcast from rank {source}")


def _gathers_on_all(rank: Rank, tensors: list[Described]) -> None:
    found = rank.communicator.all_gather(rank.make(tensors[rank.number]))
    assert_all_same(found, rank.make_all(tensors), "all_gather")


def _gathers(rank: Rank, case: Rooted) -> None:
    found = rank.communicator.gather(rank.make(case.tensors[rank.number]), case.root)
    if rank.number == case.root:
        assert_all_same(found, rank.make_all(case.tensors), f"gather on rank {case.root}")
    else:
        assert found is None, f"gather on rank {case.root} gave {found!r} elsewhere, must give None"


def _scatters(rank: Rank, case: Rooted) -> None:
    given = rank.make_all(case.tensors) if rank.number == case.root else None
    found = rank.communicator.scatter(given, case.root)
    assert_same(found, rank.make(case.tensors[rank.number]), f"scatter from rank {case.root}")


def _crosses(rank: Rank, case: Crossing) -> None:
    ranks, here = range(rank.world_size), rank.number
    found = rank.communicator.all_to_all([rank.make(case.between(here, other)) for other in ranks])
    assert_all_same(found, [rank.make(case.between(other, here)) for other in ranks], "all_to_all")


def _spares(rank: Rank, tensors: list[Described]) -> None:
    for name, call in CALLS.items():
        given = arguments_of(rank, name, tensors)
        before = [(bits(tensor), tensor.stride(), tensor.requires_grad) for tensor in given]
        call(rank, given)
        for tensor, (values, stride, gradient) in zip(given, before, strict=True):
            assert torch.equal(bits(tensor), values), f"{name} changed the values of its argument"
            assert tensor.stride() == stride, f"{name} changed the strides of its argument"
            assert tensor.requires_grad == gradient, f"{name} changed whether its argument requires a gradient"


def _shares_nothing(rank: Rank, tensors: list[Described]) -> None:
    held: list[tuple[str, Tensor]] = []
    for name, call in CALLS.items():
        given = [tensor.detach().clone() for tensor in arguments_of(rank, name, tensors)]
        held += [(f"an argument of {name}", tensor) for tensor in given]
        held += [(f"a result of {name}", tensor) for tensor in call(rank, given)]
    content = [bits(tensor) for _, tensor in held]
    for writer in range(rank.world_size):
        rank.communicator.barrier()
        if rank.number == writer:
            for number, (_, tensor) in enumerate(held):
                tensor.fill_(number)
            content = [bits(torch.full_like(tensor, number)) for number, (_, tensor) in enumerate(held)]
        rank.communicator.barrier()
        for (what, tensor), values in zip(held, content, strict=True):
            where = "another one on its rank" if rank.number == writer else f"tensors on rank {writer}"
            assert torch.equal(bits(tensor), values), f"{what} changed when {where} was written to"


class MovingLaws(WorldLaws):
    """What collectives do that move tensors."""

    def test_ranks_are_numbered(self) -> None:
        """Ranks are numbered from 0, and all know how many they are."""
        for size in self.worlds:
            found = self.held(size, _numbers, None)
            assert found == [(rank, size) for rank in range(size)], (
                f"(rank, world_size) are {found} in a world of {size}"
            )

    def test_a_barrier_waits_for_all(self) -> None:
        """No rank leaves a barrier before the last one came (on one machine, whose clock they share)."""
        for size in self.worlds:
            for late in {0, size - 1}:
                times = self.held(size, _meets, late)
                came, left = max(before for before, _ in times), min(after for _, after in times)
                assert came <= left, (
                    f"in a world of {size} a rank left the barrier {came - left} s before rank {late} came"
                )

    @given(size=SIZES, tensors=even(special=True), root=RANKS, others_give_none=st.booleans())
    @examples(40)
    def test_broadcast_gives_the_sources_tensor(
        self, size: int, tensors: list[Described], root: int, others_give_none: bool
    ) -> None:
        """Every rank gets the tensor of the source, whichever it is, whether the others give None or one like it."""
        size = self.size(size)
        self.held(size, _broadcasts, Rooted(tensors, root % size, others_give_none))

    @given(size=SIZES, tensors=uneven())
    @examples(60)
    def test_all_gather_gives_all_tensors_in_rank_order(self, size: int, tensors: list[Described]) -> None:
        """Every rank gets the tensors of all, in rank order, whatever their first dimensions: none padded, none lost."""
        self.held(self.size(size), _gathers_on_all, tensors)

    @given(size=SIZES, tensors=uneven(), root=RANKS)
    @examples(60)
    def test_gather_gives_all_tensors_to_one_rank(self, size: int, tensors: list[Described], root: int) -> None:
        """The destination gets the tensors of all in rank order, whatever their first dimensions; the others None."""
        size = self.size(size)
        self.held(size, _gathers, Rooted(tensors, root % size))

    @given(size=SIZES, tensors=uneven(), root=RANKS)
    @examples(40)
    def test_scatter_gives_each_rank_its_tensor(self, size: int, tensors: list[Described], root: int) -> None:
        """Rank i gets the i-th tensor of the source, whatever their first dimensions."""
        size = self.size(size)
        self.held(size, _scatters, Rooted(tensors, root % size))

    @given(size=SIZES, case=crossings)
    @examples(40)
    def test_all_to_all_is_a_transposition(self, size: int, case: Crossing) -> None:
        """The i-th tensor of rank j comes to rank i as its j-th, whatever their first dimensions."""
        self.held(self.size(size), _crosses, case)

    @given(size=SIZES, tensors=even())
    @examples(30)
    def test_arguments_are_left_as_they_are(self, size: int, tensors: list[Described]) -> None:
        """No collective changes its argument's values, strides or flags."""
        self.held(self.size(size), _spares, tensors)

    @given(size=SIZES, tensors=even(INTEGERS + FLOATS, SOME_SHAPES))
    @examples(20)
    def test_results_are_memory_of_their_own(self, size: int, tensors: list[Described]) -> None:
        """Writing to an argument or a result, on any rank, changes no other one, in a world of one, too."""
        self.held(self.size(size), _shares_nothing, tensors)

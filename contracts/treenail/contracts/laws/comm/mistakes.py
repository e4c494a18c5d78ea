"""The laws of ranks that do not agree: an error everywhere, never a wait, and nothing broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.comm._calls import CALLS, arguments_of, due_of
from treenail.contracts.laws.comm._tensors import INTEGERS, RANKS, SIZES, SOME_SHAPES, Described, assert_all_same, even
from treenail.contracts.laws.comm._world import Rank, WorldLaws
from treenail.kernel import CommunicationError


class Mistake(NamedTuple):
    """What one rank does differently from the others.

    Args:
        name: What that is.
        call: Does it on the rank of the given number, and what is right on the others.
        words: What an error's text must name.
        alone: Whether it is a mistake in a world of one, too.
    """

    name: str
    call: Callable[[Rank, int], object]
    words: tuple[str, ...]
    alone: bool = False


def _ones(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


def _calls_another_collective(rank: Rank, odd: int) -> object:
    return rank.communicator.barrier() if rank.number == odd else rank.communicator.all_reduce(_ones(3))


def _gathers_instead_of_all_gather(rank: Rank, odd: int) -> object:
    communicator = rank.communicator
    return communicator.gather(_ones(3)) if rank.number == odd else communicator.all_gather(_ones(3))


def _reduces_another_dtype(rank: Rank, odd: int) -> object:
    return rank.communicator.all_reduce(_ones(3, dtype=torch.float64 if rank.number == odd else torch.float32))


def _reduces_another_shape(rank: Rank, odd: int) -> object:
    return rank.communicator.all_reduce(_ones(2, 3) if rank.number == odd else _ones(3, 2))


def _reduces_another_large_shape(rank: Rank, odd: int) -> object:
    return rank.communicator.all_reduce(_ones(30_001 if rank.number == odd else 30_000))


def _reduces_by_another_operation(rank: Rank, odd: int) -> object:
    return rank.communicator.all_reduce(_ones(3), "max" if rank.number == odd else "sum")


def _gathers_another_dtype(rank: Rank, odd: int) -> object:
    return rank.communicator.all_gather(_ones(3, dtype=torch.int64 if rank.number == odd else torch.int32))


def _gathers_other_columns(rank: Rank, odd: int) -> object:
    return rank.communicator.all_gather(_ones(2, 4) if rank.number == odd else _ones(1, 3))


def _gathers_another_number_of_dimensions(rank: Rank, odd: int) -> object:
    return rank.communicator.gather(_ones(2, 1) if rank.number == odd else _ones(2))


def _gathers_a_number_of_another_dtype(rank: Rank, odd: int) -> object:
    return rank.communicator.gather(_ones(dtype=torch.bool if rank.number == odd else torch.float16))


def _gathers_to_another_rank(rank: Rank, odd: int) -> object:
    return rank.communicator.gather(_ones(3), odd if rank.number == odd else (odd + 1) % rank.world_size)


def _broadcasts_from_another_rank(rank: Rank, odd: int) -> object:
    return rank.communicator.broadcast(_ones(3), odd if rank.number == odd else (odd + 1) % rank.world_size)


def _takes_a_broadcast_of_another_shape(rank: Rank, odd: int) -> object:
    source = (odd + 1) % rank.world_size
    return rank.communicator.broadcast(_ones(2) if rank.number == odd else _ones(3), source)


def _takes_a_broadcast_of_another_dtype(rank: Rank, odd: int) -> object:
    dtype = torch.float16 if rank.number == odd else torch.bfloat16
    return rank.communicator.broadcast(_ones(3, dtype=dtype), (odd + 1) % rank.world_size)


def _broadcasts_nothing(rank: Rank, odd: int) -> object:
    return rank.communicator.broadcast(None if rank.number == odd else _ones(3), odd)


def _scatters_from_another_rank(rank: Rank, odd: int) -> object:
    source = odd if rank.number == odd else (odd + 1) % rank.world_size
    return rank.communicator.scatter([_ones(3)] * rank.world_size if rank.number == source else None, source)


def _scatters_one_too_many(rank: Rank, odd: int) -> object:
    return rank.communicator.scatter([_ones(3)] * (rank.world_size + 1) if rank.number == odd else None, odd)


def _scatters_nothing(rank: Rank, odd: int) -> object:
    return rank.communicator.scatter(None, odd)


def _sends_one_too_many(rank: Rank, odd: int) -> object:
    return rank.communicator.all_to_all([_ones(3)] * (rank.world_size + (1 if rank.number == odd else 0)))


def _sends_one_too_few(rank: Rank, odd: int) -> object:
    return rank.communicator.all_to_all([_ones(3)] * (rank.world_size - (1 if rank.number == odd else 0)))


def _reduces_no_tensor(rank: Rank, odd: int) -> object:
    return rank.communicator.all_reduce([1.0] if rank.number == odd else _ones(1))  # type: ignore[arg-type]  # on purpose


def _gathers_no_tensor(rank: Rank, odd: int) -> object:
    return rank.communicator.all_gather(1.0 if rank.number == odd else _ones())  # type: ignore[arg-type]  # on purpose


def _scatters_no_tensors(rank: Rank, odd: int) -> object:
    return rank.communicator.scatter(["a"] * rank.world_size if rank.number == odd else None, odd)  # type: ignore[list-item]  # on purpose


def _gathers_to_no_rank(rank: Rank, odd: int) -> object:
    return rank.communicator.gather(_ones(3), rank.world_size if rank.number == odd else 0)


def _broadcasts_from_no_rank(rank: Rank, odd: int) -> object:
    return rank.communicator.broadcast(_ones(3), -1 if rank.number == odd else 0)


def _scatters_from_no_rank(rank: Rank, odd: int) -> object:
    given = [_ones(3)] * rank.world_size if rank.number == 0 else None
    return rank.communicator.scatter(given, rank.world_size if rank.number == odd else 0)


def _groups_other_ranks(rank: Rank, odd: int) -> object:
    return rank.communicator.group([odd] if rank.number == odd else [(odd + 1) % rank.world_size])


def _groups_in_another_order(rank: Rank, odd: int) -> object:
    return rank.communicator.group([1, 0] if rank.number == odd else [0, 1])


def _groups_a_rank_twice(rank: Rank, odd: int) -> object:
    return rank.communicator.group([0, 0] if rank.number == odd else [0])


def _groups_no_such_rank(rank: Rank, odd: int) -> object:
    return rank.communicator.group([0, rank.world_size] if rank.number == odd else [0])


def _groups_nobody(rank: Rank, odd: int) -> object:
    return rank.communicator.group([] if rank.number == odd else [0])


MISTAKES: Final = (
    Mistake("another collective", _calls_another_collective, ("all_reduce", "barrier")),
    Mistake("gather instead of all_gather", _gathers_instead_of_all_gather, ("gather", "all_gather")),
    Mistake("another dtype in all_reduce", _reduces_another_dtype, ("all_reduce", "float32", "float64")),
    Mistake("another shape in all_reduce", _reduces_another_shape, ("all_reduce",)),
    Mistake("another large shape in all_reduce", _reduces_another_large_shape, ("all_reduce", "30000", "30001")),
    Mistake("another operation", _reduces_by_another_operation, ("all_reduce", "max", "sum")),
    Mistake("another dtype in all_gather", _gathers_another_dtype, ("all_gather", "int32", "int64")),
    Mistake("other columns in all_gather", _gathers_other_columns, ("all_gather",)),
    Mistake("another number of dimensions in gather", _gathers_another_number_of_dimensions, ("gather",)),
    Mistake("another dtype of a number", _gathers_a_number_of_another_dtype, ("gather", "bool", "float16")),
    Mistake("another destination", _gathers_to_another_rank, ("gather",)),
    Mistake("another source of a broadcast", _broadcasts_from_another_rank, ("broadcast",)),
    Mistake("another shape in broadcast", _takes_a_broadcast_of_another_shape, ("broadcast",)),
    Mistake("another dtype in broadcast", _takes_a_broadcast_of_another_dtype, ("broadcast", "float16", "bfloat16")),
    Mistake("a broadcast of None", _broadcasts_nothing, ("broadcast",), alone=True),
    Mistake("another source of a scatter", _scatters_from_another_rank, ("scatter",)),
    Mistake("a tensor too many for scatter", _scatters_one_too_many, ("scatter",), alone=True),
    Mistake("a scatter of None", _scatters_nothing, ("scatter",), alone=True),
    Mistake("a tensor too many for all_to_all", _sends_one_too_many, ("all_to_all",), alone=True),
    Mistake("a tensor too few for all_to_all", _sends_one_too_few, ("all_to_all",), alone=True),
    Mistake("no tensor in all_reduce", _reduces_no_tensor, ("all_reduce",), alone=True),
    Mistake("no tensor in all_gather", _gathers_no_tensor, ("all_gather",), alone=True),
    Mistake("no tensors in scatter", _scatters_no_tensors, ("scatter",), alone=True),
    Mistake("a destination that does not exist", _gathers_to_no_rank, ("gather",), alone=True),
    Mistake("a source that does not exist", _broadcasts_from_no_rank, ("broadcast",), alone=True),
    Mistake("a source of a scatter that does not exist", _scatters_from_no_rank, ("scatter",), alone=True),
    Mistake("a group of other ranks", _groups_other_ranks, ("group",)),
    Mistake("a group in another order", _groups_in_another_order, ("group",)),
    Mistake("a group with a rank twice", _groups_a_rank_twice, ("group",), alone=True),
    Mistake("a group with a rank that does not exist", _groups_no_such_rank, ("group",), alone=True),
    Mistake("a group of no ranks", _groups_nobody, ("group",), alone=True),
)


class Case(NamedTuple):
    """Mistakes, by their places among all, and who makes them."""

    mistakes: list[int]
    odd: int


def err(rank: Rank, mistake: Mistake, odd: int, what: str = "") -> str:
    """Make a mistake on one rank; see that it is refused on this one, and return what is said about it."""
    with refused(f"{mistake.name} on rank {odd}{what}", CommunicationError) as refusal:
        mistake.call(rank, odd)
    return refusal.text


def _errs(rank: Rank, case: Case) -> None:
    for place in case.mistakes:
        err(rank, MISTAKES[place], case.odd)


def _says_who_did_what(rank: Rank, case: Case) -> None:
    for place in case.mistakes:
        mistake = MISTAKES[place]
        text = err(rank, mistake, case.odd)
        missing = [word for word in mistake.words if word not in text]
        assert not missing, f"the error of {mistake.name} does not name {', '.join(missing)}: {text}"
        assert re.search(rf"\branks? (\d+, )*{case.odd}\b", text), (
            f"the error of {mistake.name} on rank {case.odd} does not name that rank: {text}"
        )


def _goes_on(rank: Rank, case: tuple[Case, list[Described]]) -> None:
    (mistakes, odd), tensors = case
    for place in mistakes:
        mistake = MISTAKES[place]
        try:
            mistake.call(rank, odd)
        except CommunicationError:  # that all ranks get it is another law
            for name, call in CALLS.items():
                found = call(rank, arguments_of(rank, name, tensors))
                assert_all_same(found, due_of(rank, name, tensors), f"after {mistake.name}, {name}")


def _errs_in_a_group(rank: Rank, case: Case) -> None:
    odd = case.odd
    members = [odd, (odd + 1) % rank.world_size]
    group = rank.communicator.group(members)
    outside = [other for other in range(rank.world_size) if other not in members]
    rest = rank.communicator.group(outside) if outside else None
    for place in case.mistakes:
        mistake = MISTAKES[place]
        if group is not None:
            err(Rank(group, rank.device), mistake, 0, " of a group")
            found = group.all_gather(torch.tensor([rank.number]))
            assert torch.cat(found).tolist() == members, f"after {mistake.name} in a group, it gathers {found}"
        elif rest is not None:
            found = rest.all_gather(torch.tensor([rank.number]))
            assert torch.cat(found).tolist() == outside, f"beside a mistake in another group, a group gathers {found}"
    found = rank.communicator.all_gather(torch.tensor([rank.number]))
    assert torch.cat(found).tolist() == list(range(rank.world_size)), f"after mistakes in a group, all gather {found}"


PLACES: Final = st.lists(st.integers(0, len(MISTAKES) - 1), min_size=1, max_size=4)


class MistakeLaws(WorldLaws):
    """What happens when ranks do not do the same."""

    @given(size=SIZES, places=PLACES, odd=RANKS)
    @examples(60)
    def test_a_mistake_of_one_rank_is_an_error_on_every_rank(self, size: int, places: list[int], odd: int) -> None:
        """Where one rank calls something else or cannot take part, all raise CommunicationError and none waits."""
        size = self.size(size)
        self.held(size, _errs, self.mistaken(size, places, odd))

    @given(size=SIZES, places=PLACES, odd=RANKS)
    @examples(60)
    def test_the_error_says_which_rank_did_what(self, size: int, places: list[int], odd: int) -> None:
        """On every rank the error names the rank that differs, the collectives, and what is different in them."""
        size = self.size(size)
        self.held(size, _says_who_did_what, self.mistaken(size, places, odd))

    @given(size=SIZES, places=PLACES, odd=RANKS, tensors=even(INTEGERS, SOME_SHAPES))
    @examples(40)
    def test_the_ranks_go_on_after_a_mistake(
        self, size: int, places: list[int], odd: int, tensors: list[Described]
    ) -> None:
        """After a refused collective the next ones succeed, and move nothing of what was refused."""
        size = self.size(size)
        self.held(size, _goes_on, (self.mistaken(size, places, odd), tensors))

    @given(size=SIZES, places=PLACES, odd=RANKS)
    @examples(30)
    def test_a_mistake_in_a_group_is_that_groups(self, size: int, places: list[int], odd: int) -> None:
        """A mistake within a group raises on its ranks; they, the other ranks and all of them together go on."""
        size = self.several(size)
        self.held(size, _errs_in_a_group, Case(places, odd % size))

    @staticmethod
    def mistaken(size: int, places: list[int], odd: int) -> Case:
        """Return a case whose mistakes are mistakes in a world of this size."""
        alone = [place for place, mistake in enumerate(MISTAKES) if mistake.alone]
        return Case(places if size > 1 else [alone[place % len(alone)] for place in places], odd % size)

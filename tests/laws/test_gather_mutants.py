"""Each law of gathering fails on functions that break it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from treenail.adapters.comm import run_threads
from treenail.contracts.laws import GatherFunctions, GatherLaws
from treenail.kernel import Communicator

from . import gather_mutants as mutants
from .gather_mutants import RIGHT
from .mutation import Law, assert_all_proved, assert_kills

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns

MUTANTS: list[tuple[GatherFunctions, Law]] = [
    *(
        (RIGHT._replace(gather_data=mutant), GatherLaws.test_shares_become_the_whole)
        for mutant in (
            mutants.leaves_out_the_last_rank,
            mutants.gathers_in_reverse,
            mutants.makes_lists_of_tuples,
            mutants.sorts_keys,
            mutants.widens_halves,
            mutants.loses_the_dtype_of_the_empty,
            mutants.gives_zero_elsewhere,
            mutants.keeps_numbers_of_one_rank,
        )
    ),
    (RIGHT._replace(all_gather_data=mutants.tells_rank_0_only), GatherLaws.test_every_rank_can_have_the_whole),
    *(
        (RIGHT._replace(all_gather_data=mutant), GatherLaws.test_what_was_gathered_is_left_as_it_is)
        for mutant in (mutants.is_the_argument_alone, mutants.empties_its_argument)
    ),
    *(
        (RIGHT._replace(gather_samples=mutant), GatherLaws.test_samples_come_in_the_order_of_the_dataset)
        for mutant in (
            mutants.sorts_by_rank,
            mutants.keeps_duplicates,
            mutants.keeps_what_is_padding,
            mutants.cuts_the_last,
        )
    ),
    *(
        (RIGHT._replace(gather_object=mutant), GatherLaws.test_objects_come_in_the_order_of_ranks)
        for mutant in (mutants.gathers_objects_in_reverse, mutants.keeps_its_own_object)
    ),
    *(
        (RIGHT._replace(gather_data=mutant), GatherLaws.test_another_structure_is_an_error_on_every_rank)
        for mutant in (mutants.takes_what_fits, mutants.hides_the_path)
    ),
    (
        RIGHT._replace(gather_samples=mutants.takes_means),
        GatherLaws.test_what_has_no_value_for_each_sample_is_refused,
    ),
    (
        RIGHT._replace(gather_object=mutants.pickles_before_it_asks),
        GatherLaws.test_what_cannot_be_sent_is_an_error_on_every_rank,
    ),
]


def name_of(given: object) -> str:
    """Return the name of what is wrong."""
    if isinstance(given, GatherFunctions):
        return next(one.__name__ for one, right in zip(given, RIGHT, strict=True) if one is not right)
    return getattr(given, "__name__", "")


@pytest.mark.parametrize(("mutant", "law"), MUTANTS, ids=name_of)
def test_the_law_kills_the_mutant(mutant: GatherFunctions, law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(GatherLaws):
        functions = mutant

        def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
            return run_threads(
                world_size, lambda communicator: program(communicator, inputs[communicator.rank]), timeout=5.0
            )

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(GatherLaws, [law for _, law in MUTANTS])

"""Each law of communicators fails on one that breaks it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from treenail.adapters.comm import run_threads
from treenail.contracts.laws import CommunicatorLaws
from treenail.kernel import Communicator

from . import comm_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns

Laws = CommunicatorLaws

MUTANTS: list[tuple[Callable[[Communicator], Communicator], Law]] = [
    (mutants.NumbersRanksFromOne, Laws.test_ranks_are_numbered),
    (mutants.DoesNotWait, Laws.test_a_barrier_waits_for_all),
    (mutants.IgnoresTheSource, Laws.test_broadcast_gives_the_sources_tensor),
    (mutants.DropsTheLastShard, Laws.test_all_gather_gives_all_tensors_in_rank_order),
    (mutants.PadsWithoutTrimming, Laws.test_all_gather_gives_all_tensors_in_rank_order),
    (mutants.PromotesTheDtype, Laws.test_all_gather_gives_all_tensors_in_rank_order),
    (mutants.AssumesContiguousTensors, Laws.test_all_gather_gives_all_tensors_in_rank_order),
    (mutants.LosesTheOrderOfRanks, Laws.test_gather_gives_all_tensors_to_one_rank),
    (mutants.LeavesOutTheEmpty, Laws.test_gather_gives_all_tensors_to_one_rank),
    (mutants.GathersAnEmptyListElsewhere, Laws.test_gather_gives_all_tensors_to_one_rank),
    (mutants.ScattersInReverse, Laws.test_scatter_gives_each_rank_its_tensor),
    (mutants.TransposesNothing, Laws.test_all_to_all_is_a_transposition),
    (mutants.ReducesInPlace, Laws.test_arguments_are_left_as_they_are),
    (mutants.GivesBackTheArgumentInAWorldOfOne, Laws.test_results_are_memory_of_their_own),
    (mutants.KeepsItsOwnPart, Laws.test_results_are_memory_of_their_own),
    (mutants.ReusesItsBuffer, Laws.test_results_are_memory_of_their_own),
    (mutants.ForgetsToDivide, Laws.test_all_reduce_is_the_mathematical_reduction),
    (mutants.PromotesSums, Laws.test_all_reduce_is_the_mathematical_reduction),
    (mutants.LosesNan, Laws.test_all_reduce_is_the_mathematical_reduction),
    (mutants.AddsFromItselfOn, Laws.test_all_ranks_get_the_same_bits),
    (mutants.AveragesIntegers, Laws.test_operations_that_do_not_exist_are_refused),
    (mutants.TakesUnknownOperationsForSums, Laws.test_operations_that_do_not_exist_are_refused),
    (mutants.IgnoresTags, Laws.test_messages_arrive_by_tag_and_in_order),
    (mutants.MatchesMessagesWhenWaitedFor, Laws.test_messages_arrive_by_tag_and_in_order),
    (mutants.SendsAfterTheWait, Laws.test_a_tensor_that_was_sent_may_be_changed),
    (mutants.TakesNegativeRanks, Laws.test_messages_to_ranks_that_do_not_exist_are_refused),
    (mutants.ReusesResults, Laws.test_collectives_follow_one_another),
    (mutants.SortsTheGroup, Laws.test_a_group_is_numbered_in_the_given_order),
    (mutants.IsEverybodysGroup, Laws.test_a_group_is_numbered_in_the_given_order),
    (mutants.CountsSourcesInTheWorld, Laws.test_a_group_is_a_world),
    (mutants.SendsMessagesInTheWorld, Laws.test_groups_do_not_disturb_each_other),
    (mutants.TellsOneRankOnly, Laws.test_a_mistake_of_one_rank_is_an_error_on_every_rank),
    (mutants.BroadcastsWhatFits, Laws.test_a_mistake_of_one_rank_is_an_error_on_every_rank),
    (mutants.NamesNobody, Laws.test_the_error_says_which_rank_did_what),
    (mutants.IsUnusableAfterwards, Laws.test_the_ranks_go_on_after_a_mistake),
    (mutants.KeepsWhatWasRefused, Laws.test_the_ranks_go_on_after_a_mistake),
    (mutants.BreaksTheWorldWithAGroup, Laws.test_a_mistake_in_a_group_is_that_groups),
    (mutants.TellsNobody, Laws.test_abort_ends_what_the_others_wait_for),
    (mutants.LosesTheReason, Laws.test_abort_ends_what_the_others_wait_for),
    (mutants.TellsNobody, Laws.test_a_program_that_fails_ends_all),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: Callable[[Communicator], Communicator], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(CommunicatorLaws):
        def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
            def mutated(communicator: Communicator) -> O:
                return program(mutant(communicator), inputs[communicator.rank])

            return run_threads(world_size, mutated, timeout=5.0)

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(CommunicatorLaws, [law for _, law in MUTANTS])

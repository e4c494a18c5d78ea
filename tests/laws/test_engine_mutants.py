"""Each law of hook dispatch fails on an engine that breaks it."""

import pytest

from treenail.contracts.laws import HookDispatchLaws
from treenail.kernel import Engine

from . import commit_mutants as commits
from . import engine_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills

MUTANTS: list[tuple[type[Engine], Law]] = [
    (mutants.IgnoresPriorities, HookDispatchLaws.test_hooks_run_by_priority_then_attachment),
    (mutants.RunsLargePrioritiesFirst, HookDispatchLaws.test_hooks_run_by_priority_then_attachment),
    (mutants.RunsTheLastAttachedFirst, HookDispatchLaws.test_hooks_run_by_priority_then_attachment),
    (mutants.IgnoresConstraints, HookDispatchLaws.test_before_and_after_are_respected),
    (mutants.ListsInOrderOfAttachment, HookDispatchLaws.test_before_and_after_are_respected),
    (mutants.WantsEveryName, HookDispatchLaws.test_absent_names_constrain_nothing),
    (mutants.IgnoresCycles, HookDispatchLaws.test_cycles_are_refused_and_named),
    (mutants.DoesNotNameTheCycle, HookDispatchLaws.test_cycles_are_refused_and_named),
    (mutants.AttachesBeforeItChecks, HookDispatchLaws.test_cycles_are_refused_and_named),
    (mutants.Unchecked, HookDispatchLaws.test_a_misspelt_point_is_refused_with_a_hint),
    (mutants.GivesNoHint, HookDispatchLaws.test_a_misspelt_point_is_refused_with_a_hint),
    (mutants.Unchecked, HookDispatchLaws.test_a_point_nobody_knows_is_refused),
    (mutants.Unchecked, HookDispatchLaws.test_a_wrong_signature_is_refused),
    (mutants.Unchecked, HookDispatchLaws.test_an_object_without_points_is_refused),
    (mutants.Unchecked, HookDispatchLaws.test_a_name_is_taken_once),
    (mutants.ReplacesHooks, HookDispatchLaws.test_a_name_is_taken_once),
    (mutants.WantsItsBaseClass, HookDispatchLaws.test_any_object_with_a_point_is_a_hook),
    (mutants.BindsEveryPoint, HookDispatchLaws.test_a_point_nobody_overrides_is_none),
    (mutants.FiresTwice, HookDispatchLaws.test_every_point_fires_once_with_its_arguments),
    (mutants.FiresCopies, HookDispatchLaws.test_every_point_fires_once_with_its_arguments),
    (mutants.SwallowsExceptions, HookDispatchLaws.test_an_exception_goes_on_and_names_the_hook),
    (mutants.NamesNobody, HookDispatchLaws.test_an_exception_goes_on_and_names_the_hook),
    (mutants.WrapsExceptions, HookDispatchLaws.test_an_exception_goes_on_and_names_the_hook),
    (mutants.EndsAtADefect, HookDispatchLaws.test_a_defect_of_a_hook_keeps_no_other_from_running),
    (mutants.ForgetsDefects, HookDispatchLaws.test_a_defect_of_a_hook_keeps_no_other_from_running),
    (mutants.GoesOnAfterADefect, HookDispatchLaws.test_a_defect_of_a_hook_keeps_no_other_from_running),
    (mutants.StopsTellingAtAFailure, HookDispatchLaws.test_every_hook_is_told_of_an_exception),
    (mutants.TellsOrdinaryErrorsOnly, HookDispatchLaws.test_every_hook_is_told_of_an_exception),
    (commits.SavesAtOnce, HookDispatchLaws.test_checkpoints_are_saved_at_the_next_commit),
    (commits.SavesAtEveryCommit, HookDispatchLaws.test_checkpoints_are_saved_at_the_next_commit),
    (commits.SavesAtStepsOnly, HookDispatchLaws.test_checkpoints_are_saved_at_the_next_commit),
    (commits.SavesBeforeItCounts, HookDispatchLaws.test_a_checkpoint_is_of_the_committed_step),
    (commits.SavesEachRequest, HookDispatchLaws.test_requests_of_a_step_are_one_checkpoint),
    (commits.KeepsTheLastRequest, HookDispatchLaws.test_requests_of_a_step_are_one_checkpoint),
    (commits.ForgetsRequestsOfASave, HookDispatchLaws.test_a_request_during_a_commit_waits_for_the_next),
    (commits.SavesUntilNobodyAsks, HookDispatchLaws.test_a_request_during_a_commit_waits_for_the_next),
    (commits.TellsHooksAfterTheSave, HookDispatchLaws.test_hooks_see_the_tree_before_it_is_saved),
    (commits.ShowsHooksACopy, HookDispatchLaws.test_hooks_see_the_tree_before_it_is_saved),
    (commits.ForgetsHooks, HookDispatchLaws.test_stateful_hooks_are_saved_and_restored),
    (commits.RestoresByPosition, HookDispatchLaws.test_stateful_hooks_are_saved_and_restored),
    (commits.TakesAnyHooks, HookDispatchLaws.test_a_state_of_other_hooks_is_refused),
    (commits.DeliversAtOnce, HookDispatchLaws.test_scalars_are_delivered_at_the_commit),
    (commits.DeliversBeforeItCounts, HookDispatchLaws.test_scalars_are_delivered_at_the_commit),
    (commits.DeliversAgain, HookDispatchLaws.test_scalars_are_delivered_at_the_commit),
    (commits.DeliversTheLast, HookDispatchLaws.test_scalars_are_delivered_at_the_commit),
    (commits.TellsOneSink, HookDispatchLaws.test_scalars_are_delivered_at_the_commit),
    (commits.CommitsWhatBroke, HookDispatchLaws.test_a_step_that_never_commits_leaves_no_trace),
    (commits.FiresBeforeRunForEachLoop, HookDispatchLaws.test_a_run_is_its_loops_between_two_points),
    (commits.SkipsAfterRun, HookDispatchLaws.test_a_run_is_its_loops_between_two_points),
    (commits.CountsCommitsAnew, HookDispatchLaws.test_records_are_in_order_across_resumes),
    (commits.ResumesBeforeTheHooks, HookDispatchLaws.test_a_resumed_run_takes_its_state_before_its_loops),
    (commits.ResumesNothing, HookDispatchLaws.test_a_resumed_run_takes_its_state_before_its_loops),
    (commits.GoesOnAfterAStop, HookDispatchLaws.test_a_stop_keeps_later_loops_from_starting),
    (commits.KeepsTheLastReason, HookDispatchLaws.test_a_stop_keeps_later_loops_from_starting),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(mutant: type[Engine], law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(HookDispatchLaws):
        def make(self) -> Engine:
            return mutant()

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(HookDispatchLaws, [law for _, law in MUTANTS])

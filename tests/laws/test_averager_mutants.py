"""Each law of averagers fails on an averager that breaks it, and on none of them where the averager is honest."""

from __future__ import annotations

import pytest
from torch import nn

from treenail.contracts.averaging import Averager
from treenail.contracts.laws.averaging import AveragerLaws

from . import averager_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills


class PlainSuite(AveragerLaws):
    interval = mutants.INTERVAL
    begin_step = mutants.BEGIN
    averager: type[mutants.PlainAverages] = mutants.PlainAverages

    def make(self, model: nn.Module) -> Averager:
        return self.averager(model)

    def weight(self, updates: int, averaged: int) -> float:
        return mutants.MOMENTUM


class TestPlainAverages(PlainSuite):
    """The base of the mutants is honest."""


MUTANTS: list[tuple[type[mutants.PlainAverages], Law]] = [
    (mutants.TakesTheDecayForTheMomentum, AveragerLaws.test_averages_are_those_of_the_formula),
    (mutants.AveragesSharedWeightsTwice, AveragerLaws.test_averages_are_those_of_the_formula),
    (mutants.BeginsAStepLate, AveragerLaws.test_averages_are_those_of_the_formula),
    (mutants.BeginsWithTheInitialWeights, AveragerLaws.test_before_the_first_update_a_view_is_of_the_model),
    (mutants.ViewsTheInitialWeights, AveragerLaws.test_before_the_first_update_a_view_is_of_the_model),
    (mutants.BeginsAtOnce, AveragerLaws.test_before_the_first_update_a_view_is_of_the_model),
    (mutants.AveragesAtEveryUpdate, AveragerLaws.test_only_every_so_many_updates_give_an_average),
    (mutants.CountsStepsForTheInterval, AveragerLaws.test_averages_are_those_of_the_formula),
    (mutants.AddsNoise, AveragerLaws.test_equal_updates_give_equal_averages),
    (mutants.CountsForAll, AveragerLaws.test_equal_updates_give_equal_averages),
    (mutants.ForgetsItsUpdates, AveragerLaws.test_resume_equals_going_on),
    (mutants.SavesTheWeightsOfItsView, AveragerLaws.test_resume_equals_going_on),
    (mutants.SavesObjects, AveragerLaws.test_a_state_is_a_plain_tree_and_stays_its_owners),
    (mutants.KeepsALoadedState, AveragerLaws.test_a_state_is_a_plain_tree_and_stays_its_owners),
    (mutants.TakesAnyState, AveragerLaws.test_a_wrong_state_is_refused),
    (mutants.TakesAveragesOfOthers, AveragerLaws.test_a_wrong_state_is_refused),
    (mutants.TakesAPartOfAState, AveragerLaws.test_a_wrong_state_is_refused),
    (mutants.LoadsBeforeItChecks, AveragerLaws.test_a_wrong_state_is_refused),
    (mutants.RaisesWhatPythonRaises, AveragerLaws.test_a_wrong_state_is_refused),
    (mutants.WritesToTheModelWhenItLoads, AveragerLaws.test_the_model_is_only_read),
    (mutants.SwapsWeightsForAView, AveragerLaws.test_the_model_is_only_read),
    (mutants.PutsTheModelInEvalMode, AveragerLaws.test_the_model_is_only_read),
    (mutants.RestoresTheModeOfTheRoot, AveragerLaws.test_the_model_is_only_read),
    (mutants.ClearsGradients, AveragerLaws.test_the_model_is_only_read),
    (mutants.DrawsRandomNumbers, AveragerLaws.test_the_model_is_only_read),
    (mutants.ViewsInTheModesOfTheModel, AveragerLaws.test_a_view_is_in_eval_mode),
    (mutants.PutsTheRootInEvalMode, AveragerLaws.test_a_view_is_in_eval_mode),
    (mutants.ComputesWithTheModel, AveragerLaws.test_a_view_computes_with_the_averages),
    (mutants.SeparatesSharedWeights, AveragerLaws.test_a_view_computes_with_the_averages),
    (mutants.ViewsInFloat32, AveragerLaws.test_a_view_computes_with_the_averages),
    (mutants.SharesBuffersWithItsView, AveragerLaws.test_nothing_done_to_a_view_reaches_the_model),
    (mutants.KeepsItsView, AveragerLaws.test_nothing_done_to_a_view_reaches_the_model),
    (mutants.ViewsTheWeightsThemselves, AveragerLaws.test_a_view_does_not_follow_the_model),
    (mutants.ReturnsACopyInPlaceOfTheSecond, AveragerLaws.test_a_second_module_takes_the_averages),
    (mutants.FillsInTrainMode, AveragerLaws.test_a_second_module_takes_the_averages),
    (mutants.FillsWeightsOnly, AveragerLaws.test_a_second_module_takes_the_averages),
    (mutants.RaisesWhatPythonRaises, AveragerLaws.test_a_second_module_takes_the_averages),
    (mutants.FillsWhatFits, AveragerLaws.test_a_wrong_second_module_is_refused),
    (mutants.FillsBeforeItChecks, AveragerLaws.test_a_wrong_second_module_is_refused),
    (mutants.FillsTheModel, AveragerLaws.test_a_wrong_second_module_is_refused),
    (mutants.FillsPartsOfTheModel, AveragerLaws.test_a_wrong_second_module_is_refused),
    (mutants.AveragesIntegers, AveragerLaws.test_buffers_are_the_models_or_averages),
    (mutants.AveragesMasks, AveragerLaws.test_buffers_are_the_models_or_averages),
    (mutants.ForgetsStatistics, AveragerLaws.test_buffers_are_the_models_or_averages),
    (mutants.AveragesIn16Bits, AveragerLaws.test_small_steps_of_16_bit_weights_add_up),
    (mutants.KeepsTheFirstParameters, AveragerLaws.test_replaced_tensors_are_followed),
    (mutants.KeepsTheFirstMemory, AveragerLaws.test_replaced_tensors_are_followed),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: type[mutants.PlainAverages], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = PlainSuite()
    suite.averager = mutant
    assert_kills(suite, law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(AveragerLaws, [law for _, law in MUTANTS])

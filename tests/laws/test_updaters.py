"""The updaters of Treenail obey the laws of updaters, and each law fails on one that breaks it."""

from __future__ import annotations

import pytest
from torch.optim import Optimizer

from treenail.adapters.optim import OptimWrapper
from treenail.contracts.laws import UpdaterLaws
from treenail.contracts.updates import Updater

from . import updater_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills


class TestOptimWrapper(UpdaterLaws):
    def make(self, optimizer: Optimizer, accumulative_counts: int) -> Updater:
        return OptimWrapper(optimizer, accumulative_counts=accumulative_counts)


class TestOptimWrapperInBfloat16(UpdaterLaws):
    tolerance = 0.2

    def make(self, optimizer: Optimizer, accumulative_counts: int) -> Updater:
        return OptimWrapper(optimizer, accumulative_counts=accumulative_counts, precision="bfloat16")


class TestOptimWrapperThatSkips(UpdaterLaws):
    def make(self, optimizer: Optimizer, accumulative_counts: int) -> Updater:
        return OptimWrapper(
            optimizer, accumulative_counts=accumulative_counts, clip_norm=float("inf"), skip_nonfinite=True
        )


class PlainSuite(UpdaterLaws):
    updater: type[mutants.PlainUpdater] = mutants.PlainUpdater

    def make(self, optimizer: Optimizer, accumulative_counts: int) -> Updater:
        return self.updater(optimizer, accumulative_counts)


class TestPlainUpdater(PlainSuite):
    """The base of the mutants is honest."""


class TestPlainUpdaterThatSkips(PlainSuite):
    updater = mutants.SkipsNonfinite


MUTANTS: list[tuple[type[mutants.PlainUpdater], Law]] = [
    (mutants.HasAnotherOptimizer, UpdaterLaws.test_it_has_the_optimizer_it_was_made_with),
    (mutants.SaysOneMicroBatch, UpdaterLaws.test_it_has_the_optimizer_it_was_made_with),
    (mutants.ClipsInSecret, UpdaterLaws.test_an_update_is_the_optimizers),
    (mutants.StepsTwice, UpdaterLaws.test_an_update_is_the_optimizers),
    (mutants.ReplacesGradients, UpdaterLaws.test_gradients_add_up_until_they_are_forgotten),
    (mutants.ForgetsNothing, UpdaterLaws.test_gradients_add_up_until_they_are_forgotten),
    (mutants.IgnoresTheScale, UpdaterLaws.test_a_scale_multiplies_the_gradients),
    (mutants.ScalesTheRateInstead, UpdaterLaws.test_a_scale_multiplies_the_gradients),
    (mutants.SkipsAndSaysStepped, UpdaterLaws.test_an_outcome_says_what_was_done),
    (mutants.StepsAndSaysSkipped, UpdaterLaws.test_an_outcome_says_what_was_done),
    (mutants.TakesVectors, UpdaterLaws.test_a_loss_that_is_none_is_refused),
    (mutants.LetsTorchComplain, UpdaterLaws.test_a_loss_that_is_none_is_refused),
    (mutants.TurnsGradientsOff, UpdaterLaws.test_a_context_ends_with_its_block),
    (mutants.LeavesItsPrecisionOn, UpdaterLaws.test_a_context_ends_with_its_block),
    (mutants.OneContextForAll, UpdaterLaws.test_a_context_ends_with_its_block),
    (mutants.WarmsUpAnew, UpdaterLaws.test_a_resumed_updater_goes_on_as_the_first),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: type[mutants.PlainUpdater], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(PlainSuite):
        updater = mutant

    assert_kills(Suite(), law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(UpdaterLaws, [law for _, law in MUTANTS])

"""Each law of metrics fails on a metric that breaks it, and on none of them where the metric is honest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from treenail.contracts.laws.metrics import MetricLaws
from treenail.kernel import Metric

from . import metric_mutants as mutants
from .mutation import Law, assert_all_proved, assert_kills


class PlainSuite(MetricLaws):
    exact = False
    metric: type[mutants.PlainAgreement] = mutants.PlainAgreement

    def make(self) -> Metric:
        return self.metric()

    def data(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, generator=generator), torch.randint(2, (rows,), generator=generator)


class TestPlainAgreement(PlainSuite):
    """The base of the mutants is honest."""


MUTANTS: list[tuple[type[mutants.PlainAgreement], Law]] = [
    (mutants.AveragesBatches, MetricLaws.test_any_split_gives_the_same),
    (mutants.RefusesEmptyBatches, MetricLaws.test_any_split_gives_the_same),
    (mutants.WeighsLaterSamplesMore, MetricLaws.test_any_order_gives_the_same),
    (mutants.RemembersItsCount, MetricLaws.test_reset_forgets),
    (mutants.GivesZeroForNothing, MetricLaws.test_of_nothing_there_is_no_result),
    (mutants.DividesByZero, MetricLaws.test_of_nothing_there_is_no_result),
    (mutants.GivesTensors, MetricLaws.test_results_are_numbers_by_name),
    (mutants.NamesByCount, MetricLaws.test_results_are_numbers_by_name),
    (mutants.ResetsAtCompute, MetricLaws.test_compute_leaves_the_state),
    (mutants.DividesItsState, MetricLaws.test_compute_leaves_the_state),
    (mutants.SumsInTheDtypeOfOutputs, MetricLaws.test_the_dtype_of_outputs_does_not_matter),
    (mutants.ClampsItsInput, MetricLaws.test_arguments_are_only_read),
    (mutants.KeepsReferences, MetricLaws.test_arguments_are_only_read),
    (mutants.SharesItsHits, MetricLaws.test_metrics_are_independent),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(
    mutant: type[mutants.PlainAgreement], law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = PlainSuite()
    suite.metric = mutant
    assert_kills(suite, law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(MetricLaws, [law for _, law in MUTANTS])

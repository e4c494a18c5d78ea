"""Metrics in a process group of torch."""

from __future__ import annotations

import pytest
import torch

from tests.evaluation.batches import scores
from tests.evaluation.ranks import ROWS, Measured, measure
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.launch import spawn


def whole() -> float:
    metric = Accuracy()
    metric.update(scores(ROWS, 3, 1), torch.arange(ROWS) % 3)
    return metric.compute()["accuracy"]


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    return spawn(measure, 3)


def test_a_metric_of_torchmetrics_on_one_rank_waits_for_no_other(measured: list[Measured]) -> None:
    pytest.importorskip("torchmetrics")
    first, *others = (each.alone for each in measured)
    assert first is not None
    assert (list(first), others) == (["MulticlassAccuracy"], [{}, {}])
    assert first["MulticlassAccuracy"] == pytest.approx(whole())


def test_processes_measure_what_one_does(measured: list[Measured]) -> None:
    assert [(each.shared, each.padded) for each in measured] == [({"accuracy": whole()}, {"accuracy": whole()})] * 3

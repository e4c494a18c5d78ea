"""Metrics in a process group of torch."""

from __future__ import annotations

import pytest
import torch

from tests.evaluation.batches import scores
from tests.evaluation.ranks import ROWS, evaluate, measure_on_rank_0
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.launch import spawn


def whole() -> float:
    metric = Accuracy()
    metric.update(scores(ROWS, 3, 1), torch.arange(ROWS) % 3)
    return metric.compute()["accuracy"]


def test_a_metric_of_torchmetrics_on_one_rank_waits_for_no_other() -> None:
    pytest.importorskip("torchmetrics")
    assert spawn(measure_on_rank_0, 2) == [{"MulticlassAccuracy": pytest.approx(whole())}, {}]


@pytest.mark.parametrize("padded", [False, True])
def test_processes_measure_what_one_does(padded: bool) -> None:
    assert spawn(evaluate, 3, padded) == [{"accuracy": whole()}] * 3

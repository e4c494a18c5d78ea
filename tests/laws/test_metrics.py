"""The laws of metrics, on all of ours and on those of torchmetrics behind the port."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from treenail.adapters.evaluation import (
    Accuracy,
    ConfusionMatrix,
    Perplexity,
    PrecisionRecallF1,
    RegressionErrors,
    as_metric,
)
from treenail.contracts.laws import MetricLaws
from treenail.kernel import Metric

CLASSES = 4


class OfClasses(MetricLaws):
    def data(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        scores = torch.randn(rows, CLASSES, generator=generator).mul(4).round().div(4)  # some are equal
        return scores, torch.randint(CLASSES, (rows,), generator=generator)


class TestAccuracy(OfClasses):
    def make(self) -> Metric:
        return Accuracy((1, 3))


class TestPrecisionRecallF1(OfClasses):
    def make(self) -> Metric:
        return PrecisionRecallF1(("micro", "macro", "weighted"))


class TestConfusionMatrix(OfClasses):
    def make(self) -> Metric:
        return ConfusionMatrix()


class TestPerplexity(OfClasses):
    exact = False

    def make(self) -> Metric:
        return Perplexity()


class TestRegressionErrors(MetricLaws):
    exact = False

    def make(self) -> Metric:
        return RegressionErrors(("mae", "mse", "rmse"))

    def data(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, 2, generator=generator), torch.randn(rows, 2, generator=generator)


class TestTorchMetric(MetricLaws):
    """Of scores without ties, which torchmetrics breaks as it likes."""

    def make(self) -> Metric:
        classification = pytest.importorskip("torchmetrics.classification")
        return as_metric(classification.MulticlassAccuracy(CLASSES, average="micro"))

    def data(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        order = torch.stack([torch.randperm(CLASSES, generator=generator) for _ in range(rows)])
        return order.float(), torch.randint(CLASSES, (rows,), generator=generator)

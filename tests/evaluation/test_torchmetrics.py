"""Metrics of torchmetrics work where ours do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.evaluation.batches import measured, refusal, scores, splits
from treenail.adapters.evaluation import (
    Accuracy,
    ConfusionMatrix,
    Perplexity,
    PrecisionRecallF1,
    RegressionErrors,
    TorchMetric,
    as_metric,
)
from treenail.kernel import Metric, TrainingError

torchmetrics = pytest.importorskip("torchmetrics")
classification = pytest.importorskip("torchmetrics.classification")


@given(seed=st.integers(0, 2**31), split=splits(20).map(lambda split: [rows for rows in split if rows]))
@settings(deadline=None, max_examples=30)
def test_theirs_say_what_ours_say(seed: int, split: list[list[int]]) -> None:
    outputs = scores(20, 5, seed) + torch.arange(5) * 1e-3  # no equal scores
    targets = torch.randint(0, 5, (20,), generator=torch.Generator().manual_seed(seed))

    def of(metric: object) -> list[float]:
        return list(measured(as_metric(metric), outputs, targets, split).values())

    def near(values: list[float]) -> object:
        return pytest.approx(values, rel=1e-5, abs=1e-7)

    assert of(classification.MulticlassAccuracy(5, average="micro", top_k=2)) == near(of(Accuracy(2)))
    theirs = [
        *of(classification.MulticlassPrecision(5, average="macro")),
        *of(classification.MulticlassRecall(5, average="macro")),
        *of(classification.MulticlassF1Score(5, average="macro")),
    ]
    assert theirs == near(of(PrecisionRecallF1()))
    assert of(classification.MulticlassConfusionMatrix(5)) == near(of(ConfusionMatrix()))


def test_other_kinds_of_theirs_say_what_ours_say() -> None:
    generator = torch.Generator().manual_seed(2)
    outputs, targets = torch.randn(40, generator=generator), torch.randn(40, generator=generator)
    theirs = torchmetrics.MetricCollection(
        {
            "mae": torchmetrics.MeanAbsoluteError(),
            "mse": torchmetrics.MeanSquaredError(),
            "rmse": torchmetrics.MeanSquaredError(squared=False),
            "r2": torchmetrics.R2Score(),
        }
    )
    split = [list(range(13)), list(range(13, 40))]
    ours = measured(RegressionErrors(), outputs, targets, split)
    assert measured(as_metric(theirs), outputs, targets, split) == pytest.approx(ours, rel=1e-4)
    logits, tokens = torch.randn(4, 6, 9, generator=generator), torch.randint(0, 9, (4, 6), generator=generator)
    text = pytest.importorskip("torchmetrics.text")
    found = measured(as_metric(text.Perplexity(ignore_index=3)), logits, tokens, [[0, 1, 2], [3]])
    ours = measured(Perplexity(ignore_index=3), logits, tokens, [[0], [1, 2, 3]])
    assert found == {"Perplexity": pytest.approx(ours["perplexity"], rel=1e-5)}


def test_results_have_names() -> None:
    outputs, targets = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), torch.tensor([0, 1, 1])

    def of(metric: torch.nn.Module, name: str | None = None) -> dict[str, float]:
        return measured(TorchMetric(metric, name), outputs, targets, [[0, 1], [2]])

    recall, matrix = classification.MulticlassRecall, classification.MulticlassConfusionMatrix
    assert of(recall(2, average="micro")) == {"MulticlassRecall": pytest.approx(2 / 3)}
    assert of(recall(2, average="micro"), "recall") == {"recall": pytest.approx(2 / 3)}
    assert of(recall(2, average="none"), "recall") == {"recall/0": 1.0, "recall/1": 0.5}
    assert of(matrix(2), "taken") == {"taken/0/0": 1.0, "taken/0/1": 0.0, "taken/1/0": 1.0, "taken/1/1": 1.0}
    both = torchmetrics.MetricCollection({"a": recall(2, average="micro"), "b": recall(2, average="none")})
    assert of(both) == {"a": pytest.approx(2 / 3), "b/0": 1.0, "b/1": 0.5}
    assert list(of(both, "test")) == ["test/a", "test/b/0", "test/b/1"]


def test_mistakes_are_named() -> None:
    metric = TorchMetric(classification.MulticlassAccuracy(3))
    assert "MulticlassAccuracy of no samples" in refusal(metric.compute, TrainingError)
    message = refusal(lambda: metric.update(torch.zeros(4, 3), torch.zeros(5).long()), TrainingError)
    assert "MulticlassAccuracy of outputs [4, 3] and targets [5]: " in message
    assert "Linear is no metric of torchmetrics" in refusal(lambda: TorchMetric(torch.nn.Linear(1, 1)), TypeError)

    class Says(torchmetrics.Metric):  # type: ignore[misc, name-defined]  # it is of type Any here, where the package may be missing
        def update(self, outputs: Tensor, targets: Tensor) -> None:
            pass

        def compute(self) -> str:
            return "well"

    says = TorchMetric(Says())
    says.update(torch.zeros(1), torch.zeros(1))
    assert "the result 'Says' is a str, no number" in refusal(says.compute, TrainingError)


def test_what_is_no_metric_is_refused_and_ours_stay_as_they_are() -> None:
    metric = Accuracy()
    assert as_metric(metric) is metric
    assert isinstance(as_metric(classification.MulticlassAccuracy(3)), Metric)
    for wrong in (Accuracy, 3, "accuracy", torch.nn.Linear(1, 1)):
        assert "is no metric" in refusal(lambda wrong=wrong: as_metric(wrong), TypeError)  # type: ignore[misc]  # bound now

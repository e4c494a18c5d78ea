"""Metrics in an evaluation loop, and named in configs of Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.batches import scores
from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches, StreamedBatches
from treenail.adapters.evaluation import (
    Accuracy,
    ConfusionMatrix,
    Perplexity,
    PrecisionRecallF1,
    RegressionErrors,
    as_metric,
)
from treenail.adapters.loops import EvalLoop
from treenail.kernel import Communicator, Engine, Metric, TrainingError, spec


def test_a_loop_measures_uneven_batches_as_one() -> None:
    outputs, targets = scores(11, 3, 4), torch.arange(11) % 3
    metrics: list[Metric] = [
        spec(Accuracy)((1, 2)).build(),
        spec(PrecisionRecallF1)(average=("macro", "weighted")).build(),
        spec(ConfusionMatrix)(normalize="all").build(),
        spec(Perplexity)().build(),
    ]
    loop = EvalLoop(
        "val", nn.Identity(), None, Batches([(outputs[:8], targets[:8]), (outputs[8:], targets[8:])]), metrics
    )
    engine = Engine()
    for _ in range(2):  # a second validation begins anew
        engine.run(loop)
        expected: dict[str, float] = {}
        for metric in (
            Accuracy((1, 2)),
            PrecisionRecallF1(("macro", "weighted")),
            ConfusionMatrix("all"),
            Perplexity(),
        ):
            metric.update(outputs, targets)
            expected |= {f"val/{name}": value for name, value in metric.compute().items()}
        assert loop.metrics == pytest.approx(expected, rel=1e-12)
    assert len(expected) == 2 + 6 + 9 + 2


def test_a_loop_measures_a_regression() -> None:
    outputs, targets = scores(9, 2, 5), scores(9, 2, 6)
    source = Batches([(outputs[:5], targets[:5]), (outputs[5:], targets[5:])])
    loop = EvalLoop("test", nn.Identity(), nn.MSELoss(), source, [spec(RegressionErrors)(("mse", "r2")).build()])
    Engine().run(loop)
    assert loop.metrics is not None
    assert loop.metrics["test/mse"] == pytest.approx(loop.metrics["test/loss"], rel=1e-6)
    assert list(loop.metrics) == ["test/loss", "test/mse", "test/r2"]


def test_a_loop_takes_a_metric_of_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    outputs, targets = scores(11, 3, 4) + torch.arange(3) * 1e-3, torch.arange(11) % 3
    source = Batches([(outputs[:8], targets[:8]), (outputs[8:], targets[8:])])
    theirs = as_metric(classification.MulticlassAccuracy(3, average="micro"))
    loop = EvalLoop("val", nn.Identity(), None, source, [Accuracy(), theirs])
    engine = Engine()
    for _ in range(2):
        engine.run(loop)
        assert loop.metrics is not None
        assert loop.metrics["val/MulticlassAccuracy"] == pytest.approx(loop.metrics["val/accuracy"])


class Says:
    """A metric that says whatever it is told to."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def reset(self) -> None:
        """Forget nothing."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Look at nothing."""

    def compute(self) -> dict[str, float]:
        return self.answer  # type: ignore[return-value]  # a mistake of the user's


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "Says gives a NoneType; let it return a mapping of names to numbers"),
        ({"per_class": torch.ones(3)}, "Says gives a Tensor for 'per_class', no number"),
        ({"per_class": np.ones(3)}, "Says gives a ndarray for 'per_class', no number"),
        ({"a": [0.5]}, "Says gives a list for 'a'"),
    ],
)
def test_results_that_are_no_numbers_are_named(answer: object, message: str) -> None:
    loop = EvalLoop("val", nn.Identity(), None, Batches([(scores(2, 3, 1), torch.arange(2))]), [Says(answer)])
    with pytest.raises(TrainingError, match=message):
        Engine().run(loop)


def test_texts_and_what_was_not_measured_are_left_out_which_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    says = Says({"text": "0.5", "nothing": None, "number": 2})
    loop = EvalLoop("val", nn.Identity(), None, Batches([(scores(2, 3, 1), torch.arange(2))]), [says])
    for _ in range(2):
        Engine().run(loop)
        assert loop.metrics == {"val/number": 2.0}
    assert (
        capsys.readouterr().err.count("Says (metrics.0) gives no number for text, nothing: only numbers are val") == 1
    )


def test_data_of_unknown_length_are_measured() -> None:
    data = [(scores(2, 3, 1), torch.arange(2)), (scores(3, 3, 2), torch.arange(3))]
    known, unknown, none = Batches(data), StreamedBatches(lambda _: data), StreamedBatches(lambda _: [])
    loops = [EvalLoop("val", nn.Identity(), None, each, [Accuracy()]) for each in (known, unknown, none)]
    for loop in loops[:2]:
        Engine().run(loop)
    assert loops[0].metrics == loops[1].metrics != {}
    with pytest.raises(TrainingError, match="the val data gave no batch at all"):
        Engine().run(loops[2])


def test_ranks_go_through_data_of_a_known_length_only() -> None:
    def measure(communicator: Communicator) -> str:
        stream = StreamedBatches(lambda _: [])
        with pytest.raises(TrainingError) as caught:
            Engine().run(EvalLoop("val", nn.Identity(), None, stream, [Accuracy()], communicator=communicator))
        return str(caught.value)

    for message in run_threads(2, measure):
        assert "nobody knows how many batches the val data have, and 2 ranks go through theirs in step" in message

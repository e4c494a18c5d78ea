"""Metrics that hooks and schedules look at under a name that validation does not give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tests.hooks.small_runs import Points, reason_of, small_run
from treenail.adapters.evaluation import (
    Accuracy,
    ConfusionMatrix,
    DumpPredictions,
    Perplexity,
    PrecisionRecallF1,
    RegressionErrors,
    result_names,
)
from treenail.adapters.hooks import CheckpointHook, EarlyStoppingHook
from treenail.adapters.hooks.compat import EarlyStoppingHook as MmengineEarlyStoppingHook
from treenail.adapters.runtime import train
from treenail.adapters.schedule.compat import ReduceOnPlateauLR
from treenail.contracts import Evaluation, Limits, Run, Schedule
from treenail.kernel import ConfigError, Engine, Hook, Metric, Spec, TrainingError, late, spec


class Errors(RegressionErrors):
    """Measures something of its own, whose name only its results tell."""

    def compute(self) -> dict[str, float]:
        return {"huber": super().compute()["mae"]}


def measured(metric: Spec[Metric], hook: Spec[Hook], epochs: int = 2, **more: Any) -> Run:  # Any: fields of a Run
    val = Evaluation(dataset=spec(Points)(), batch_size=8, metrics=(metric,))
    return msgspec.structs.replace(small_run(epochs, looks=hook), val=val, **more)


KNOWN, UNKNOWN = spec(RegressionErrors)(), spec(Errors)()


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (
            spec(EarlyStoppingHook)("val/rsme", "min"),
            "hooks.looks.metric: it asks for the metric 'val/rsme', .*; did you mean 'val/rmse'?",
        ),
        (
            spec(MmengineEarlyStoppingHook)("rsme", "less"),
            "hooks.looks.monitor: it asks for the metric 'val/rsme', .*; did you mean 'val/rmse'?",
        ),
        (
            spec(CheckpointHook)(save_best=("rmse", "losss")),
            "hooks.looks.save_best: it asks for the metric 'losss', .*; did you mean 'val/loss'?",
        ),
    ],
)
def test_names_that_metrics_know_are_checked_before_the_training(
    tmp_path: Path, hook: Spec[Hook], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(measured(KNOWN, hook), tmp_path)
    assert not (tmp_path / "log.jsonl").exists(), "it was begun"


@pytest.mark.parametrize(
    ("schedule", "where"),
    [
        (Schedule(scheduler=late(ReduceLROnPlateau)(), metric="loss"), r"schedules\[0\].metric: .* 'loss'"),
        (Schedule(scheduler=late(ReduceOnPlateauLR)(monitor="los")), r"schedules\[0\].scheduler.monitor: .* 'los'"),
    ],
)
def test_those_of_schedules_too(tmp_path: Path, schedule: Schedule, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        train(msgspec.structs.replace(small_run(1), schedules=(schedule,)), tmp_path)


@pytest.mark.parametrize("name", ["rmse", "val/rmse", "val/loss"])
def test_right_names_are_taken(tmp_path: Path, name: str) -> None:
    run = measured(KNOWN, spec(CheckpointHook)(save_best=name), epochs=1, limits=Limits(sanity_batches=1))
    assert train(run, tmp_path).best is not None


def test_names_that_only_results_tell_are_checked_by_the_sanity_validation(tmp_path: Path) -> None:
    hook = spec(EarlyStoppingHook)("val/hubber", "min")
    with pytest.raises(TrainingError, match=r"did you mean 'val/huber'\?") as caught:
        train(measured(UNKNOWN, hook, limits=Limits(sanity_batches=1)), tmp_path)
    assert caught.value.__notes__ == ["in the sanity validation, before the first step"]


def test_without_one_the_first_results_tell_and_nothing_is_lost(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"hooks.looks.metric: .* 'val/hubber', .* did you mean 'val/huber'?"):
        train(measured(UNKNOWN, spec(EarlyStoppingHook)("val/hubber", "min")), tmp_path)
    assert reason_of(tmp_path).startswith("MissingMetricError")
    summary = train(measured(UNKNOWN, spec(EarlyStoppingHook)("val/huber", "min")), tmp_path, resume="latest")
    whole = train(measured(UNKNOWN, spec(EarlyStoppingHook)("val/huber", "min")), tmp_path / "whole")
    assert (summary.step, summary.metrics) == (8, whole.metrics)


class Adds(Hook):
    """Measures something of its own, that other hooks look at."""

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        metrics["val/ratio"] = metrics["val/rmse"] / metrics["val/loss"]


def test_a_hook_of_ones_own_may_add_to_the_results(tmp_path: Path) -> None:
    run = measured(KNOWN, spec(EarlyStoppingHook)("val/ratio", "max"))
    run = msgspec.structs.replace(run, hooks={**run.hooks, "adds": spec(Adds)()})
    assert train(run, tmp_path).step == 8


SCORES, CLASSES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize(
    ("metric", "outputs", "targets"),
    [
        (Accuracy((1, 3)), SCORES, CLASSES),
        (PrecisionRecallF1(("micro", "weighted")), SCORES, CLASSES),
        (PrecisionRecallF1(("macro", "per_class"), class_names=tuple("abcde")), SCORES, CLASSES),
        (PrecisionRecallF1(("per_class",), num_classes=5), SCORES, CLASSES),
        (ConfusionMatrix(num_classes=5), SCORES, CLASSES),
        (Perplexity(), SCORES.unsqueeze(0), CLASSES.unsqueeze(0)),
        (RegressionErrors(("mse", "r2")), SCORES, SCORES + 1),
    ],
)
def test_metrics_know_what_their_results_are_called(metric: Metric, outputs: Tensor, targets: Tensor) -> None:
    metric.update(outputs, targets)
    assert sorted(result_names(metric) or ()) == sorted(metric.compute())


def test_metrics_that_do_not_know_say_so() -> None:
    assert result_names(DumpPredictions("out.jsonl")) == ()
    for metric in (PrecisionRecallF1(("per_class",)), ConfusionMatrix(), Errors(), nn.Linear(1, 1)):
        assert result_names(metric) is None

"""Averages in whole runs: what is validated, tested, saved and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.averaging import Buffers, exponential_average, uniform_average
from treenail.adapters.hooks import EMAHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import open_checkpoint, train
from treenail.adapters.runtime import test as evaluate
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import ConfigError, Hook, Late, Spec, TrainingError, late, spec


class Points:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point = torch.tensor([index / 12, 1.0])
        return point, point.sum(0, keepdim=True)


def run(
    epochs: int = 3,
    averaging: object = None,
    hooks: dict[str, Spec[Hook] | None] | None = None,
    model: Spec[nn.Module] | None = None,
) -> Run:
    assert averaging is None or isinstance(averaging, Late)
    return Run(
        model=model or spec(nn.Linear)(2, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.1),
        train=Data(dataset=spec(Points)(), batch_size=4),
        val=Evaluation(dataset=spec(Points)(), batch_size=4),
        test=Evaluation(dataset=spec(Points)(), batch_size=4),
        loop=late(EpochLoop)(max_epochs=epochs),
        averaging=averaging,
        hooks={"progress": None, **(hooks or {})},
    )


def model_of(checkpoint: Path) -> dict[str, Tensor]:
    store, name = open_checkpoint(checkpoint)
    model = store.load(name)[1]["model"]
    assert isinstance(model, dict)
    return model


def test_validation_and_test_see_the_averages_and_training_does_not(tmp_path: Path) -> None:
    plain = train(run(), tmp_path / "plain")
    averaged = train(run(averaging=late(exponential_average)(momentum=0.1)), tmp_path / "averaged")
    assert averaged.metrics != plain.metrics, "validation did not see the averages"
    trained = [model_of(tmp_path / name / "checkpoints" / "latest") for name in ("plain", "averaged")]
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in ("weight", "bias")), "training was touched"
    results = evaluate(run(averaging=late(exponential_average)(momentum=0.1)), tmp_path / "averaged/checkpoints/latest")
    assert results == {key: value for key, value in averaged.metrics.items() if key.startswith("test/")}


def test_the_hook_of_the_seeds_gives_the_same_and_a_resumed_run_goes_on_exactly(tmp_path: Path) -> None:
    averaging = late(exponential_average)(momentum=0.1)
    whole = train(run(averaging=averaging), tmp_path / "whole")
    by_hook = train(run(hooks={"ema": spec(EMAHook)(momentum=0.1)}), tmp_path / "hook")
    assert by_hook.metrics == whole.metrics
    train(run(epochs=1, averaging=averaging), tmp_path / "resumed")
    resumed = train(run(averaging=averaging), tmp_path / "resumed", resume="latest")
    assert (resumed.attempt, resumed.step) == (2, 9)
    assert resumed.metrics == whole.metrics


def test_averages_that_would_never_begin_end_a_run_before_its_first_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="begin_step=10 never begin, the training ends with 9; lower begin_step"):
        train(run(averaging=late(exponential_average)(begin_step=10)), tmp_path)
    assert not (tmp_path / "checkpoints" / "latest").exists()


def normalised(*, track_running_stats: bool = True) -> nn.Module:
    norm = nn.BatchNorm1d(3, track_running_stats=track_running_stats)
    return nn.Sequential(nn.Linear(2, 3), norm, nn.Linear(3, 1))


def test_a_run_never_evaluates_averages_with_the_statistics_of_the_beginning(tmp_path: Path) -> None:
    losses: dict[Buffers, float] = {}
    policies: tuple[Buffers, ...] = ("copy", "average")
    for policy in policies:
        averaging = late(uniform_average)(begin_step=2, buffers=policy)
        summary = train(run(averaging=averaging, model=spec(normalised)()), tmp_path / policy)
        losses[policy] = summary.metrics["val/loss"]
    assert losses["copy"] != losses["average"]
    stale = late(uniform_average)(begin_step=2, buffers="ignore")
    with pytest.raises(TrainingError, match="nothing in a run measures them anew; let buffers be average or copy"):
        train(run(averaging=stale, model=spec(normalised)()), tmp_path / "ignore")
    for name, model in (("none", None), ("batch", spec(normalised)(track_running_stats=False))):
        assert train(run(averaging=stale, model=model), tmp_path / name).step == 9


def test_averages_that_nothing_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"hooks.averaging: the hook 'averaging' averages the weights, and there is none"
    ):
        train(run(averaging=late(exponential_average)(), hooks={"averaging": None}), tmp_path)

"""Averages in whole runs: what is validated, tested, saved and resumed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.averaging import Buffers, exponential_average, uniform_average, update_bn
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import CheckpointHook, EMAHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import open_checkpoint, train
from treenail.adapters.runtime import test as evaluate
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import CheckpointError, ConfigError, Hook, Late, Spec, TrainingError, late, spec


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


def test_policies_for_buffers_evaluate_what_they_say(tmp_path: Path) -> None:
    losses: dict[Buffers, float] = {}
    policies: tuple[Buffers, ...] = ("copy", "average")
    for policy in policies:
        averaging = late(uniform_average)(begin_step=2, buffers=policy)
        summary = train(run(averaging=averaging, model=spec(normalised)()), tmp_path / policy)
        losses[policy] = summary.metrics["val/loss"]
    assert losses["copy"] != losses["average"]
    own = late(uniform_average)(begin_step=2, buffers="ignore")
    for name, model in (("none", None), ("batch", spec(normalised)(track_running_stats=False))):
        assert train(run(averaging=own, model=model), tmp_path / name).step == 9


def test_statistics_of_batch_normalisation_are_measured_for_averages_as_by_hand(tmp_path: Path) -> None:
    """Stochastic weight averaging: before each validation, and for the last checkpoint, which a test then evaluates."""
    training = run(averaging=late(uniform_average)(begin_step=2, buffers="ignore"), model=spec(normalised)())
    summary = train(training, tmp_path / "run")
    _, state = CheckpointStore(LocalFiles(tmp_path / "run" / "checkpoints")).load("latest")
    by_hand = normalised()
    by_hand.load_state_dict(state["model"])  # type: ignore[arg-type]  # a state_dict
    saved = state["averages"]
    assert isinstance(saved, dict)
    assert saved["measured"] == saved["averaged"] == 8
    averages = uniform_average(by_hand, buffers="ignore")
    averages.load_state_dict(saved)
    measured = averages.view()
    points, size = Points(), training.train.batch_size
    batches = [torch.stack([points[i][0] for i in range(first, first + size)]) for first in range(0, len(points), size)]
    update_bn(batches, by_hand := copy.deepcopy(measured))
    for one, other in zip(measured.buffers(), by_hand.buffers(), strict=True):
        assert torch.equal(one, other)
    tested = evaluate(training, tmp_path / "run/checkpoints/latest")
    assert tested == {key: value for key, value in summary.metrics.items() if key.startswith("test/")}


def test_averages_whose_statistics_are_of_others_are_not_evaluated(tmp_path: Path) -> None:
    hooks: dict[str, Spec[Hook] | None] = {"checkpoint": spec(CheckpointHook)(interval=1, by="step")}
    averaging = late(uniform_average)(begin_step=2, buffers="ignore")
    training = run(averaging=averaging, model=spec(normalised)(), hooks=hooks)
    train(training, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"step-00000008: .* have not been measured .*; take a checkpoint that"):
        evaluate(training, tmp_path / "run/checkpoints/step-00000008")
    assert evaluate(training, tmp_path / "run/checkpoints/latest")


def test_averages_that_nothing_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"hooks.averaging: the hook 'averaging' averages the weights, and there is none"
    ):
        train(run(averaging=late(exponential_average)(), hooks={"averaging": None}), tmp_path)

"""Validations that are not finite, in runs whose training is."""

from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path

import msgspec
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tests.hooks.small_runs import reason_of, small_run
from treenail.adapters.hooks import CheckpointHook, EarlyStoppingHook
from treenail.adapters.runtime import train
from treenail.contracts import Schedule
from treenail.kernel import late, spec


class LostInValidation(nn.Module):
    """A mean squared error that is NaN in evaluation."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs - targets).square().mean()
        return error if self.training else error * nan


LOST = spec(LostInValidation)()


def test_early_stopping_stops_at_once_with_a_checkpoint(tmp_path: Path) -> None:
    run = msgspec.structs.replace(small_run(4, early=spec(EarlyStoppingHook)("val/loss", "min")), loss=LOST)
    summary = train(run, tmp_path)
    assert (summary.epoch, summary.stop_reason) == (1, "early stopping: val/loss nan is not finite")
    assert isnan(summary.metrics["val/loss"])
    assert reason_of(tmp_path).startswith("early stopping: val/loss nan")


def test_for_a_plateau_and_for_the_best_it_is_no_improvement(tmp_path: Path) -> None:
    plateau = Schedule(scheduler=late(ReduceLROnPlateau)(patience=1, factor=0.1), metric="val/loss")
    run = small_run(4, checkpoint=spec(CheckpointHook)(save_best="loss"))
    summary = train(msgspec.structs.replace(run, loss=LOST, schedules=(plateau,)), tmp_path)
    assert summary.epoch == 4
    assert summary.best is None
    lines = map(json.loads, (tmp_path / "jsonlines" / "scalars.jsonl").read_text().splitlines())
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    assert [round(rates[step], 9) for step in (4, 8, 12, 16)] == [0.01, 0.01, 0.001, 0.001]

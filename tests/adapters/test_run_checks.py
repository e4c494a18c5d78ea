"""What a run refuses before it trains, since its parts do not fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import train
from treenail.adapters.schedule.compat import ReduceOnPlateauLR
from treenail.contracts import Data, Evaluation, Run, Schedule
from treenail.kernel import ConfigError, late, spec


class Points:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((3,), float(index)), torch.ones(1)


def run(schedule: Schedule, *, validates: bool) -> Run:
    return Run(
        model=spec(nn.Linear)(3, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=1e-3),
        train=Data(dataset=spec(Points)(), batch_size=4),
        val=Evaluation(dataset=spec(Points)(), batch_size=4) if validates else None,
        schedules=(schedule,),
        loop=late(EpochLoop)(max_epochs=1),
        hooks={"progress": None},
        device="cpu",
    )


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (Schedule(scheduler=late(ReduceLROnPlateau)(), metric="val/loss"), ReduceLROnPlateau),
        (Schedule(scheduler=late(ReduceOnPlateauLR)(monitor="loss")), ReduceOnPlateauLR),
    ],
)
def test_a_schedule_that_steps_on_a_metric_needs_a_validation(
    tmp_path: Path, schedule: Schedule, kind: type[LRScheduler]
) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__} steps on a metric, and nothing is validated"):
        train(run(schedule, validates=False), tmp_path / "without")
    assert train(run(schedule, validates=True), tmp_path / "with").step == 1

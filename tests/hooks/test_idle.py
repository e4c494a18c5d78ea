"""Default hooks take no part in steps in which they have nothing to do, and in all others they do."""

import io
from typing import Literal

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from treenail.adapters.data import Batches
from treenail.adapters.hooks import BoundSchedule, CheckpointHook, ProgressHook, ScheduleHook, Schedules
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.contracts import TrainWork
from treenail.kernel import Engine, EngineError, Hook

STEPS = 4


class Training:
    """Two epochs of four steps, with a learning rate that a schedule halves."""

    def __init__(self, every: Literal["step", "epoch"] | None) -> None:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        self.schedules = Schedules([BoundSchedule(ExponentialLR(self.optimizer, 0.5), every)] if every else [])
        step = SupervisedStep(model, nn.functional.mse_loss, self.optimizer)
        batches = Batches([(torch.ones(3, 2), torch.ones(3, 1))] * STEPS)
        self.loop = EpochLoop(TrainWork(step, batches), max_epochs=2)


@pytest.mark.parametrize(("every", "halved"), [("step", 2 * STEPS), ("epoch", 2), (None, 0)])
def test_a_schedule_hook_takes_part_in_steps_if_a_schedule_counts_them(
    every: Literal["step", "epoch"] | None, halved: int
) -> None:
    training = Training(every)
    engine = Engine({"optimizer": training.optimizer, "schedules": training.schedules})
    engine.attach(ScheduleHook())
    engine.run(training.loop)
    assert training.optimizer.param_groups[0]["lr"] == 0.5**halved
    assert (engine.points.after_train_iter is None) == (every != "step")


def test_schedules_that_come_too_late_for_the_hook_are_refused_not_forgotten() -> None:
    training = Training("step")

    class BringsSchedules(Hook):
        after = ("ScheduleHook",)

        def before_run(self, engine: Engine) -> None:
            engine.parts["schedules"] = training.schedules

    engine = Engine({"optimizer": training.optimizer})
    engine.attach(ScheduleHook())
    engine.attach(BringsSchedules())
    with pytest.raises(EngineError, match="after the hook's before_run"):
        engine.run(training.loop)
    engine.run(training.loop)  # now they are there in time
    assert training.optimizer.param_groups[0]["lr"] == 0.5 ** (2 * STEPS)


def test_a_checkpoint_hook_takes_part_in_steps_if_it_counts_steps_or_seconds() -> None:
    idle = [CheckpointHook(), CheckpointHook(None), CheckpointHook(None, "step")]
    at_work = [CheckpointHook(1, "step"), CheckpointHook(1, "second")]
    for hook in idle + at_work:
        engine = Engine()
        engine.attach(hook)
        assert (engine.points.after_train_iter is None) == (hook in idle)


def test_a_progress_hook_takes_part_in_steps_on_a_terminal() -> None:
    for terminal in (True, False):
        engine = Engine()
        engine.attach(ProgressHook(console=Console(file=io.StringIO(), force_terminal=terminal)))
        assert (engine.points.after_train_iter is not None) == terminal

"""The time of a training step is that of its batch and the step; saves and validations are not."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from torch import nn

from tests.hooks.small_runs import Saves
from treenail.adapters.data import Batches
from treenail.adapters.hooks import LoggerHook, TimerHook
from treenail.adapters.hooks import timer as our_timer
from treenail.adapters.hooks.compat import IterTimerHook, bind_runner
from treenail.adapters.hooks.compat import timer as compat_timer
from treenail.adapters.logging import terminal_logger
from treenail.adapters.logging.compat import MessageHub
from treenail.adapters.loops import EvalLoop, StepLoop
from treenail.adapters.optim import SupervisedStep
from treenail.contracts import TrainWork
from treenail.kernel import Engine, Hook, Record


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Lasts(Hook):
    """Lets a batch take 2 s and its step 1 s; a validation takes 300 s, and a checkpoint is asked for after step 3."""

    priority = 1  # in front of the timers

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        self.clock.now += 2

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self.clock.now += 1
        if engine.step == 2:
            engine.request_checkpoint("now")

    def before_val_epoch(self, engine: Engine) -> None:
        self.clock.now += 300


class SavesSlowly(Saves):
    """Takes 50 s."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def save(self, checkpoint: object, *, step: int, epoch: int, reason: str, pointers: object) -> str:
        self.clock.now += 50
        return super().save(checkpoint, step=step, epoch=epoch, reason=reason, pointers=pointers)


def trained(timer: Hook, clock: Clock) -> dict[str, float]:
    """Train 4 steps with a validation after every second one, and return what was published of them."""
    model, loss = nn.Linear(4, 1), nn.MSELoss()
    source, seen = (Batches([[torch.ones(4, 4), torch.ones(4, 1)]] * 4) for _ in range(2))
    step = SupervisedStep(model, loss, torch.optim.SGD(model.parameters(), lr=0.1))
    loop = StepLoop(TrainWork(step, source, EvalLoop("val", model, loss, seen)), max_steps=4, val_interval=2)
    engine = Engine({"model": model}, checkpointer=SavesSlowly(clock))
    for hook in (Lasts(clock), timer, LoggerHook(4, terminal=terminal_logger(StringIO()))):
        engine.attach(hook)
    records: list[Record] = []
    engine.subscribe(records.append)
    bind_runner([timer])
    engine.run(loop)
    assert clock.now >= 100 + 4 * 3 + 300 + 50
    return dict(next(record.values for record in records if "time" in record.values))


@pytest.mark.parametrize("kind", [TimerHook, IterTimerHook])
def test_validation_and_saving_between_steps_are_no_time_of_a_step(
    kind: type[Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for module in (our_timer, compat_timer):
        monkeypatch.setattr(module, "perf_counter", clock)
    found = trained(kind(), clock)
    # The waits for the batches after the validation and after the save cannot be told from these.
    assert found["time"] == pytest.approx((3 + 3 + 1 + 1) / 4)
    assert found["data_time"] == pytest.approx((2 + 2) / 4)


def test_the_history_of_mmengine_has_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in (our_timer, compat_timer):
        monkeypatch.setattr(module, "perf_counter", clock)
    trained(IterTimerHook(), clock)
    assert max(MessageHub.get_current_instance().get_scalar("train/time").data[0]) == pytest.approx(3)


def test_where_no_step_was_made_there_is_no_time_of_one() -> None:
    timer, engine = TimerHook(), Engine()
    engine.attach(timer)
    timer.before_train(engine)
    assert engine.meters.drain() == {}
    timer.before_train_epoch(engine)
    timer.before_train_iter(engine, 0, None)
    timer.after_train_iter(engine, 0, None, None)
    assert engine.meters.drain().keys() == {"time", "data_time"}
    assert engine.meters.drain() == {}

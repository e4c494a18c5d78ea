"""Steps learning-rate schedulers where they belong."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treenail.contracts import StepOutput
from treenail.kernel import Engine, Hook, StateError, TrainingError, did_you_mean


class BoundSchedule(NamedTuple):
    """A scheduler of an optimizer, and when it steps; see `treenail.contracts.Schedule`."""

    scheduler: LRScheduler
    every: Literal["step", "epoch"] = "epoch"
    metric: str | None = None


class Schedules:
    """The schedulers of a run, as one stateful part.

    Args:
        schedules: The schedulers.

    Raises:
        ValueError: A ReduceLROnPlateau has no metric.
    """

    def __init__(self, schedules: Sequence[BoundSchedule] = ()) -> None:
        for schedule in schedules:
            if isinstance(schedule.scheduler, ReduceLROnPlateau) and schedule.metric is None:
                raise ValueError("ReduceLROnPlateau steps on a metric; write metric: val/loss in its schedule")
        self.schedules = tuple(schedules)

    def state_dict(self) -> dict[str, object]:
        """Return every scheduler's state, in order."""
        return {"schedules": [schedule.scheduler.state_dict() for schedule in self.schedules]}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the schedulers' states.

        Raises:
            StateError: The state is of another number of schedulers.
        """
        states = state_dict.get("schedules")
        if not isinstance(states, list) or len(states) != len(self.schedules):
            raise StateError(f"the state is not of {len(self.schedules)} schedulers", where="schedules")
        for schedule, state in zip(self.schedules, states, strict=True):
            schedule.scheduler.load_state_dict(state)


class ScheduleHook(Hook):
    """Steps the engine's part ``schedules``, and makes the learning rate of the part ``optimizer`` a gauge.

    A step that the optimizer skipped does not advance a schedule.
    """

    priority = 70

    def __init__(self) -> None:
        self._by_step: tuple[LRScheduler, ...] = ()
        self._by_epoch: tuple[LRScheduler, ...] = ()
        self._by_metric: tuple[tuple[ReduceLROnPlateau, str], ...] = ()

    def before_train(self, engine: Engine) -> None:
        """Look the schedulers up."""
        schedules = engine.part("schedules", Schedules).schedules if "schedules" in engine.parts else ()
        plain = [schedule for schedule in schedules if schedule.metric is None]
        self._by_step = tuple(each.scheduler for each in plain if each.every == "step")
        self._by_epoch = tuple(each.scheduler for each in plain if each.every == "epoch")
        # Only a scheduler whose step takes a metric has one; torch types that on ReduceLROnPlateau alone.
        self._by_metric = tuple(
            (cast("ReduceLROnPlateau", each.scheduler), each.metric) for each in schedules if each.metric is not None
        )
        if "optimizer" in engine.parts:
            groups = engine.part("optimizer", Optimizer).param_groups
            for index, group in enumerate(groups):
                name = "lr" if len(groups) == 1 else f"lr/{index}"
                engine.meters.gauges[name] = functools.partial(_learning_rate, group)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Step the schedulers that count steps."""
        if self._by_step and not (isinstance(outputs, StepOutput) and not outputs.stepped):
            for scheduler in self._by_step:
                scheduler.step()

    def after_train_epoch(self, engine: Engine) -> None:
        """Step the schedulers that count epochs."""
        for scheduler in self._by_epoch:
            scheduler.step()

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Step the schedulers that look at a metric.

        Raises:
            TrainingError: Validation gave no such metric.
        """
        for scheduler, metric in self._by_metric:
            scheduler.step(metric_of(metrics, metric, "the schedule"))


def _learning_rate(group: Mapping[str, float]) -> float:
    return float(group["lr"])


def metric_of(metrics: dict[str, float], name: str, purpose: str) -> float:
    """Return a metric by name.

    Raises:
        TrainingError: There is none; the message names those there are.
    """
    if name not in metrics:
        mend = did_you_mean(name, metrics) or f"there are {', '.join(metrics)}"
        raise TrainingError(f"{purpose} asks for the metric '{name}', which validation does not give", mend=mend)
    return metrics[name]

"""Steps schedulers where they belong, and shows what they schedule."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, cast, runtime_checkable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treenail.adapters.schedule import Together, read_param, scheduled_params, unwrapped
from treenail.contracts import Schedule, StepOutput
from treenail.kernel import ConfigError, Engine, Hook, StateError, TrainingError, did_you_mean


@runtime_checkable
class HasGroups(Protocol):
    """An optimizer, or a wrapper of one."""

    @property
    def param_groups(self) -> Sequence[Mapping[str, Any]]:
        """Groups of parameters, each with the numbers that are scheduled; torch types them so."""
        ...


@runtime_checkable
class HasOptimizers(Protocol):
    """Several optimizers, or wrappers, by name."""

    def items(self) -> Iterable[tuple[str, HasGroups]]:
        """Return (name, optimizer) pairs."""
        ...


class BoundSchedule(NamedTuple):
    """A scheduler of an optimizer, and when it steps; see `treenail.contracts.Schedule`."""

    scheduler: LRScheduler
    every: Literal["step", "epoch"] | None = None
    metric: str | None = None

    @property
    def by_epoch(self) -> bool:
        """Whether it steps after each epoch, else after each training step."""
        return bool(getattr(self.scheduler, "by_epoch", True)) if self.every is None else self.every == "epoch"

    @property
    def takes_all_metrics(self) -> bool:
        """Whether it counts epochs and chooses its metric itself, as mmengine's plateaus do."""
        return bool(getattr(self.scheduler, "need_val_args", False))


class Schedules:
    """The schedulers of a run, as one stateful part.

    Args:
        schedules: The schedulers.

    Raises:
        ValueError: A ReduceLROnPlateau has no metric.
    """

    def __init__(self, schedules: Sequence[BoundSchedule] = ()) -> None:
        for schedule in schedules:
            plateau = isinstance(schedule.scheduler, ReduceLROnPlateau) and not schedule.takes_all_metrics
            if plateau and schedule.metric is None:
                raise ValueError("ReduceLROnPlateau steps on a metric; write metric: val/loss in its schedule")
        self.schedules = tuple(schedules)

    @classmethod
    def built(
        cls, schedules: Sequence[Schedule], optimizer: HasGroups | HasOptimizers, epoch_length: int | None = None
    ) -> Self:
        """Build the schedules of a config.

        Args:
            schedules: The schedules; one that names no optimizer is built for each.
            optimizer: The run's optimizer, or several by name.
            epoch_length: Training steps of an epoch, for schedulers that take them.

        Raises:
            BuildError: A scheduler's constructor raised.
            ConfigError: A schedule names an optimizer that there is not.
        """
        bound: list[BoundSchedule] = []
        for each in schedules:
            scheduler = each.scheduler if epoch_length is None else each.scheduler.filled(epoch_length=epoch_length)
            chosen = _chosen(each, optimizer)
            bound += [BoundSchedule(scheduler.build(its), each.every, each.metric) for its in chosen]
        return cls(bound)

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
    """Steps the engine's part ``schedules``, and makes what is scheduled of the part ``optimizer`` gauges.

    The learning rate is ``lr``; of several groups ``lr/0`` …, or ``lr/NAME`` where each has a name of its own; of several
    optimizers ``lr/OPTIMIZER`` …; and so are momentum and whatever else a schedule sets. A step that the optimizer skipped
    does not advance a schedule.
    """

    priority = 70

    def __init__(self) -> None:
        self._by_step: list[LRScheduler | Together] = []
        self._by_epoch: tuple[LRScheduler, ...] = ()
        self._by_metric: tuple[tuple[ReduceLROnPlateau, str | None], ...] = ()

    def before_train(self, engine: Engine) -> None:
        """Look the schedulers up."""
        schedules = engine.part("schedules", Schedules).schedules if "schedules" in engine.parts else ()
        plain = [each for each in schedules if each.metric is None and not each.takes_all_metrics]
        self._by_step = Together.where_possible(each.scheduler for each in plain if not each.by_epoch)
        self._by_epoch = tuple(
            each.scheduler for each in schedules if each.takes_all_metrics or (each in plain and each.by_epoch)
        )
        # Only a scheduler whose step takes a metric has one; torch types that on ReduceLROnPlateau alone.
        self._by_metric = tuple(
            (cast("ReduceLROnPlateau", each.scheduler), each.metric) for each in schedules if each not in plain
        )
        if "optimizer" in engine.parts:
            scheduled = {name for each in schedules for name in scheduled_params(each.scheduler)}
            engine.meters.gauges.update(_gauges(engine.parts["optimizer"], ["lr", *sorted(scheduled - {"lr"})]))

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
            # One that chooses its metric itself takes them all.
            value = cast("float", metrics) if metric is None else metric_of(metrics, metric, "the schedule")
            scheduler.step(value)


def _chosen(schedule: Schedule, optimizer: HasGroups | HasOptimizers) -> list[Optimizer]:
    """Return the optimizers that a schedule is for."""
    by_name = _by_name(optimizer)
    if schedule.optimizer is not None and schedule.optimizer not in by_name:
        only = by_name.keys() == {""}
        mend = "there is one, without a name: leave it out" if only else f"there are {', '.join(by_name)}"
        mend = did_you_mean(schedule.optimizer, by_name) or mend
        message = f"a schedule is for the optimizer '{schedule.optimizer}', which there is not"
        raise ConfigError(message, where=schedule.scheduler.where, mend=mend)
    chosen = by_name.values() if schedule.optimizer is None else [by_name[schedule.optimizer]]
    return [unwrapped(each) for each in chosen]


def _by_name(optimizer: HasGroups | HasOptimizers) -> dict[str, HasGroups]:
    """Return optimizers by name; the only one's is empty."""
    if not isinstance(optimizer, Optimizer) and isinstance(optimizer, HasOptimizers):
        return dict(optimizer.items())
    return {"": optimizer}


def _gauges(optimizer: object, params: Sequence[str]) -> Iterator[tuple[str, functools.partial[float]]]:
    """Yield by name what reads each group's value."""
    if not isinstance(optimizer, HasGroups | HasOptimizers):
        return
    for owner, each in _by_name(optimizer).items():
        groups = each.param_groups
        labels = [str(group.get("name", index)) for index, group in enumerate(groups)]
        if len(set(labels)) < len(labels):
            labels = [str(index) for index in range(len(groups))]
        for index, (group, label) in enumerate(zip(groups, labels, strict=True)):
            for param in params:
                if param in group or (param == "momentum" and "betas" in group):
                    parts = [param, *([owner] if owner else ()), *([label] if len(groups) > 1 else ())]
                    yield "/".join(parts), functools.partial(_value, each, index, param)


def _value(optimizer: HasGroups, index: int, param: str) -> float:
    return read_param(optimizer.param_groups[index], param)  # a loaded state brings groups of its own


def metric_of(metrics: dict[str, float], name: str, purpose: str) -> float:
    """Return a metric by name.

    Raises:
        TrainingError: There is none; the message names those there are.
    """
    if name not in metrics:
        mend = did_you_mean(name, metrics) or f"there are {', '.join(metrics)}"
        raise TrainingError(f"{purpose} asks for the metric '{name}', which validation does not give", mend=mend)
    return metrics[name]

"""Steps schedulers where they belong, and shows what they schedule."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, cast, runtime_checkable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from treenail.adapters.optim import OptimWrapper, OptimWrapperDict
from treenail.adapters.schedule import Together, read_param, scheduled_params, unwrapped
from treenail.contracts import Schedule, StepOutput
from treenail.kernel import ConfigError, Engine, EngineError, Hook, StateError, TrainingError, did_you_mean


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
        ValueError: A scheduler does not fit its metric, or what it steps after.
    """

    def __init__(self, schedules: Sequence[BoundSchedule] = ()) -> None:
        for schedule in schedules:
            if mistake := _mistake(schedule):
                raise ValueError(mistake)
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
            ConfigError: A schedule names an optimizer that there is not, or its scheduler does not fit its metric, or what it
                steps after.
        """
        bound: list[BoundSchedule] = []
        for each in schedules:
            scheduler = each.scheduler if epoch_length is None else each.scheduler.filled(epoch_length=epoch_length)
            for its in _chosen(each, optimizer):
                bound.append(BoundSchedule(scheduler.build(its), each.every, each.metric))
                if mistake := _mistake(bound[-1]):
                    raise ConfigError(mistake, where=scheduler.where)
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
            message = f"the state is not of {len(self.schedules)} schedulers"
            raise StateError(message, where="schedules", mend="with --restart schedules they begin anew")
        for schedule, state in zip(self.schedules, states, strict=True):
            schedule.scheduler.load_state_dict(state)


class ScheduleHook(Hook):
    """Steps the engine's part ``schedules``, and makes what is scheduled of the part ``optimizer`` gauges.

    The learning rate is ``lr``; of several groups ``lr/0`` …, or ``lr/NAME`` where each has a name of its own; of several
    optimizers ``lr/OPTIMIZER`` …; and so are momentum and whatever else a schedule sets. A step that the optimizer skipped
    does not advance a schedule; of several optimizers, those in the part ``updates``, each has its own skipped steps.
    """

    priority = 70

    def __init__(self) -> None:
        self._by_step: list[tuple[_Counts | None, list[LRScheduler | Together]]] = []
        self._by_epoch: tuple[LRScheduler, ...] = ()
        self._by_metric: tuple[tuple[ReduceLROnPlateau, str | None], ...] = ()

    def before_run(self, engine: Engine) -> None:
        """Find out whether there is anything to do after each step."""
        self.idle = () if any(_counts_steps(each) for each in _schedules(engine)) else ("after_train_iter",)

    def before_train(self, engine: Engine) -> None:
        """Look the schedulers up."""
        schedules = _schedules(engine)
        plain = [each for each in schedules if each.metric is None and not each.takes_all_metrics]
        # Schedulers of different optimizers change nothing for each other.
        by_updater: dict[OptimWrapper | None, list[LRScheduler]] = {}
        updates = engine.parts.get("updates")
        updaters = updates.values() if isinstance(updates, OptimWrapperDict) else ()
        for scheduler in (each.scheduler for each in schedules if _counts_steps(each)):
            updater = next((each for each in updaters if each.optimizer is scheduler.optimizer), None)
            by_updater.setdefault(updater, []).append(scheduler)
        self._by_step = [
            (_Counts(updater) if updater is not None else None, Together.where_possible(its))
            for updater, its in by_updater.items()
        ]
        if self._by_step and self.idle:
            raise EngineError(
                "a schedule that counts steps came into the engine's parts after the hook's before_run",
                mend="give the engine its part 'schedules' before the run",
            )
        self._by_epoch = tuple(
            each.scheduler for each in schedules if each.takes_all_metrics or (each in plain and each.by_epoch)
        )
        # Only a scheduler whose step takes a metric has one; torch types that on ReduceLROnPlateau alone.
        self._by_metric = tuple(
            (cast("ReduceLROnPlateau", each.scheduler), each.metric) for each in schedules if each not in plain
        )
        if "optimizer" in engine.parts:
            scheduled = {name for each in schedules for name in scheduled_params(each.scheduler)}
            engine.meters.gauges.update(group_gauges(engine.parts["optimizer"], ["lr", *sorted(scheduled - {"lr"})]))

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Step the schedulers that count steps."""
        stepped = not isinstance(outputs, StepOutput) or outputs.stepped
        for counts, schedulers in self._by_step:
            skipped = counts is not None and counts.only_skipped()  # which counts each step
            if stepped and not skipped:
                for scheduler in schedulers:
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


def _schedules(engine: Engine) -> tuple[BoundSchedule, ...]:
    return engine.part("schedules", Schedules).schedules if "schedules" in engine.parts else ()


def _counts_steps(schedule: BoundSchedule) -> bool:
    return schedule.metric is None and not schedule.takes_all_metrics and not schedule.by_epoch


class _Counts:
    """What an updater did in each step."""

    def __init__(self, updater: OptimWrapper) -> None:
        self._updater = updater
        self._steps, self._skipped = updater.steps, updater.skipped

    def only_skipped(self) -> bool:
        """Return whether it has skipped updates, and made none, since the last call."""
        steps, skipped = self._steps, self._skipped
        self._steps, self._skipped = self._updater.steps, self._updater.skipped
        return self._skipped != skipped and self._steps == steps  # a rollback counts from less again


def _mistake(schedule: BoundSchedule) -> str | None:
    """Say what of a schedule does not fit its scheduler, if something does not."""
    scheduler, every = schedule.scheduler, schedule.every
    name = type(scheduler).__name__
    if schedule.metric is not None:
        if not _takes_metric(scheduler):
            return f"{name} steps without a metric; leave 'metric' out, or take ReduceLROnPlateau"
        return "a schedule with a metric steps after each validation; leave 'every' out" if every is not None else None
    if isinstance(scheduler, ReduceLROnPlateau) and not schedule.takes_all_metrics:
        return f"{name} steps on a metric; write metric: val/loss in its schedule"
    by_epoch = getattr(scheduler, "by_epoch", None)
    if every is not None and by_epoch is not None and by_epoch != schedule.by_epoch:
        own = "epoch" if by_epoch else "step"
        return (
            f"the lengths of {name} count each {own}, as its by_epoch says, and 'every' says {every}; leave 'every' out"
        )
    return None


def _takes_metric(scheduler: LRScheduler) -> bool:
    """Return whether the first argument of a scheduler's step is a metric; torch's take none, or an epoch."""
    parameters = inspect.signature(scheduler.step).parameters
    return next(iter(parameters), "epoch") != "epoch"


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


def group_gauges(optimizer: object, params: Sequence[str]) -> Iterator[tuple[str, functools.partial[float]]]:
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

"""The metrics that hooks and schedules of a run look at: that validation gives them is checked as early as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from treenail.adapters.hooks import BestHook, CheckpointHook, EarlyStoppingHook, Schedules
from treenail.adapters.hooks.compat import EarlyStoppingHook as MmengineEarlyStoppingHook
from treenail.adapters.loops import EpochLoop, StepLoop
from treenail.adapters.runtime.assemble import Assembly
from treenail.contracts import Run
from treenail.kernel import ConfigError, Engine, Hook, TrainingError, did_you_mean


class MissingMetricError(TrainingError):
    """A hook or a schedule looks at a metric that validation does not give; what was trained is consistent."""


class Wanted(NamedTuple):
    """A metric that is looked at.

    Args:
        names: By which it is found; one of them is enough.
        where: Path in the config.
    """

    names: tuple[str, ...]
    where: str


class Monitors(Hook):
    """Finds the metrics that a run looks at and validation does not give.

    Where all metrics of a validation know what their results are called, that is before the training; after a sanity
    validation otherwise, and at the latest with the first results, before anybody looks at them.

    Args:
        run: The config.
        assembly: Its components.
        hooks: Its hooks by name.

    Attributes:
        wanted: What is looked at.
        unwatched: Whether nothing looks at any result.

    Raises:
        ConfigError: There is no validation, or its metrics will not give what is looked at.
    """

    priority = 0

    def __init__(self, run: Run, assembly: Assembly, hooks: Mapping[str, Hook]) -> None:
        _refuse_without_validation(run, assembly, hooks)
        self.wanted = [*_wanted(hooks), *_wanted_by_schedules(assembly)]
        # A loop, or a hook, of somebody's own may add to the results before others look.
        changed = not isinstance(assembly.loop, EpochLoop | StepLoop) or any(
            type(hook).after_val_epoch is not Hook.after_val_epoch and not type(hook).__module__.startswith("treenail.")
            for hook in hooks.values()
            if isinstance(hook, Hook)
        )
        best = any(isinstance(each, BestHook) or getattr(each, "best_hook", None) for each in hooks.values())
        self.unwatched = not (self.wanted or changed or best)
        if changed:
            self.wanted = []
        known = getattr(assembly.validation, "result_names", None)
        if known is not None:
            try:
                self.check(known)
            except MissingMetricError as error:
                raise ConfigError(error.message, where=error.where, mend=error.mend) from None

    def check(self, names: Collection[str]) -> None:
        """Check what is looked at.

        Args:
            names: Those of the results of a validation.

        Raises:
            MissingMetricError: It is not among them.
        """
        for wanted in self.wanted:
            if not any(each in names for each in wanted.names):
                hints = (did_you_mean(each, names) for each in wanted.names)
                raise MissingMetricError(
                    f"it asks for the metric '{wanted.names[0]}', which validation does not give",
                    where=wanted.where,
                    mend=next(filter(None, hints), f"there are {', '.join(sorted(names)) or 'none'}"),
                )

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Check before others look.

        Raises:
            MissingMetricError: A metric is missing.
        """
        self.check(metrics)


def _wanted(hooks: Mapping[str, Hook]) -> Iterator[Wanted]:
    for name, hook in hooks.items():
        best, where = hook, f"hooks.{name}"
        if isinstance(hook, CheckpointHook):
            best, where = hook.best_hook or hook, f"{where}.save_best"
        if isinstance(best, BestHook):
            metrics = best.state_dict()["metrics"]  # all but 'auto'
            yield from (_with_short_name(each, where) for each in (metrics if isinstance(metrics, dict) else ()))
        elif isinstance(hook, EarlyStoppingHook):
            field = "monitor" if isinstance(hook, MmengineEarlyStoppingHook) else "metric"
            yield Wanted((hook.metric,), f"{where}.{field}")


def _wanted_by_schedules(assembly: Assembly) -> Iterator[Wanted]:
    schedules = assembly.parts["schedules"]
    for number, each in enumerate(schedules.schedules if isinstance(schedules, Schedules) else ()):
        if each.metric is not None:
            yield Wanted((each.metric,), f"schedules[{number}].metric")
        elif each.takes_all_metrics and isinstance(monitor := getattr(each.scheduler, "monitor", None), str):
            yield _with_short_name(monitor, f"schedules[{number}].scheduler.monitor")


def _with_short_name(name: str, where: str) -> Wanted:
    return Wanted((name, f"val/{name}"), where)


def _refuse_without_validation(run: Run, assembly: Assembly, hooks: Mapping[str, Hook]) -> None:
    """Refuse what waits for results of a validation where there is none; a loop of somebody's own may have some."""
    if run.val is not None:
        return
    schedules = assembly.parts["schedules"]
    for each in schedules.schedules if isinstance(schedules, Schedules) else ():
        if each.metric is not None or each.takes_all_metrics:
            raise _no_validation(f"{type(each.scheduler).__name__} steps on", "schedules", "take another scheduler")
    if not isinstance(assembly.loop, EpochLoop | StepLoop):
        return
    for name, hook in hooks.items():
        where = f"hooks.{name}"
        if isinstance(hook, CheckpointHook) and hook.best_hook is not None:
            raise _no_validation("save_best looks at", f"{where}.save_best", "leave it out")
        if isinstance(hook, BestHook | EarlyStoppingHook):
            raise _no_validation(f"{type(hook).__name__} looks at", where, "leave it out")


def _no_validation(does: str, where: str, or_else: str) -> ConfigError:
    mend = f"add val: {{dataset: …, batch_size: …}}, or {or_else}"
    return ConfigError(f"{does} a metric, and nothing is validated", where=where, mend=mend)

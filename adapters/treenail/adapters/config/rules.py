"""What the parts of a run demand of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from treenail.adapters.config.convert import Rules
from treenail.adapters.config.signature import named_arguments
from treenail.adapters.documents import TreePath
from treenail.contracts import Schedule
from treenail.kernel import Component, did_you_mean, name_of, signature_of

DEFAULTS: Final = {
    "hooks": ("timer", "logger", "progress", "schedule", "checkpoint", "vis"),
    "vis": ("jsonlines",),
}
"""What a run has without being asked, so that null can remove it."""

Found = Mapping[TreePath, object]
"""The converted parts of a run, by place."""


def rules_of_run(data: object) -> Rules:
    """Return the rules of a run.

    Args:
        data: The config's file as plain data, before overrides.
    """
    written = {section: tuple(_entries(data, section)) for section in DEFAULTS}
    return partial(_check, written)


def _entries(data: object, section: str) -> Iterator[str]:
    entries = data.get(section) if isinstance(data, dict) else None
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if entry is not None:
            yield str(name)


def _check(written: Mapping[str, tuple[str, ...]], found: Found) -> Iterator[tuple[TreePath, str]]:
    for section, names in written.items():
        yield from _removals(section, list(dict.fromkeys([*DEFAULTS[section], *names])), found)
    for path, part in found.items():
        if isinstance(part, Schedule):
            yield from _schedule(path, part)
    if () in found and found.get(("val",)) is None:
        for path, metric in _metrics(found):
            yield path, f"there is no 'val' to give the metric '{metric}'"


def _removals(section: str, removable: list[str], found: Found) -> Iterator[tuple[TreePath, str]]:
    for path, part in found.items():
        if part is None and len(path) == 2 and path[0] == section and str(path[1]) not in removable:
            mend = did_you_mean(str(path[1]), removable) or f"there are {', '.join(removable)}"
            yield path, f"null removes an entry of '{section}', but there is no '{path[1]}'; {mend}"


def _schedule(path: TreePath, schedule: Schedule) -> Iterator[tuple[TreePath, str]]:
    target = schedule.scheduler.target
    wanted = takes_metric(target)
    name = name_of(target).rpartition(":")[2]
    if wanted is False and schedule.metric is not None:
        yield (*path, "metric"), f"{name} steps without a metric; leave 'metric' out, or take ReduceLROnPlateau"
    if wanted is True and schedule.metric is None:
        yield path, f"{name} steps on a metric; write metric: val/loss"


def takes_metric(scheduler: Callable[..., object]) -> bool | None:
    """Return whether a scheduler's ``step`` needs an argument; None where its class does not tell."""
    step = getattr(scheduler, "step", None)
    signature = signature_of(step) if isinstance(scheduler, type) and callable(step) else None
    if signature is None:
        return None
    first = next(iter(list(signature.parameters.values())[1:]), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:
        return None
    return first is not None and first.default is first.empty and first.kind is not first.VAR_KEYWORD


def _metrics(found: Found) -> Iterator[tuple[TreePath, str]]:
    """Yield (place, name) of each metric that a run's schedules and hooks ask for."""
    for path, part in found.items():
        metric: object = None
        if isinstance(part, Schedule):
            metric = part.metric
        elif isinstance(part, Component) and len(path) == 2 and path[0] == "hooks":
            metric = named_arguments(part).get("metric")
        if isinstance(metric, str):
            yield (*path, "metric"), metric

"""What the parts of a run demand of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from treenail.adapters.config.maker import Rules, Visit
from treenail.adapters.config.schema import ComponentSchema
from treenail.adapters.documents import Map, TreePath
from treenail.kernel import did_you_mean

DEFAULTS: Final = {
    "hooks": ("timer", "logger", "progress", "schedule", "checkpoint", "vis"),
    "vis": ("jsonlines",),
}
"""What a run has without being asked, so that null can remove it."""


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
        if entry is not None or (isinstance(entries, Map) and name in entries.removed):
            yield str(name)


def _check(
    written: Mapping[str, tuple[str, ...]], data: object, visits: Sequence[Visit]
) -> Iterator[tuple[TreePath, str]]:
    if not isinstance(data, dict):
        return
    for section, names in written.items():
        yield from _removals(section, list(dict.fromkeys([*DEFAULTS[section], *names])), data.get(section))
    schedulers = {visit.path: visit.schema for visit in visits if isinstance(visit.schema, ComponentSchema)}
    for visit in visits:
        scheduler = schedulers.get((*visit.path, "scheduler"))
        if visit.path[:1] == ("schedules",) and scheduler is not None:
            yield from _schedule(visit, scheduler)
    for section in ("train", "val", "test"):
        samples = data.get(section)
        if isinstance(samples, dict) and None not in (samples.get("sampler"), samples.get("batch_sampler")):
            yield (section, "sampler"), "a batch sampler takes no sampler; leave out one of them"
    if data.get("val") is None:
        for path, metric in _metrics(data):
            yield path, f"there is no 'val' to give the metric '{metric}'"


def _removals(section: str, removable: list[str], entries: object) -> Iterator[tuple[TreePath, str]]:
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if entry is None and str(name) not in removable:
            mend = did_you_mean(str(name), removable) or f"there are {', '.join(removable)}"
            yield (section, name), f"null removes an entry of '{section}', but there is no '{name}'; {mend}"


def _schedule(visit: Visit, scheduler: ComponentSchema) -> Iterator[tuple[TreePath, str]]:
    metric = visit.given.get("metric")
    name = scheduler.target.rpartition(":")[2]
    if scheduler.step_takes_metric is False and metric is not None:
        yield (*visit.path, "metric"), f"{name} steps without a metric; leave 'metric' out, or take ReduceLROnPlateau"
    if scheduler.step_takes_metric is True and metric is None:
        yield visit.path, f"{name} steps on a metric; write metric: val/loss"


def _metrics(data: Mapping[str | int, object]) -> Iterator[tuple[TreePath, str]]:
    """Yield (place, name) of each metric that a run's schedules and hooks ask for."""
    for section in ("schedules", "hooks"):
        entries = data.get(section)
        pairs = (
            entries.items() if isinstance(entries, dict) else enumerate(entries) if isinstance(entries, list) else ()
        )
        for name, entry in pairs:
            metric = entry.get("metric") if isinstance(entry, dict) else None
            if isinstance(metric, str):
                yield (section, name, "metric"), metric

"""What the parts of a run demand of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from treenail.adapters.config.maker import Rules, Visit
from treenail.adapters.config.schema import ComponentSchema
from treenail.adapters.documents import Map, Mark, TreePath, literal_secrets, value_at
from treenail.kernel import did_you_mean

DEFAULTS: Final = {
    "hooks": ("timer", "logger", "progress", "schedule", "checkpoint", "vis"),
    "vis": ("jsonlines",),
}
"""What a run has without being asked, so that null can remove it."""

UNTYPED: Final = ("timer", "logger", "progress", "schedule", "checkpoint")
"""Those of its hooks whose options may stand without a type: the component of that name is meant."""


def name_default_hooks(data: object) -> None:
    """Write the types of default hooks of which only options are given into a config as plain data."""
    hooks = data.get("hooks") if isinstance(data, dict) else None
    if not isinstance(hooks, dict):
        return
    for name in UNTYPED:
        options = hooks.get(name)
        if isinstance(options, dict) and "type" not in options:
            hooks[name] = Map({"type": name, **options}, getattr(options, "marks", None))


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
    components = {visit.path: (visit, visit.schema) for visit in visits if isinstance(visit.schema, ComponentSchema)}
    validated = data.get("val") is not None
    for visit in visits:
        scheduler = components.get((*visit.path, "scheduler"))
        if visit.path[:1] == ("schedules",) and scheduler is not None:
            yield from _schedule(visit, *scheduler, validated=validated)
    model = components.get(("model",))
    yield from _updates(data, model[1] if model is not None else None)
    for section in ("train", "val", "test"):
        samples = data.get(section)
        if isinstance(samples, dict) and None not in (samples.get("sampler"), samples.get("batch_sampler")):
            yield (section, "sampler"), "a batch sampler takes no sampler; leave out one of them"
    if data.get("cudnn_benchmark") is True and data.get("deterministic"):
        yield (
            ("cudnn_benchmark",),
            "what cuDNN finds fastest may give other bits each time, which deterministic rules out; leave out one of them",
        )
    files = data.get("files")
    if isinstance(files, dict) and files:
        from treenail.adapters.files import mistakes_in_files  # most configs say nothing of files

        for place, message in mistakes_in_files(files):
            yield ("files", *place), message
    yield from _literal_secrets(data, visits)
    for path, metric in _metrics(data):
        if not validated:
            yield path, f"there is no 'val' to give the metric '{metric}'"
        elif not metric.startswith("val/") and (path[0] == "schedules" or _takes_no(metric, components.get(path[:-1]))):
            meant = metric.removeprefix("test/").removeprefix("train/")
            yield path, f"'{metric}' is no metric of a validation: write val/{meant}"


def _updates(data: Mapping[str | int, object], model: ComponentSchema | None) -> Iterator[tuple[TreePath, str]]:
    """Yield what model, loss, optimizers and their updates demand of each other."""
    optimizer, updates = data.get("optimizer"), data.get("updates")
    several = isinstance(optimizer, dict) and "type" not in optimizer
    if several and not optimizer:
        yield ("optimizer",), "there is none; write {type: …}, or several by names of parts of the model"
    elif several and data.get("loss") is not None:
        yield (
            ("optimizer",),
            "with a loss there is one optimizer, {type: …}; several are for a model whose train_step says what each does",
        )
    if data.get("loss") is None and model is not None and model.trains_itself is False:
        name = model.target.rpartition(":")[2]
        yield (), f"'loss' is missing, and {name} has no train_step that would do without; write loss: {{type: …}}"
    if isinstance(optimizer, dict) and isinstance(updates, dict) and "type" not in updates:
        if not several:
            yield ("updates",), "there is one optimizer; write its updates without a name, {type: …}"
        for name in updates if several else ():
            if name not in optimizer:
                mend = did_you_mean(str(name), map(str, optimizer)) or f"there are {', '.join(map(str, optimizer))}"
                yield ("updates", name), f"there is no optimizer '{name}'; {mend}"


def _literal_secrets(data: Mapping[str | int, object], visits: Sequence[Visit]) -> Iterator[tuple[TreePath, str]]:
    """Yield the credentials of stores that are written in a config, which a run keeps; data of Python has no marks."""
    found: dict[TreePath, None] = {}
    for path in (("files",), *(visit.path for visit in visits if _opens_a_store(visit))):
        found |= dict.fromkeys(literal_secrets(value_at(data, path), Mark(""), path))
    for path in found:
        yield (
            path,
            "a run keeps its config, so no credential is written in it; take it from the environment: ${env:NAME}",
        )


def _opens_a_store(visit: Visit) -> bool:
    schema = visit.schema
    return isinstance(schema, ComponentSchema) and schema.target.startswith(
        ("treenail.adapters.files:", "treenail.adapters.files.")
    )


def _removals(section: str, removable: list[str], entries: object) -> Iterator[tuple[TreePath, str]]:
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if entry is None and str(name) not in removable:
            mend = did_you_mean(str(name), removable) or f"there are {', '.join(removable)}"
            yield (section, name), f"null removes an entry of '{section}', but there is no '{name}'; {mend}"


def _takes_no(metric: str, component: tuple[Visit, ComponentSchema] | None) -> bool:
    """Return whether a hook is one of ours that takes no metric of this name; `BestHook` takes short ones."""
    target = component[1].target if component is not None else ""
    is_short = target.endswith(":BestHook") and not metric.startswith(("test/", "train/"))
    return target.startswith("treenail.") and not is_short


def _schedule(
    visit: Visit, scheduler: Visit, schema: ComponentSchema, *, validated: bool
) -> Iterator[tuple[TreePath, str]]:
    metric, every = visit.given.get("metric"), visit.given.get("every")
    name = schema.target.rpartition(":")[2]
    if schema.step_takes_metric is False and metric is not None:
        yield (*visit.path, "metric"), f"{name} steps without a metric; leave 'metric' out, or take ReduceLROnPlateau"
    if schema.step_takes_metric is True and metric is None:
        yield visit.path, f"{name} steps on a metric; write metric: val/loss"
    given = {field.name: field.default for field in schema.fields} | dict(scheduler.given)
    if not validated and metric is None and "monitor" in given:
        yield visit.path, f"there is no 'val' to give {name} the metric '{given['monitor']}'"
    if metric is not None and every is not None:
        yield (*visit.path, "every"), "a schedule with a metric steps after each validation; leave 'every' out"
    elif every in ("step", "epoch") and isinstance(given.get("by_epoch"), bool):
        own = "epoch" if given["by_epoch"] and given.get("convert_to_iter_based") is not True else "step"
        if own != every:
            yield (
                (*visit.path, "every"),
                f"the lengths of {name} count each {own}, as its by_epoch says; leave 'every' out",
            )


def _metrics(data: Mapping[str | int, object]) -> Iterator[tuple[TreePath, str]]:
    """Yield (place, name) of each metric that a run's schedules and hooks ask for."""
    for section in ("schedules", "hooks"):
        entries = data.get(section)
        pairs = (
            entries.items() if isinstance(entries, dict) else enumerate(entries) if isinstance(entries, list) else ()
        )
        for name, entry in pairs:
            metric = entry.get("metric") if isinstance(entry, dict) else None
            if isinstance(metric, str) and metric != "auto":  # the first of them
                yield (section, name, "metric"), metric

"""What runs have written, for people: one run's log and curves, several runs side by side. They need no torch."""

from __future__ import annotations

import math
import os
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from treenail.adapters.documents import mask
from treenail.adapters.logging import RunLog
from treenail.kernel import ConfigError, did_you_mean

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 24
"""Columns of the small drawing of a curve."""
_CELL: Final = 40
"""Characters of a value of a config."""
_HEIGHT: Final = 14
"""Rows of a chart."""
_NOTHING: Final = "–"
_GROUP: Final = 16
"""Most curves that are shown of those whose names begin alike."""


def logs(options: Namespace) -> int:
    """Show how far a run is, its curves and the last lines of its log."""
    if options.lines < 0 or options.rank < 0:
        raise ConfigError("--lines and --rank must not be negative")
    log = RunLog(options.work_dir)
    lines = log.lines(options.rank)
    if not lines and options.rank:
        raise ConfigError(
            f"rank {options.rank} has no log",
            where=str(options.work_dir),
            mend="ranks but the first write one with distributed.rank_logs=true",
        )
    for name in options.curves:
        if name not in log.names:
            mend = did_you_mean(name, log.names) or f"there are {', '.join(log.names) or 'none'}"
            raise ConfigError(f"there is no curve '{name}'", where=str(options.work_dir), mend=mend)
    print(_table([["state", _state(log)], *_progress(log)]))
    if log.names:
        head = ["curve", "points", "first", "last", "least", "greatest", ""]
        shown_names = log.names if options.all else _main_names(log.names)
        print(f"\n{_table([head, *(_row(name, log.curve(name)) for name in shown_names)])}")
        if left_out := Counter(_group(name) for name in log.names if name not in set(shown_names)):
            counts = ", ".join(f"{count} of {group}" for group, count in left_out.items())
            print(f"left out: {counts} (--all shows them, --curve NAME draws one)")
    if options.curves:
        print(f"\n{_charts(log, options.curves)}")
    shown = lines[max(len(lines) - options.lines, 0) :]
    if shown:
        print()
    for line in shown:
        print(_line(line))
    return 0


def compare(options: Namespace) -> int:
    """Show runs side by side: where their configs differ, how far they are, their last and best metrics."""
    logs = [RunLog(each) for each in options.work_dir]
    rows = [["", *_titles(options.work_dir)]]
    rows += _config_rows(logs)
    rows += [
        ["steps", *(str(log.step) for log in logs)],
        ["epochs", *(str(log.epoch) for log in logs)],
        ["attempts", *(_NOTHING if log.attempt is None else str(log.attempt) for log in logs)],
        ["training time", *(_duration(log.training_seconds) for log in logs)],
        ["state", *(_cell(_state(log)) for log in logs)],
    ]
    names = dict.fromkeys(name for log in logs for name in log.names)
    metrics = [name for name in names if name.startswith(("train/loss", "val/", "test/"))]
    rows += [
        [f"last {name}", *(_number(curve[-1][1]) if (curve := log.curve(name)) else _NOTHING for log in logs)]
        for name in metrics
    ]
    rows += [row for name in metrics if name.startswith("val/") for row in _best_rows(name, logs)]
    print(_table(rows))
    return 0


def _state(log: RunLog) -> str:
    if (writer := log.writer) is not None:
        return f"running: {writer}"
    if (ending := log.ending) is not None:
        detail = ending.get("error", ending.get("reason"))
        return str(ending["event"]) if detail is None else f"{ending['event']}: {detail}"
    return {True: "finished", False: "stopped", None: "not running"}[log.is_finished]


def _progress(log: RunLog) -> Iterator[list[str]]:
    total = log.total_steps
    if (place := (log.ending or {}).get("raised_at")) is not None:
        yield ["raised at", str(place)]
    yield ["step", f"{log.step}{'' if total is None else f' of {total}'} ({log.epoch} epochs)"]
    if log.attempt is not None:
        yield ["attempt", str(log.attempt)]
    if (saved := log.saved_step) is not None:
        yield ["checkpoint", f"of step {saved}"]
    yield ["training time", _duration(log.training_seconds)]
    if not log.is_finished:
        yield ["training left", _duration(log.seconds_left)]


def _group(name: str) -> str:
    return name.partition("/")[0]


def _main_names(names: Sequence[str]) -> list[str]:
    """Return what people look at first: no statistics of single parameters, and the first ones of each group."""
    shown: list[str] = []
    seen: Counter[str] = Counter()
    for name in names:
        group = _group(name)
        if group in ("weights", "gradients") and name.count("/") > 1:
            continue
        seen[group] += 1
        if seen[group] <= _GROUP:
            shown.append(name)
    return shown


def _row(name: str, curve: Sequence[tuple[int, float]]) -> list[str]:
    values = [value for _, value in curve]
    finite = [value for value in values if math.isfinite(value)]
    bounds = [_number(min(finite)), _number(max(finite))] if finite else [_NOTHING, _NOTHING]
    return [name, str(len(values)), _number(values[0]), _number(values[-1]), *bounds, _spark(values)]


def _spark(values: Sequence[float]) -> str:
    """Draw values in a line of blocks, each the mean of its share of them; a blank where none of them is finite."""
    columns = min(len(values), _SPARK)
    edges = [len(values) * column // columns for column in range(columns + 1)]
    parts = [[each for each in values[begin:end] if math.isfinite(each)] for begin, end in pairwise(edges)]
    means = [math.fsum(part) / len(part) if part else math.nan for part in parts]
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return "".join(
        _BLOCKS[round((mean - low) / span * (len(_BLOCKS) - 1)) if span else 0] if math.isfinite(mean) else " "
        for mean in means
    )


def _charts(log: RunLog, names: Sequence[str]) -> str:
    from treenail.adapters.vis import Panel, plot_text  # it brings torch

    panels = []
    for name in names:
        steps, values = zip(*log.curve(name), strict=True)
        panels.append(Panel(name, "step", name, {name: (steps, values)}))
    return plot_text(panels, min(shutil.get_terminal_size().columns, 120), _HEIGHT)


def _line(line: Mapping[str, Any]) -> str:  # Any: what JSON holds
    rest = dict(line)
    time, event, level = (rest.pop(name, "") for name in ("timestamp", "event", "level"))
    shown = [str(time).partition(".")[0] + "Z"] if time else []
    shown += [str(level)] if level not in ("", "info") else []
    shown += [str(event), *(f"{name}={rest.pop(name)}" for name in ("step", "epoch") if name in rest)]
    frames = str(rest.pop("traceback", "")).splitlines()
    shown += [f"{name}={_number(value) if isinstance(value, float) else value}" for name, value in rest.items()]
    return "\n  ".join([" ".join(shown), *frames])


def _titles(directories: Sequence[Path]) -> list[str]:
    """Return what tells directories apart: their paths below what they have in common."""
    absolute = [Path(os.path.abspath(each)) for each in directories]
    if len(set(absolute)) < 2:
        return [each.name for each in absolute]
    common = os.path.commonpath(absolute)
    return [os.path.relpath(each, common) for each in absolute]


def _config_rows(logs: Sequence[RunLog]) -> Iterator[list[str]]:
    configs = [log.written_config for log in logs]
    if any(each is None for each in configs):  # of two kinds, they would differ in every name
        configs = [log.plain_config for log in logs]
    if any(each is None for each in configs):
        yield ["config", *("known" if each else "not known" for each in configs)]
        return
    flat = [dict(_leaves(mask(each))) for each in configs]
    for path in dict.fromkeys(path for each in flat for path in each):
        cells = [_cell(each[path]) if path in each else _NOTHING for each in flat]
        if any(each.get(path, _NOTHING) != flat[0].get(path, _NOTHING) for each in flat):
            yield [path, *cells]


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value


def _cell(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _best_rows(name: str, logs: Sequence[RunLog]) -> Iterator[list[str]]:
    least = {log.least_is_best(name) for log in logs}
    found = [log.best(name) for log in logs]
    values = [best[1] for best in found if best is not None]
    if not values:
        return
    # Runs that disagree on what is better have no winner.
    winner = None if len(least) > 1 or len(logs) < 2 else min(values) if least == {True} else max(values)
    yield [
        f"best {name}",
        *(
            _NOTHING if best is None else f"{_number(best[1])} at {best[0]}{' *' if best[1] == winner else ''}"
            for best in found
        ),
    ]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "not known"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


__all__ = ["compare", "logs"]

"""What a run has written into its work directory, read again: its log, its curves, its config, and whether it goes on."""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from treenail.adapters.logging.rotating import rotated
from treenail.kernel import ConfigError

_ABOUT: Final = frozenset({"step", "epoch", "commit", "attempt", "event", "level", "timestamp"})
"""Fields of a line that are no scalars."""
_RECENT: Final = 10
"""Records of the training whose mean time of a step says how long the rest takes."""
_ENDS: Final = ("finished", "stopped", "failed")
_EVENTS: Final = (*_ENDS, "resumed", "environment")
"""Lines of a log that are no records."""


class Point(NamedTuple):
    """Scalars that a run published at a step.

    Args:
        step: Training steps committed then.
        epoch: Epochs completed then.
        attempt: Which attempt of the run published them, where that is known.
        values: By name; what was not finite is NaN.
    """

    step: int
    epoch: int
    attempt: int | None
    values: Mapping[str, float]


class RunLog:
    """What a run has written, as it was when it is asked for first; the run may still be under way.

    Args:
        work_dir: The run's directory.

    Raises:
        ConfigError: There is no such directory, or no run has logged anything there.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = Path(work_dir)
        if not self.work_dir.is_dir():
            raise ConfigError(
                "there is no such directory", where=str(work_dir), mend="name the work directory of a run"
            )
        if not self._curve_files and not rotated(self.work_dir / "log.jsonl"):
            raise ConfigError(
                "no run has logged anything here",
                where=str(work_dir),
                mend="name the work directory of a run: work_dirs/CONFIG/001",
            )

    @cached_property
    def _curve_files(self) -> list[Path]:
        return sorted(self.work_dir.glob("*/scalars.jsonl"))

    def lines(self, rank: int = 0) -> list[Mapping[str, Any]]:  # Any: what JSON holds
        """Return the lines of the log of a rank, all attempts one after the other; a line that a crash tore is left out.

        Args:
            rank: The rank; others than 0 write a log where ``distributed.rank_logs`` says so.
        """
        name = "log.jsonl" if rank == 0 else f"log.rank{rank}.jsonl"
        return [line for path in rotated(self.work_dir / name) for line in _json_lines(path)]

    @cached_property
    def ending(self) -> Mapping[str, Any] | None:  # Any: what JSON holds
        """How the last attempt ended: the log's last line, if its event is ``finished``, ``stopped`` or ``failed``; else None."""
        lines = self.lines()
        return lines[-1] if lines and lines[-1].get("event") in _ENDS else None

    @cached_property
    def points(self) -> list[Point]:
        """The scalars in their order, without what attempts published after the checkpoint that the next one went on from.

        They come from the curves (``NAME/scalars.jsonl``), or, of attempts that wrote none, from the log, which may have
        left some out.
        """
        curves = _json_lines(self._curve_files[0]) if self._curve_files else ()
        found = [point for line in curves if (point := _point(line)) is not None]
        drawn = max((point.attempt or 0 for point in found), default=0)
        attempt: int | None = None
        for line in self.lines():
            if line.get("event") == "environment":  # an attempt begins
                attempt, begin = (line.get(name) for name in ("attempt", "from_step"))
                while found and isinstance(begin, int) and (attempt or 0) > drawn and found[-1].step > begin:
                    found.pop()
            point = _point(line)
            if point is None or (self._curve_files and (attempt or 0) <= drawn):
                continue
            point = point._replace(attempt=attempt)
            while found and found[-1].step > point.step:
                found.pop()
            if not (found and found[-1].step == point.step and found[-1].values.keys() == point.values.keys()):
                found.append(point)
        return found

    @property
    def names(self) -> list[str]:
        """The names of the scalars, in the order in which they appeared."""
        return list(dict.fromkeys(name for point in self.points for name in point.values))

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of a scalar.

        Args:
            name: Its name.
        """
        return [(point.step, point.values[name]) for point in self.points if name in point.values]

    @property
    def step(self) -> int:
        """Training steps done, as far as was logged."""
        return self.points[-1].step if self.points else 0

    @property
    def epoch(self) -> int:
        """Epochs completed, as far as was logged."""
        return self.points[-1].epoch if self.points else 0

    @property
    def attempt(self) -> int | None:
        """How often the run was resumed, plus one, where that is known."""
        return max((point.attempt for point in self.points if point.attempt is not None), default=None)

    @cached_property
    def written_config(self) -> Mapping[str, Any] | None:
        """The config as its user wrote it, as one file; None for one in Python.

        Raises:
            ConfigError: (when it is asked for) The file is damaged.
        """
        from treenail.adapters.documents import read_document  # who writes a log needs no YAML

        path = self.work_dir / "config.yaml"
        if not path.exists():
            return None
        data = read_document(path).data
        return data if isinstance(data, dict) else None

    @cached_property
    def plain_config(self) -> Mapping[str, Any] | None:
        """The config as plain data with the full names of its components; None where neither curves nor checkpoints have it."""
        for path in sorted(self.work_dir.glob("*/config.txt")):
            if isinstance(config := _json(path), dict):
                return config
        manifest = self._manifest
        config = manifest.get("config") if manifest else None
        return config if isinstance(config, dict) else None

    @cached_property
    def _manifest(self) -> Mapping[str, Any] | None:
        pointer = self.work_dir / "checkpoints" / "latest"
        try:
            name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None
        if not re.fullmatch(r"[\w-][\w.-]*", name):  # it would lead elsewhere
            return None
        found = _json(pointer.parent / name / "manifest.json")
        return found if isinstance(found, dict) else None

    @property
    def _saved(self) -> tuple[int, int]:
        """Steps and epochs of the latest checkpoint; (0, 0) if there is none."""
        step, epoch = ((self._manifest or {}).get(name) for name in ("step", "epoch"))
        return (step, epoch) if isinstance(step, int) and isinstance(epoch, int) else (0, 0)

    @property
    def saved_step(self) -> int | None:
        """The step of the latest checkpoint in the directory; None if there is none."""
        return self._saved[0] if self._manifest else None

    @property
    def writer(self) -> str | None:
        """Who is writing the directory now: ``process 1 on host …``; None if nobody is, as far as this machine can tell."""
        try:
            holder = (self.work_dir / "lock").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None
        found = re.fullmatch(r"process (\d+) on ([^,]+)(?:, .+)?", holder)
        if found is None or found[2] != socket.gethostname():
            return holder or "another process"
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return None  # it was killed
        except OSError:
            return holder  # it is another user's
        return holder

    @property
    def total_steps(self) -> int | None:
        """Training steps of the whole run, by its config; None where the config, or what was logged, does not tell.

        That of a number of epochs is known once one is over; it is exact if something was logged or saved at the end of one.
        """
        config = self.written_config or self.plain_config or {}
        loop = config.get("loop")
        steps, epochs = (loop.get(name) if isinstance(loop, dict) else None for name in ("max_steps", "max_epochs"))
        if isinstance(steps, int):
            return steps
        # In the midst of an epoch more steps are done than those of the epochs completed: the least quotient is nearest.
        lengths = [
            step / epoch for step, epoch in [*((each.step, each.epoch) for each in self.points), self._saved] if epoch
        ]
        return round(epochs * min(lengths)) if isinstance(epochs, int) and lengths else None

    @property
    def is_finished(self) -> bool | None:
        """Whether all training steps are done, as far as was logged or saved; None where their number is not known."""
        total = self.total_steps
        return None if total is None else max(self.step, self._saved[0]) >= total

    @property
    def seconds_left(self) -> float | None:
        """How long the training steps that are left take, at the pace of the last ones, of an earlier attempt even."""
        times = [value for _, value in self.curve("time")][-_RECENT:]
        total = self.total_steps
        return None if total is None or not times else max(total - self.step, 0) * sum(times) / len(times)

    @property
    def training_seconds(self) -> float | None:
        """How long the training steps took, without validation and what lay between attempts; None where no time was logged."""
        curve = self.curve("time")
        if not curve:
            return None
        steps = [0, *(step for step, _ in curve)]
        return sum((step - before) * time for (step, time), before in zip(curve, steps, strict=False))

    def least_is_best(self, name: str) -> bool:
        """Return whether a smaller value of a metric is better: as the hook ``best`` says, or else by the metric's name.

        Args:
            name: The metric.
        """
        hooks = (self.written_config or self.plain_config or {}).get("hooks")
        for hook in hooks.values() if isinstance(hooks, dict) else ():
            if isinstance(hook, dict) and hook.get("metric") == name and hook.get("mode") in ("min", "max"):
                return bool(hook["mode"] == "min")
        return (
            re.search(r"loss|err|perplexity|ppl|(^|[/_])(mae|mse|rmse|nll|fid|wer|cer)($|[/_])", name.lower())
            is not None
        )

    def best(self, name: str) -> tuple[int, float] | None:
        """Return (step, value) of the best value of a metric, the first of equals; None if none is finite.

        Args:
            name: The metric.
        """
        sign = 1 if self.least_is_best(name) else -1
        found = [point for point in self.curve(name) if math.isfinite(point[1])]
        return min(found, key=lambda point: sign * point[1], default=None)


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:  # torn by a crash, or being written
                continue
            if isinstance(found, dict):
                yield found


def _json(path: Path) -> object:
    try:
        return cast(object, json.loads(path.read_bytes()))
    except (OSError, ValueError):  # of a run that was killed in the midst of it, or somebody else's file
        return None


def _point(line: Mapping[str, Any]) -> Point | None:
    if line.get("event") in _EVENTS:
        return None
    step, epoch, attempt = line.get("step"), line.get("epoch"), line.get("attempt")
    if not isinstance(step, int) or not isinstance(epoch, int):
        return None
    values = {
        name: math.nan if value is None else float(value)  # JSON has no NaN, it is written as null
        for name, value in line.items()
        if name not in _ABOUT and (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))
    }
    return Point(step, epoch, attempt if isinstance(attempt, int) else None, values)

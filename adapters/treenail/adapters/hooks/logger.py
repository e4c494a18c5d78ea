"""Turns steps into log lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Annotated, get_args

import torch
from msgspec import Meta
from structlog.typing import FilteringBoundLogger
from torch import Tensor

from treenail.adapters.comm import all_reduce_dict
from treenail.adapters.hooks.nonfinite import updaters_of
from treenail.adapters.logging import JsonLog, Level, record_environment, terminal_logger
from treenail.adapters.optim import OptimWrapper
from treenail.contracts import StepOutput
from treenail.kernel import Communicator, Engine, Hook, Record, TrainingError


class LoggerHook(Hook):
    """Publishes the means since the last record, every `interval` steps and at the end of an epoch, and logs what is committed.

    Published are the loss and what else a step tells (``train/loss``, ``train/grad_norm`` …, weighted by batch sizes), the
    meters and the gauges (``lr`` …); what validation and test publish is logged, too. Steps in which an optimizer skipped its
    update do not count; once there was one, ``skipped_steps`` says how many updates. Lines for people say of how many steps
    (``of``), where that is known, and how long the rest of them take at the mean pace of this attempt (``eta``), without
    validation and saving.

    Args:
        interval: Steps between records, counted over the whole run.
        least_seconds: Least time between two lines of the training; 0 logs all. The curves have every record.
        terminal: A structlog logger for people; one that writes to standard error when None.
        log_file: A file that gets the same lines as JSON.
        communicator: The ranks of the run: means are over all of them, and only rank 0 writes to the terminal.
        max_bytes: How large the file may become before it gives way to a new one, ``log.jsonl.1`` and so on; None: without end.
        keep: How many earlier files stay then.
        environment: What else is to be known of the run, such as its seed. It is written to the file once an attempt, with what
            this process runs on, and into ``environment.jsonl`` beside the file; None writes neither.
        log_level: The least level that is said to people; lines are of INFO. The file has all of them.

    Raises:
        ValueError: The interval or max_bytes is below 1, keep below 0, or there is no such level.
        TrainingError: (while training) the loss of a step that was not skipped is not finite; the message says which.
    """

    priority = 60

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 10,
        least_seconds: float = 1.0,
        terminal: FilteringBoundLogger | None = None,
        log_file: Path | None = None,
        communicator: Communicator | None = None,
        max_bytes: Annotated[int, Meta(ge=1)] | None = None,
        keep: Annotated[int, Meta(ge=0)] = 5,
        environment: Mapping[str, object] | None = None,
        log_level: Level = "INFO",
    ) -> None:
        if log_level not in get_args(Level):
            raise ValueError(f"log_level is {log_level!r}, must be one of {', '.join(get_args(Level))}")
        for name, value, least in (("interval", interval, 1), ("max_bytes", max_bytes, 1), ("keep", keep, 0)):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, must be at least {least}")
        self.interval = interval
        self.least_seconds = least_seconds
        self._terminal = terminal or terminal_logger(level=log_level)
        self._log_file = log_file
        self._max_bytes, self._keep = max_bytes, keep
        self._environment = environment
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._json: JsonLog | None = None
        self._subscribed = False
        self._due = 0.0
        self._updaters: list[OptimWrapper] = []
        self._counted = self._skipped = 0
        self._waits = False
        self._total_steps: Callable[[], int | None] = lambda: None
        self._timed = _Timed(0)
        self._losses: list[Tensor | float] = []  # one a step of the window, to find where one went wrong

    def before_run(self, engine: Engine) -> None:
        """Open the file and listen to what is committed."""
        if self._log_file is not None:
            self._json = JsonLog(self._log_file, max_bytes=self._max_bytes, keep=self._keep)
        if not self._subscribed:
            engine.subscribe(self._log)
            self._subscribed = True

    def before_train(self, engine: Engine) -> None:
        """Begin with what a checkpoint has counted, and write down what this attempt runs on."""
        self._losses.clear()
        self._total_steps = lambda: engine.total_steps
        self._timed = _Timed(engine.step)
        self._waits = bool(engine.meters.state_dict())
        self._updaters = list(updaters_of(engine))
        self._counted = self._skipped = sum(updater.skipped for updater in self._updaters)
        self._offer_skipped(engine)
        if self._environment is not None and self._json is not None and self._log_file is not None:
            report = record_environment(
                self._log_file.parent, {"attempt": engine.attempt, "from_step": engine.step, **self._environment}
            )
            self._json.logger.info("environment", **report)

    def _offer_skipped(self, engine: Engine) -> None:
        if self._skipped:
            engine.meters.gauges["skipped_steps"] = lambda: float(self._skipped)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Take what the step tells, and publish if it is time."""
        self._waits = True
        loss: Tensor | float = 0.0
        if isinstance(outputs, StepOutput):
            told, weight, stepped, logs = outputs
            counted = 0
            for updater in self._updaters:
                counted += updater.skipped
            # A step of several optimizers was made though one of them skipped its update: its loss is none to be averaged.
            if counted != self._counted or not stepped:
                self._skipped += counted - self._counted or 1
                self._counted = counted
                self._offer_skipped(engine)
            else:
                loss = told
                engine.meters.add("train/loss", loss, weight)
                if logs:
                    for name, value in logs.items():
                        engine.meters.add(f"train/{name}", value, weight)
        self._losses.append(loss)
        if self._is_due(engine, batch_index):
            self._publish(engine, engine.step + 1)

    def _is_due(self, engine: Engine, batch_index: int) -> bool:
        """Return whether a record follows the step under way."""
        return (engine.step + 1) % self.interval == 0

    def after_train_epoch(self, engine: Engine) -> None:
        """Publish what is left."""
        if self._waits or engine.step % self.interval:
            self._publish(engine, engine.step)

    def _publish(self, engine: Engine, step: int) -> None:
        if self._ranks is not None:
            self._share(engine, self._ranks)
        values = engine.meters.drain()
        loss = values.get("train/loss", 0.0)
        if not isfinite(loss):
            first, steps = self._first_lost(step), len(self._losses)
            lost = [
                name.removeprefix("train/") for name, each in values.items() if "loss_" in name and not isfinite(each)
            ]
            raise TrainingError(
                f"the loss became {loss} {f'in the {steps} steps up to' if steps > 1 else 'by'} step {step}"
                + (f", first in step {first}" if first else "")
                + (f"; not finite: {', '.join(lost)}" if lost else ""),
                mend="lower the learning rate, or check the data and the loss; the hook 'nonfinite' can stop at the step "
                "itself, skip it or go back",
            )
        self._losses.clear()
        self._waits = False
        engine.publish(self._completed(engine, values))

    def _completed(self, engine: Engine, values: dict[str, float]) -> dict[str, float]:
        """Return a record of the training with what else belongs in it."""
        return values

    def _first_lost(self, last: int) -> int | None:
        """Return the first step of the window up to `last` whose loss is not finite, on any rank, if it was in this process."""
        none = 2**62
        steps = range(last - len(self._losses) + 1, last + 1)
        first = next((step for step, loss in zip(steps, self._losses, strict=True) if not isfinite(loss)), none)
        if self._ranks is not None:  # the mean over all ranks is not finite, so that all of them are here
            first = int(self._ranks.all_reduce(torch.tensor([first]), "min").item())
        return None if first == none else first

    @staticmethod
    def _share(engine: Engine, ranks: Communicator) -> None:
        """Let the meters hold what those of all ranks do."""
        windows = {
            name: torch.tensor(pair, dtype=torch.float64)
            for name, pair in engine.meters.state_dict().items()
            if isinstance(pair, list)
        }
        sums = all_reduce_dict(ranks, windows)
        engine.meters.load_state_dict({name: pair.tolist() for name, pair in sums.items()})

    def _log(self, record: Record) -> None:
        kind = "train"
        for name in record.values:
            if "/" in name:
                kind = name.partition("/")[0]
                break
        if (seconds := record.values.get("time")) is not None:
            self._timed.add(record.step, seconds)
        if kind in {"train", "ranks"}:
            now = perf_counter()
            if now < self._due:
                return
            self._due = now + self.least_seconds
        if self._json is not None:
            self._json.logger.info(kind, **{**record.values, "step": record.step, "epoch": record.epoch})
        if self._ranks is None or self._ranks.rank == 0:
            self._show(kind, record)

    def _show(self, kind: str, record: Record) -> None:
        """Write a record for people."""
        values = {name: float(f"{value:.4g}") for name, value in record.values.items()}
        total = self._total_steps() if kind == "train" else None
        of = {} if total is None else {"of": total}
        left = None if total is None else self._timed.left(total)
        eta = {} if left is None else {"eta": str(timedelta(seconds=round(left)))}
        self._terminal.info(kind, **{"step": record.step, **of, "epoch": record.epoch, **eta, **values})

    def after_run(self, engine: Engine) -> None:
        """Close the file."""
        self._close()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self._json is not None:
            self._json.close()
            self._json = None


class _Timed:
    """How long the steps of an attempt took, as far as that was recorded.

    Args:
        step: At which it began.
    """

    def __init__(self, step: int) -> None:
        self._begin = self._step = step
        self._seconds = 0.0

    def add(self, step: int, seconds: float) -> None:
        """Take the mean time of the steps up to one."""
        self._seconds += seconds * (step - self._step)
        self._step = step

    def left(self, total: int) -> float | None:
        """Return how many seconds the steps take that are left of so many; None where no time is known."""
        steps = self._step - self._begin
        return max(total - self._step, 0) * self._seconds / steps if steps and self._seconds else None

"""mmengine's log lines, and its choice of when they come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sized
from copy import copy
from numbers import Real
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

from msgspec import Meta, Struct
from msgspec.structs import asdict

from treenail.adapters.files import current_mounts
from treenail.adapters.hooks.compat.runner import Runner, runner_of
from treenail.adapters.hooks.compat.runtime_info import RuntimeInfoHook
from treenail.adapters.hooks.compat.timer import IterTimerHook
from treenail.adapters.hooks.logger import LoggerHook as RecordHook
from treenail.adapters.hooks.timer import TimerHook
from treenail.adapters.logging.compat import LogProcessor, MMLogger
from treenail.kernel import Communicator, Engine, Hook, HookError, Record, TreenailError, did_you_mean

_UNNAMED: Final = ("time", "data_time", "memory")
"""Of the training, without ``train/`` in records of ours."""
_RATE: Final = re.compile(r"(.+\.)?(base_)?lr")
"""What `RuntimeInfoHook` calls learning rates, which are ``lr`` and ``lr/GROUP`` in records of ours."""
_COUNTS: Final = ("epoch", "iter")
"""What each record has besides its values."""
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_NOT_LOGS: Final = ("checkpoints",)
"""Directories below a work directory that are copied nowhere."""
_EARLIER: Final = re.compile(r"\.\d+$")
"""How the name of a full log ends, ``NAME.log.1``."""


class LineFormat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lines say: the arguments of `LogProcessor`.

    Args:
        window_size: Iterations over which to take a mean.
        by_epoch: Whether lines count iterations in epochs; None: as the training does.
        custom_cfg: Other statistics: data_src, method_name, and perhaps log_name, window_size and what the statistic takes.
        num_digits: Digits after the point.
        log_with_hierarchy: Of no meaning for lines; names in records are those of ours.
        mean_pattern: Regular expression of the names that are shown as means.
    """

    window_size: Annotated[int, Meta(ge=1)] = 10
    by_epoch: bool | None = None
    custom_cfg: tuple[Mapping[str, Any], ...] = ()  # Any: what a statistic takes is known to the one who names it
    num_digits: Annotated[int, Meta(ge=0)] = 4
    log_with_hierarchy: bool = False
    mean_pattern: str = r".*(loss|time|data_time|grad_norm).*"


class LoggerHook(RecordHook):
    """Our `LoggerHook` with mmengine's lines, at mmengine's times, under its name and with its arguments.

    Lines come from a `LogProcessor` and the run's message hub, which `RuntimeInfoHook` and `IterTimerHook` feed; those that the
    run lacks are attached when it begins. They go to standard output and, in a work directory, to
    ``TIMESTAMP/TIMESTAMP.log``. The curves and ``log.jsonl`` have the same records as with our own hook, at the times of the
    lines, and the statistics of custom_cfg. On many ranks those records are of all ranks, lines are of rank 0.

    Args:
        interval: Iterations between lines, counted in each epoch, or over the run where lines count so.
        ignore_last: No line at an epoch's end for less than `interval` iterations, unless it has not more in all.
        interval_exp_name: Iterations between lines that say the experiment's name; it is said at the end of each epoch, too.
        out_dir: Directory or URI below which files of the work directory are copied into a directory of its name when the run
            has ended well; checkpoints are left out.
        out_suffix: How the names of those files end, but for the number of a log that gave way to a new one. ``.json`` is meant
            to have what JSON lines files have, too.
        keep_local: Whether they stay in the work directory as well.
        file_client_args: Must be None: the config's ``files`` says how stores are reached.
        log_metric_by_epoch: Of no meaning: a record of a validation has both epoch and step, and whoever reads it chooses.
        backend_args: Must be None, too.
        log_processor: What lines say, or what makes them: a `LogProcessor`, or an object of a class derived from it.
        log_level: The least level that the run's logger says and writes; its lines are of INFO.
        log_file: As of our hook, and so are those below.
        communicator: The ranks.
        max_bytes: How large a file of a log may become before it gives way to a new one.
        keep: How many earlier files stay then.
        environment: What else is to be known of the run.

    Raises:
        ValueError: An interval, max_bytes or keep is too small, what must be None is not, or a statistic is none.
    """

    runner_view: Runner | None = None

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 10,
        ignore_last: bool = True,
        interval_exp_name: Annotated[int, Meta(ge=1)] = 1000,
        out_dir: str | None = None,
        out_suffix: str | tuple[str, ...] = (".json", ".log", ".py", ".yaml"),
        keep_local: bool = True,
        file_client_args: Mapping[str, str] | None = None,
        log_metric_by_epoch: bool = True,
        backend_args: Mapping[str, str] | None = None,
        *,
        log_processor: LineFormat | LogProcessor | None = None,
        log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO",
        log_file: Path | None = None,
        communicator: Communicator | None = None,
        max_bytes: Annotated[int, Meta(ge=1)] | None = None,
        keep: Annotated[int, Meta(ge=0)] = 5,
        environment: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(
            interval,
            0.0,
            log_file=log_file,
            communicator=communicator,
            max_bytes=max_bytes,
            keep=keep,
            environment=environment,
        )
        if interval_exp_name < 1:
            raise ValueError(f"interval_exp_name is {interval_exp_name}, must be at least 1")
        for name, value in (("file_client_args", file_client_args), ("backend_args", backend_args)):
            if value is not None:
                raise ValueError(f"{name} must be None; say in files.schemes of the config how stores are reached")
        self.ignore_last = ignore_last
        self.interval_exp_name = interval_exp_name
        self.out_dir = out_dir
        self.out_suffix = (out_suffix,) if isinstance(out_suffix, str) else tuple(out_suffix)
        self.keep_local = keep_local
        self.log_metric_by_epoch = log_metric_by_epoch
        if log_level not in _LEVELS:
            raise ValueError(f"log_level is {log_level!r}, must be one of {', '.join(_LEVELS)}")
        self.log_level = log_level
        self._by_epoch = True if log_processor is None else log_processor.by_epoch
        if not isinstance(log_processor, LogProcessor):
            settings = asdict(log_processor or LineFormat())
            self._by_epoch = settings.pop("by_epoch")
            try:
                log_processor = LogProcessor(by_epoch=self._by_epoch is not False, **settings)
            except TreenailError as error:
                raise ValueError(f"log_processor.{error}") from None
        self.processor = log_processor
        self._batch = 0
        self._misses = bool(log_processor.custom_cfg)  # whether a scalar that a statistic is of may be misspelt
        self._known: dict[str, int] = {}  # how many values each scalar had when an evaluation began
        self._recorded: dict[str, int] = {}  # the same when the last record was made
        self._custom = {str(each.get("log_name", each["data_src"])) for each in log_processor.custom_cfg}
        self._lines: dict[frozenset[str], str] = {}  # by the names of a record, until it is committed
        self._logger: MMLogger | None = None

    def before_run(self, engine: Engine) -> None:
        """Open the files, and see to it that somebody feeds the hub."""
        super().before_run(engine)
        runner = runner_of(engine, self)
        has = {
            kind: any(isinstance(hook, kind) for hook in engine.hooks.values())
            for kind in (RuntimeInfoHook, IterTimerHook, TimerHook)
        }
        lacking: list[tuple[str, Hook]] = [] if has[RuntimeInfoHook] else [("runtime_info", RuntimeInfoHook())]
        if has[TimerHook] and not has[IterTimerHook]:  # who has removed the timer wants no times
            lacking.append(("iter_timer", IterTimerHook()))
        for name, hook in lacking:
            engine.attach(hook, name)
            hook.before_run(engine)
        runner.log_processor = self.processor
        if self._speaks and (self._log_file is not None or self.log_level != "INFO"):
            self._logger = runner.logger = MMLogger.get_instance(
                f"{runner.timestamp}-{uuid4().hex[:8]}",  # runs may begin within a second
                log_file=self._log_file.parent / f"{runner.timestamp}.log" if self._log_file is not None else None,
                log_level=self.log_level,
                file_mode="a",
                max_bytes=self._max_bytes,
                keep=self._keep,
            )

    def before_train(self, engine: Engine) -> None:
        """Find out how the training counts.

        Raises:
            HookError: Lines shall count epochs, and the training does not.
            ConflictError: A statistic is not known, or takes other arguments.
        """
        super().before_train(engine)
        self.processor.check_statistics()
        self._lines.clear()
        self._recorded = self._updates(engine)
        counts_epochs = isinstance(getattr(engine.parts.get("loop"), "max_epochs", None), int)
        if self._by_epoch and not counts_epochs:
            raise HookError(
                "lines shall count iterations in epochs, and the training has none",
                where="log_processor.by_epoch",
                mend="set it to false, or leave it out",
            )
        if self._by_epoch is None:
            self.processor.by_epoch = counts_epochs

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Take what the step tells; publish it, and make a line of it, if it is time."""
        self._batch = batch_index
        if (engine.step + 1) % self.interval_exp_name == 0 or batch_index + 1 == _epoch_length(engine):
            runner = runner_of(engine, self)
            if self._speaks and hasattr(runner, "experiment_name"):
                runner.logger.info(f"Exp name: {runner.experiment_name}")
        super().after_train_iter(engine, batch_index, batch, outputs)

    def before_train_epoch(self, engine: Engine) -> None:
        """Look for misspelt names once an epoch is over, with its validation."""
        if self._batch:
            self._warn_of_missing(engine)

    def after_train_epoch(self, engine: Engine) -> None:
        """Leave the last iterations alone: whether they are logged was decided at the last one."""

    def after_train(self, engine: Engine) -> None:
        """Look for misspelt names if that was not done before."""
        self._warn_of_missing(engine)

    def _warn_of_missing(self, engine: Engine) -> None:
        """Say once which scalars nobody has told of so far though a statistic is of them."""
        if not self._misses or not self._speaks:
            return
        self._misses = False
        runner = runner_of(engine, self)
        told = {name.partition("/")[2] for name in runner.message_hub.log_scalars}
        for source in dict.fromkeys(str(each["data_src"]) for each in self.processor.custom_cfg):
            if source not in told:
                mend = did_you_mean(source, told) or f"there are {', '.join(sorted(told)) or 'none'}"
                runner.logger.warning(f"custom_cfg: no scalar is called '{source}' so far; {mend}")

    def _is_due(self, engine: Engine, batch_index: int) -> bool:
        done = batch_index + 1 if self.processor.by_epoch else engine.step + 1
        if done % self.interval == 0:
            return True
        length = _epoch_length(engine)
        return batch_index + 1 == length and (not self.ignore_last or length <= self.interval)

    def _completed(self, engine: Engine, values: dict[str, float]) -> dict[str, float]:
        tag, line = self.processor.get_log_after_iter(runner_of(engine, self), self._batch, "train")
        hub = runner_of(engine, self).message_hub.log_scalars
        record = dict(values)
        for shown, value in tag.items():
            name = shown.removeprefix("train/")
            if not isinstance(value, Real) or name in _COUNTS or (_RATE.fullmatch(name) and "lr" in _kinds(values)):
                continue
            # Means of what steps tell are over all ranks already; of the rest, what was told since the last record counts.
            own = name if name in _UNNAMED or _RATE.fullmatch(name) else f"train/{name}"
            history = hub.get(f"train/{name}")
            new = history is None or history.updates != self._recorded.get(f"train/{name}")
            if name in self._custom or (new and own not in values):
                record[own] = float(value)
        self._recorded = self._updates(engine)
        self._lines[frozenset(record)] = line
        return record

    def before_val_epoch(self, engine: Engine) -> None:
        """Remember what is known from before."""
        self._remember(engine)

    def before_test_epoch(self, engine: Engine) -> None:
        """Remember what is known from before."""
        self._remember(engine)

    def _remember(self, engine: Engine) -> None:
        self._known = self._updates(engine)

    def _updates(self, engine: Engine) -> dict[str, int]:
        """Return how many values each scalar of the hub had so far."""
        scalars = runner_of(engine, self).message_hub.log_scalars
        return {name: history.updates for name, history in scalars.items()}

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Say how far a validation is."""
        self._say_iteration(engine, batch_index, "val")

    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Say how far a test is."""
        self._say_iteration(engine, batch_index, "test")

    def _say_iteration(self, engine: Engine, batch_index: int, mode: Literal["val", "test"]) -> None:
        self._batch = batch_index
        if (batch_index + 1) % self.interval == 0 and self._speaks:
            runner = runner_of(engine, self)
            run = _Evaluating(runner, self._known)
            runner.logger.info(self.processor.get_log_after_iter(run, batch_index, mode)[1])

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Make a line of the metrics."""
        self._say_metrics(engine, "val", metrics)

    def after_test_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Make a line of the metrics."""
        self._say_metrics(engine, "test", metrics)

    def _say_metrics(self, engine: Engine, mode: Literal["val", "test"], metrics: Mapping[str, float]) -> None:
        # A metric is shown as it is: no mean of it and those of earlier evaluations, though its name may be loss.
        of_metrics = copy(self.processor)
        of_metrics.mean_pattern = re.compile("(?!)")
        line = of_metrics.get_log_after_epoch(runner_of(engine, self), self._batch, mode)[1]
        self._lines[frozenset(metrics)] = line

    def _show(self, kind: str, record: Record) -> None:
        logger = self._logger or MMLogger.get_current_instance()
        values = "  ".join(f"{name}: {value:.4g}" for name, value in record.values.items())  # of somebody else
        logger.info(self._lines.pop(frozenset(record.values), f"{kind}  {values}"))

    @property
    def _speaks(self) -> bool:
        return self._ranks is None or self._ranks.rank == 0

    def after_run(self, engine: Engine) -> None:
        """Close the files, and copy them."""
        super().after_run(engine)
        if self.out_dir is not None and self._log_file is not None and self._speaks:
            self._copy(self._log_file.parent, self.out_dir)

    def _copy(self, work_dir: Path, out_dir: str) -> None:
        place = current_mounts().resolve(out_dir)
        endings = tuple({*self.out_suffix, *([".jsonl"] if ".json" in self.out_suffix else [])})
        copies = Path(out_dir).resolve()  # one below the work directory is not copied into itself
        for path in sorted(work_dir.rglob("*")):
            relative = path.relative_to(work_dir)
            name = _EARLIER.sub("", path.name)
            if not name.endswith(endings) or relative.parts[0] in _NOT_LOGS or path.resolve().is_relative_to(copies):
                continue
            if path.is_file():
                parts = [place.path, work_dir.resolve().name, relative.as_posix()]
                place.backend.write("/".join(filter(None, parts)), path.read_bytes())
                if not self.keep_local:
                    path.unlink()

    def _close(self) -> None:
        super()._close()
        if self._logger is not None:
            self._logger.close()
            self._logger = None


class _Evaluating:
    """A run in the midst of an evaluation: what the one before it found is not shown."""

    def __init__(self, runner: Runner, known: Mapping[str, int]) -> None:
        self._runner = runner
        self._known = known

    def __getattr__(self, name: str) -> Any:  # Any: of a run, whatever it is
        return getattr(self._runner, name)

    @property
    def message_hub(self) -> Any:  # Any: of a hub, just what a line needs
        hub = self._runner.message_hub
        scalars = {
            name: history for name, history in hub.log_scalars.items() if history.updates != self._known.get(name)
        }
        return SimpleNamespace(log_scalars=scalars, runtime_info=hub.runtime_info)


def _kinds(names: Iterable[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


def _epoch_length(engine: Engine) -> int | None:
    """Return the steps of an epoch, where they are known."""
    length = getattr(engine.parts.get("loop"), "epoch_length", None)
    batches = engine.parts.get("batches")
    try:
        return length if isinstance(length, int) or not isinstance(batches, Sized) else len(batches)
    except TypeError:  # nobody knows how many there are
        return None

"""Records what the first steps of a training spend their time on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from msgspec import Meta
from structlog.typing import FilteringBoundLogger
from torch.profiler import ProfilerAction, ProfilerActivity, profile, schedule

from treenail.adapters.logging import terminal_logger
from treenail.kernel import Communicator, Engine, Hook

Activity = Literal["cpu", "cuda", "xpu"]

_ACTIVITIES: Final = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
_RECORDS: Final = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class ProfilerHook(Hook):
    """Runs torch's profiler over some steps of each attempt, and writes a trace and a table of each recording.

    In ``WORK_DIR/profile``: ``step-N-M.rank0.json.gz``, for https://ui.perfetto.dev or chrome://tracing, and
    ``step-N-M.rank0.txt``, the operators that took longest; N and M are the first and the last recorded step. The
    profiler leaves out `skip_first` steps, and then, `repeat` times, waits, warms up and records
    (https://docs.pytorch.org/docs/stable/profiler.html). After the last recording it costs nothing. Of a run that ends
    before, what has been recorded is written.

    Args:
        directory: Where the files go; ``WORK_DIR/profile``, when it is a run's.
        skip_first: Steps left out at the beginning of an attempt.
        wait: Steps before each warm-up.
        warmup: Steps that are profiled and thrown away, since the profiler's own start distorts them.
        active: Steps recorded.
        repeat: How many recordings.
        activities: What is recorded; None: the processor, and the GPU where there is one.
        record_shapes: Record the shapes of operators' inputs.
        with_stack: Record the lines of source that called operators.
        profile_memory: Record how much memory operators took and gave back.
        row_limit: Rows of the table.
        all_ranks: Profile every rank, not only rank 0.
        communicator: The ranks of the run.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: An argument is out of its range, or an activity is unknown here.
    """

    priority = 1  # its steps end before other hooks work, which then count to the next step

    def __init__(
        self,
        directory: Path = Path("profile"),
        skip_first: Annotated[int, Meta(ge=0)] = 2,
        wait: Annotated[int, Meta(ge=0)] = 0,
        warmup: Annotated[int, Meta(ge=0)] = 1,
        active: Annotated[int, Meta(ge=1)] = 3,
        repeat: Annotated[int, Meta(ge=1)] = 1,
        activities: Sequence[Activity] | None = None,
        *,
        record_shapes: bool = False,
        with_stack: bool = False,
        profile_memory: bool = False,
        row_limit: Annotated[int, Meta(ge=1)] = 50,
        all_ranks: bool = False,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if min(skip_first, wait, warmup) < 0 or min(active, repeat, row_limit) < 1:
            raise ValueError(
                f"{skip_first=}, {wait=} and {warmup=} must be at least 0, {active=}, {repeat=} and {row_limit=} at least 1"
            )
        here = torch.profiler.supported_activities()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        supported = {name for name, each in _ACTIVITIES.items() if each in here}
        chosen = ["cpu", *sorted(supported - {"cpu"})] if activities is None else list(activities)
        if not chosen or not supported.issuperset(chosen):
            raise ValueError(f"activities are {chosen}, must be some of {', '.join(sorted(supported))} on this machine")
        self.directory = Path(directory)
        self._schedule = schedule(skip_first=skip_first, wait=wait, warmup=warmup, active=active, repeat=repeat)
        self._last = skip_first + repeat * (wait + warmup + active)
        self._active = active
        self._activities = chosen
        self._record_shapes = record_shapes
        self._with_stack = with_stack
        self._profile_memory = profile_memory
        self._row_limit = row_limit
        rank = 0 if communicator is None else communicator.rank
        self._rank = rank
        self._wanted = rank == 0 or all_ranks
        self._terminal = terminal or terminal_logger()
        self._profiler: profile | None = None
        self._begun = False
        self._steps = 0
        self._engine_step = 0

    def before_train(self, engine: Engine) -> None:
        """Start the profiler, once in a process."""
        if self._begun or not self._wanted:
            return
        self._begun = True
        self._engine_step = engine.step
        self._profiler = profile(
            activities=[_ACTIVITIES[name] for name in self._activities],
            schedule=self._schedule,
            on_trace_ready=self._write,
            record_shapes=self._record_shapes,
            with_stack=self._with_stack,
            profile_memory=self._profile_memory,
        )
        self._profiler.start()

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Tell the profiler that a step is over."""
        if self._profiler is not None:
            self._steps += 1
            self._profiler.step()
            if self._steps == self._last:
                self._stop()

    def after_train(self, engine: Engine) -> None:
        """Write what was recorded of a training that is over before the last recording."""
        self._stop()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Write what was recorded."""
        self._stop()

    def _stop(self) -> None:
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.stop()

    def _write(self, profiler: profile) -> None:
        count = self._recorded()
        if not count:  # it ended in front of the first step that was to be recorded
            return
        last = self._engine_step + self._steps
        stem = f"step-{last - count + 1}-{last}.rank{self._rank}"
        sort = "self_cpu_time_total" if self._activities == ["cpu"] else "self_device_time_total"
        table = profiler.key_averages().table(sort_by=sort, row_limit=self._row_limit)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(self.directory / f"{stem}.json.gz"))
            (self.directory / f"{stem}.txt").write_text(table, encoding="utf-8")
        except (OSError, RuntimeError) as error:  # no reason to end a training
            self._terminal.warning("profile not written", path=str(self.directory), error=str(error), step=last)
        else:
            self._terminal.info("profile written", path=str(self.directory / f"{stem}.json.gz"), step=last)

    def _recorded(self) -> int:
        """Return how many of the last steps are in the recording that is written."""
        count = 0
        while count < min(self._active, self._steps) and self._schedule(self._steps - 1 - count) in _RECORDS:
            count += 1
        return count

"""A progress bar on terminals."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from treenail.contracts import StepOutput
from treenail.kernel import Engine, Hook, Record, require

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class ProgressHook(Hook):
    """Shows epoch, step, loss, learning rate and time left, where the console is a terminal; silent elsewhere.

    Args:
        refresh_per_second: How often the bar is drawn; a step in between costs a clock reading.
        console: Where; rich's default when None.

    Raises:
        MissingDependencyError: rich is not installed.
    """

    priority = 65

    def __init__(self, refresh_per_second: Annotated[float, Meta(gt=0)] = 2.0, console: Console | None = None) -> None:
        if refresh_per_second <= 0:
            raise ValueError(f"refresh_per_second is {refresh_per_second}, must be positive")
        require("rich", extra="train", purpose="the progress bar")
        from rich.console import Console

        self._console = console or Console()
        self._interval = 1.0 / refresh_per_second
        self._due = 0.0
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = ""
        if not self._console.is_terminal:
            self.idle = ("after_train_iter",)

    def before_train(self, engine: Engine) -> None:
        """Draw the bar."""
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        left = (TextColumn("ETA"), TimeLeft(), TextColumn("{task.fields[shown]}"))
        self._progress = Progress(*columns, *left, console=self._console, auto_refresh=False)
        self._task = self._progress.add_task("training", total=engine.total_steps, completed=engine.step, shown="")
        self._progress.start()
        engine.subscribe(self._show)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Redraw if it is time."""
        if self._progress is None or (now := perf_counter()) < self._due or self._task is None:
            return
        self._due = now + self._interval
        loss = f"loss {float(outputs.loss):.4f} " if isinstance(outputs, StepOutput) else ""
        rates = [f"{name} {gauge():.3g}" for name, gauge in engine.meters.gauges.items() if name.startswith("lr")]
        self._progress.update(
            self._task,
            completed=engine.step + 1,
            description=f"epoch {engine.epoch + 1}",
            shown=loss + " ".join(rates) + self._shown,
        )
        self._progress.refresh()

    def _show(self, record: Record) -> None:
        found = [f" {name} {value:.4f}" for name, value in record.values.items() if name.startswith("val/")]
        if found:
            self._shown = "".join(found)

    def after_train(self, engine: Engine) -> None:
        """Leave the finished bar on the screen."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=engine.step)
            self._progress.refresh()
        self._stop()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

"""Times iterations for the message hub."""

from __future__ import annotations

from time import perf_counter
from typing import Literal

from treenail.adapters.hooks.compat.base import Hook
from treenail.adapters.hooks.compat.runner import Runner
from treenail.adapters.hooks.timer import TimerHook


class IterTimerHook(Hook):
    """Tells the message hub ``time`` and ``data_time`` of each iteration in seconds, and ``eta``, the seconds left.

    Records of ours get their means as from `TimerHook`, in whose place it may stand; where both are attached, nothing is
    logged twice. What is left is reckoned from the iterations of this process alone, so that it is right at once after a resume.
    """

    def __init__(self) -> None:
        self._records = TimerHook()
        self._mark = self._spent = self._evaluation = 0.0
        self._first: int | None = None
        self._saved = False

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        self._records.before_train(runner.running)
        self._first = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._records.before_train_epoch(runner.running)
        self._mark = perf_counter()  # what happened between epochs is no time of an iteration
        self._saved = False

    def before_val(self, runner: Runner) -> None:
        """Stop the clock of the records until the next iteration."""
        self._records.before_val(runner.running)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, object]) -> None:
        """Stop the clock until the next iteration."""
        self._records.before_save_checkpoint(runner.running, checkpoint)
        self._saved = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Tell how long the batch took to come."""
        self._records.before_train_iter(runner.running, batch_idx, data_batch)
        if self._first is None:
            self._first, self._spent = runner.iter, 0.0
        if self._saved:
            self._mark, self._saved = perf_counter(), False
        runner.message_hub.update_scalar("train/data_time", perf_counter() - self._mark)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Tell how long the iteration took, and what is left."""
        self._records.after_train_iter(runner.running, batch_idx, data_batch, outputs)
        now = perf_counter()
        seconds, self._mark = now - self._mark, now
        self._spent += seconds
        runner.message_hub.update_scalar("train/time", seconds)
        done = runner.iter + 1
        if self._first is not None and (total := runner.running.total_steps) is not None:
            left = self._spent / (done - self._first) * (total - done)
            runner.message_hub.update_info("eta", left, resumed=False)

    def before_val_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._mark = self._evaluation = perf_counter()

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Tell how long the batch took to come."""
        runner.message_hub.update_scalar("val/data_time", perf_counter() - self._mark)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        """Tell how long the iteration took, and what is left."""
        self._evaluated(runner, "val", batch_idx)

    def before_test_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._mark = self._evaluation = perf_counter()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Tell how long the batch took to come."""
        runner.message_hub.update_scalar("test/data_time", perf_counter() - self._mark)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Tell how long the iteration took, and what is left."""
        self._evaluated(runner, "test", batch_idx)

    def _evaluated(self, runner: Runner, mode: Literal["val", "test"], batch_idx: int) -> None:
        now = perf_counter()
        runner.message_hub.update_scalar(f"{mode}/time", now - self._mark)
        self._mark = now
        batches = getattr(runner, f"{mode}_dataloader", None)
        if batches is None:  # what is known of the training says nothing here
            runner.message_hub.pop_info("eta")
            return
        done = batch_idx + 1
        try:
            seconds = (now - self._evaluation) / done * (len(batches) - done)
        except TypeError:  # nobody knows how many there are
            runner.message_hub.pop_info("eta")
            return
        runner.message_hub.update_info("eta", seconds, resumed=False)

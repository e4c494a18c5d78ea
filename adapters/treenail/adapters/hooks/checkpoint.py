"""Asks for checkpoints."""

from __future__ import annotations

from typing import Literal

from treenail.kernel import Engine, Hook


class CheckpointHook(Hook):
    """Requests a checkpoint every so many epochs or steps, and one when training ends or is stopped.

    A checkpoint of an epoch is taken before the epoch's validation, so that a failing validation loses nothing.

    Args:
        interval: How many epochs or steps lie between two.
        by: What is counted.
    """

    priority = 90

    def __init__(self, interval: int = 1, by: Literal["epoch", "step"] = "epoch") -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}, must be at least 1")
        self.interval = interval
        self.by = by

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Request one if enough steps were made."""
        if self.by == "step" and (engine.step + 1) % self.interval == 0:
            engine.request_checkpoint(f"every {self.interval} steps")

    def after_train_epoch(self, engine: Engine) -> None:
        """Request one if enough epochs were made."""
        if self.by == "epoch" and (engine.epoch + 1) % self.interval == 0:
            engine.request_checkpoint(f"every {self.interval} epochs")

    def after_train(self, engine: Engine) -> None:
        """Request the last one."""
        engine.request_checkpoint(engine.stop_reason or "end of training")

"""Asks for checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import nn

from treenail.kernel import Engine, Hook, TrainingError


class CheckpointHook(Hook):
    """Requests a checkpoint every so many epochs or steps, and one when training ends or is stopped.

    A checkpoint of an epoch is taken before the epoch's validation, so that a failing validation loses nothing.

    Args:
        interval: How many epochs or steps lie between two.
        by: What is counted.
    """

    priority = 90

    def __init__(self, interval: Annotated[int, Meta(ge=1)] = 1, by: Literal["epoch", "step"] = "epoch") -> None:
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

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Refuse to save a model that is lost, so that retention does not remove the last good one for it.

        Raises:
            TrainingError: A parameter of the part ``model`` is not finite, or a buffer that is saved has a NaN.
        """
        model = engine.parts.get("model")
        if isinstance(model, nn.Module):
            for name, parameter in model.named_parameters():
                if parameter.is_floating_point() and not torch.isfinite(parameter).all():
                    raise _lost(f"the parameter '{name}'", engine.step)
            saved = checkpoint.get("model")
            for name, buffer in model.named_buffers():
                # One may be infinite on purpose, as a mask for attention is.
                if isinstance(saved, dict) and name in saved and buffer.is_floating_point() and buffer.isnan().any():
                    raise _lost(f"the buffer '{name}'", engine.step)

    def after_train(self, engine: Engine) -> None:
        """Request the last one."""
        engine.request_checkpoint(engine.stop_reason or "end of training")


def _lost(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} is not finite after step {step}; this state was not saved",
        mend="lower the learning rate, or check the data and the loss, and --resume",
    )

"""Remembers the best validation."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from treenail.adapters.hooks.schedule import metric_of
from treenail.kernel import Engine, Hook, StateError


class BestHook(Hook):
    """Keeps the checkpoint with the best value of a validation metric, under the pointer ``best``.

    Args:
        metric: Name of the metric: ``"val/accuracy"``.
        mode: Whether a larger or a smaller value is better.

    Attributes:
        best: The best value so far; None before the first validation.
        step: The step at which it was reached.
    """

    priority = 80

    def __init__(self, metric: str, mode: Literal["max", "min"] = "max") -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode is '{mode}', must be 'max' or 'min'")
        self.metric = metric
        self.mode = mode
        self.best: float | None = None
        self.step = 0

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Compare, and request a checkpoint of a new best.

        Raises:
            TrainingError: Validation gave no such metric.
        """
        value = metric_of(metrics, self.metric, "the hook 'best'")
        better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if better and isfinite(value):
            self.best, self.step = value, engine.step
            engine.request_checkpoint(f"best {self.metric} {value:.6g}", "best")

    def state_dict(self) -> dict[str, object]:
        """Return the best value and its step."""
        return {"best": self.best, "step": self.step, "metric": self.metric}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go on from a state.

        Raises:
            StateError: It is of another metric.
        """
        best, step = state_dict.get("best"), state_dict.get("step")
        if state_dict.get("metric") != self.metric:
            raise StateError(
                f"the best value is of {state_dict.get('metric')!r}, not {self.metric!r}", where="hooks.best"
            )
        if not isinstance(best, float | None) or not isinstance(step, int):
            raise StateError(f"no best value: {best!r} at step {step!r}", where="hooks.best")
        self.best, self.step = best, step

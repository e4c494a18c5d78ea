"""Stops a training that no longer improves."""

from __future__ import annotations

from math import inf, isfinite, isnan
from typing import Annotated, Literal

from msgspec import Meta
from structlog.typing import FilteringBoundLogger

from treenail.adapters.hooks.joining import join
from treenail.adapters.hooks.schedule import metric_of
from treenail.adapters.logging import terminal_logger
from treenail.kernel import Communicator, Engine, Hook, StateError


class EarlyStoppingHook(Hook):
    """Requests a stop when a validation metric has not improved for some validations, or is as good or bad as it may become.

    The run stops at its next commit, with a checkpoint, and its summary says why. It counts validations, those before a
    resume included. A run that was stopped so, and is resumed, stops again at once and says so, unless the settings
    have been changed in such a way that it would not have been stopped.

    Args:
        metric: Name of the metric: ``"val/loss"``.
        mode: Whether a larger or a smaller value is better.
        patience: Stop at so many validations in a row without improvement.
        min_delta: What is no improvement: a value that is better by no more than this.
        stopping_threshold: Stop as soon as the value is at least as good as this.
        divergence_threshold: Stop as soon as the value is worse than this.
        check_finite: Stop as soon as the value is NaN or infinite; else such a value is no improvement.
        communicator: The ranks of the run, all of which get the same results; one of them tells of a resume.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Attributes:
        best: The best value so far; None before the first finite one.
        waited: Validations since then.

    Raises:
        ValueError: An argument is out of its range.
        TrainingError: (while training) validation gives no such metric.
    """

    priority = 80

    def __init__(
        self,
        metric: str,
        mode: Literal["max", "min"],
        patience: Annotated[int, Meta(ge=1)] = 3,
        min_delta: Annotated[float, Meta(ge=0)] = 0.0,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        *,
        check_finite: bool = True,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode is '{mode}', must be 'max' or 'min'")
        if patience < 1 or not 0 <= min_delta < inf:
            raise ValueError(f"{patience=} must be at least 1, and {min_delta=} finite and not negative")
        if any(each is not None and isnan(each) for each in (stopping_threshold, divergence_threshold)):
            raise ValueError(f"{stopping_threshold=} and {divergence_threshold=} must be numbers: nothing reaches NaN")
        self.metric = metric
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.check_finite = check_finite
        self._speaks = communicator is None or communicator.rank == 0
        self._terminal = terminal or terminal_logger()
        self.best: float | None = None
        self.waited = 0
        self._last: float | None = None
        self._stopped = False

    def after_load_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Begin to count where the run had no such hook before."""
        join(engine, self, checkpoint)

    def before_train(self, engine: Engine) -> None:
        """Stop again a run that was stopped before it was resumed."""
        if not self._stopped or self._last is None:
            return
        if reason := self._reason(self._last):
            if self._speaks:
                self._terminal.warning("stopped early before this resume, and again", step=engine.step, reason=reason)
            engine.request_stop(f"{reason} (already before this resume)")
            engine.check_stop()  # all ranks have this state, so that they agree before the first step
        else:
            self._stopped = False
            if self._speaks:
                self._terminal.info("stopped early before this resume, goes on with other settings", step=engine.step)

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        """Compare, and request a stop where it is time."""
        self._last = value = float(metric_of(metrics, self.metric, "the hook 'early_stopping'"))
        if isfinite(value) and (self.best is None or self._sign * (value - self.best) > self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if reason := self._reason(value):
            self._stopped = True
            engine.request_stop(reason)

    @property
    def _sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def _reason(self, value: float) -> str | None:
        """Say why the run shall stop, if it shall."""
        shown = f"{self.metric} {value:.6g}"
        if not isfinite(value):
            if self.check_finite:
                return f"early stopping: {shown} is not finite"
        elif self.stopping_threshold is not None and self._sign * (value - self.stopping_threshold) >= 0:
            return f"early stopping: {shown} has reached {self.stopping_threshold:g}"
        elif self.divergence_threshold is not None and self._sign * (value - self.divergence_threshold) < 0:
            return f"early stopping: {shown} is worse than {self.divergence_threshold:g}"
        if self.waited >= self.patience:
            best = "never finite" if self.best is None else f"best {self.best:.6g}"
            return f"early stopping: {self.metric} has not improved in {self.waited} validations ({best})"
        return None

    def state_dict(self) -> dict[str, object]:
        """Return the best and the last value, how long the best one is ago, and whether the run was stopped."""
        return {
            "metric": self.metric,
            "mode": self.mode,
            "best": self.best,
            "last": self._last,
            "waited": self.waited,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go on from a state.

        Raises:
            StateError: It is of another metric or mode, or no state of this hook.
        """
        ours, theirs = (self.metric, self.mode), (state_dict.get("metric"), state_dict.get("mode"))
        if state_dict.get("waited") == 0 and state_dict.get("last") is None:
            theirs = ours  # nothing was seen; the name may have been a mistake
        if theirs != ours:
            raise StateError(
                f"early stopping looked at {theirs[0]!r} ({theirs[1]!r}), now at {ours[0]!r} ({ours[1]!r})",
                mend="leave metric and mode as they were, or begin a new run",
            )
        best, last, waited, stopped = (state_dict.get(name) for name in ("best", "last", "waited", "stopped"))
        if (
            not (isinstance(best, float | None) and isinstance(last, float | None))
            or not isinstance(waited, int)
            or not isinstance(stopped, bool)
        ):
            raise StateError(f"{state_dict} is no state of early stopping")
        self.best, self._last, self.waited, self._stopped = best, last, waited, stopped

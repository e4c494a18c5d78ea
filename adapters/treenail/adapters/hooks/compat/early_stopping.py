"""mmengine's EarlyStoppingHook under its name and with its arguments."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from structlog.typing import FilteringBoundLogger

from treenail.adapters.hooks.best import mode_of
from treenail.adapters.hooks.compat.priority import Priority
from treenail.adapters.hooks.early_stopping import EarlyStoppingHook as OwnEarlyStoppingHook
from treenail.kernel import Communicator


class EarlyStoppingHook(OwnEarlyStoppingHook):
    """Stops a training that no longer improves, as mmengine's hook of this name does; the stop comes with a checkpoint.

    An improvement is better by more than `min_delta`, and a value that is not finite is none; mmengine counts one that is
    better by just as much, and forgets the best value for one that is NaN.

    Args:
        monitor: Name of the metric: ``accuracy``, without ``val/`` before it.
        rule: Whether a greater or a lesser value is better. None: as the metric's name says.
        min_delta: What is no improvement: a value that is better by no more than this.
        strict: Of no meaning: a metric that validation does not give is an error, before the training where that is known. To
            wait for it would be to stop never.
        check_finite: Stop as soon as the value is NaN or infinite.
        patience: Stop at so many validations in a row without improvement.
        stopping_threshold: Stop as soon as the value is at least as good as this.
        communicator: As of our hook, and so is the one below.
        terminal: A structlog logger for people.

    Raises:
        ValueError: An argument is out of its range, or the name does not say whether a greater value is better.
    """

    priority = int(Priority.LOWEST)

    def __init__(
        self,
        monitor: str,
        rule: Literal["greater", "less"] | None = None,
        min_delta: Annotated[float, Meta(ge=0)] = 0.1,
        strict: bool = False,
        check_finite: bool = True,
        patience: Annotated[int, Meta(ge=1)] = 5,
        stopping_threshold: float | None = None,
        *,
        communicator: Communicator | None = None,
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if rule not in ("greater", "less", None):
            raise ValueError(f"rule is {rule!r}, must be 'greater', 'less' or None")
        mode = mode_of(monitor) if rule is None else "max" if rule == "greater" else "min"
        if mode is None:
            raise ValueError(f"the name '{monitor}' does not say whether a greater value is better: give the rule")
        super().__init__(
            monitor if monitor.startswith("val/") else f"val/{monitor}",
            mode,
            patience,
            min_delta,
            stopping_threshold,
            check_finite=check_finite,
            communicator=communicator,
            terminal=terminal,
        )

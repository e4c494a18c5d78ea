"""Watches learning rates, and what else an optimizer's groups are set to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Annotated, Final, Literal

from msgspec import Meta
from structlog.typing import FilteringBoundLogger

from treenail.adapters.hooks.schedule import group_gauges
from treenail.adapters.logging import terminal_logger
from treenail.kernel import Engine, Hook, TrainingError, did_you_mean

_PARAMS: Final = ("momentum", "weight_decay")


class LearningRateWatchHook(Hook):
    """Adds momentum and weight decay of each group to the log, and gives alarm where a learning rate goes wrong.

    The log has the learning rates, and what else is scheduled, anyway; names are of the same form: ``weight_decay``, of several
    groups ``weight_decay/NAME``. Every `interval` steps it looks at the learning rates: an alarm is one that is not
    finite or negative, one that is 0 at two looks in a row, and one that is more than `max_jump` times what it was at the
    last look.

    Args:
        interval: Steps between two looks, counted over the whole run.
        params: What of each group goes to the log. Momentum and weight decay are left out where a group has none.
        max_jump: By what factor a learning rate may grow from one look to the next; None: by any.
        action: warn: an alarm is a line on the terminal, once for each kind and group. stop: the run stops at its next commit,
            with a checkpoint, and ends with an error.
        terminal: A structlog logger for people; one that writes to standard error when None.

    Raises:
        ValueError: An argument is out of its range.
        TrainingError: (before training) No group has anything of such a name.
    """

    priority = 75  # behind the schedules: it looks at what the next step will use

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 50,
        params: Sequence[str] = _PARAMS,
        max_jump: Annotated[float, Meta(gt=1)] | None = 100.0,
        action: Literal["warn", "stop"] = "warn",
        terminal: FilteringBoundLogger | None = None,
    ) -> None:
        if interval < 1 or (max_jump is not None and not max_jump > 1) or action not in ("warn", "stop"):
            raise ValueError(f"{interval=} must be at least 1, {max_jump=} above 1, and {action=} 'warn' or 'stop'")
        self.interval = interval
        self.params = tuple(params)
        self.max_jump = max_jump
        self.action = action
        self._terminal = terminal or terminal_logger()
        self._rates: dict[str, Callable[[], float]] = {}
        self._before: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()

    def before_train(self, engine: Engine) -> None:
        """Look the optimizer up, and offer the gauges."""
        self._before.clear()
        optimizer = engine.parts.get("optimizer")
        self._rates = dict(group_gauges(optimizer, ["lr"]))
        gauges = dict(group_gauges(optimizer, self.params))
        engine.meters.gauges.update(gauges)
        known = {*_PARAMS, *(name.partition("/")[0] for name in gauges)}
        if self._rates and (unknown := [name for name in self.params if name not in known]):
            raise TrainingError(
                f"no group of the optimizer has {' or '.join(repr(name) for name in unknown)}",
                where="hooks.lr_watch.params",
                mend=did_you_mean(unknown[0], known) or "write names as the optimizer's constructor has them",
            )

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Look at the learning rates, if it is time."""
        if (engine.step + 1) % self.interval:
            return
        for name, read in self._rates.items():
            rate, before = read(), self._before.get(name)
            if alarm := self._alarm(rate, before):
                self._tell(engine, name, *alarm)
            self._before[name] = rate

    def _alarm(self, rate: float, before: float | None) -> tuple[str, str] | None:
        """Return the kind of an alarm and what it is about, if there is one."""
        if not isfinite(rate) or rate < 0:
            return "invalid", f"is {rate:g}"
        if rate == 0 and before == 0:
            return "zero", "is 0: nothing is learnt"
        if self.max_jump is not None and before and rate > self.max_jump * before:
            return "jump", f"jumped from {before:g} to {rate:g}"
        return None

    def _tell(self, engine: Engine, name: str, kind: str, found: str) -> None:
        if self.action == "stop":
            engine.fail(
                TrainingError(
                    f"the learning rate '{name}' {found} after step {engine.step + 1}",
                    mend="look at the schedules (treenail plot-schedule CONFIG draws them)",
                )
            )
        elif (name, kind) not in self._told:
            self._told.add((name, kind))
            self._terminal.warning("learning rate", name=name, found=found, step=engine.step + 1)

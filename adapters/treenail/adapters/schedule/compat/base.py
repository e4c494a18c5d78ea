"""What mmengine's schedulers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, cast

import structlog

from treenail.adapters.schedule.arguments import check_arguments
from treenail.adapters.schedule.curves import Curve
from treenail.adapters.schedule.schedule import Interval, Schedule

INF = 1_000_000_000
"""mmengine's word for a schedule without end."""

_log = structlog.get_logger(__name__)


class MmengineSchedule(Schedule):
    """A schedule with mmengine's names; `step` counts from the schedule's construction.

    Subclasses are dataclasses of their arguments, all of which each of them lists: their order is mmengine's.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of its groups.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that; a run knows it.
    """

    param_name: str
    begin: float
    end: float
    last_step: int
    verbose: bool
    convert_to_iter_based: bool
    epoch_length: int | None

    def _interval(self) -> Interval:
        check_arguments(type(self), vars(self))
        return Interval(self.begin, self.end, self.by_epoch, self.convert_to_iter_based, self.epoch_length)

    def _follow_curve(
        self,
        curve: Curve,
        interval: Interval,
        *,
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        anchor: float | Sequence[float] | None = None,
    ) -> None:
        if eta_min is not None and eta_min_ratio is not None:
            raise ValueError("eta_min and eta_min_ratio say the same thing: leave out one of them")
        self.begin, self.end = interval.start, interval.stop
        super().__init__(
            self.optimizer,
            self.param_name,
            curve,
            interval,
            floor=eta_min or 0.0,
            floor_ratio=eta_min_ratio or 0.0,
            anchor=anchor,
            last_epoch=self.last_step,
        )

    @classmethod
    def build_iter_from_epoch(
        cls, *args: object, by_epoch: bool = True, epoch_length: int | None = None, **kwargs: object
    ) -> Self:
        """Build a schedule that steps after each training step from lengths in epochs.

        Args:
            args: The class's own arguments.
            by_epoch: That the lengths are in epochs.
            epoch_length: Training steps of an epoch.
            kwargs: The class's own arguments.

        Raises:
            ValueError: The lengths are not in epochs, or epoch_length is missing.
        """
        # Each class says by itself what its arguments are; here they only pass through.
        build = cast("Callable[..., Self]", cls)
        return build(*args, by_epoch=by_epoch, epoch_length=epoch_length, convert_to_iter_based=True, **kwargs)

    @property
    def steps_plainly(self) -> bool:
        """Whether `step` does nothing besides."""
        return type(self).step is MmengineSchedule.step and not self.verbose

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step, or to any.

        Args:
            epoch: The step to go to, if it is not the next one.
        """
        super().step(epoch)
        if self.verbose:
            for group, value in enumerate(self.get_last_value()):
                _log.info("schedule", param=self.param, group=group, value=value, step=self.last_epoch)

"""What mmengine's schedulers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Self, cast

import structlog
from msgspec import Meta
from torch.optim import Optimizer

from treenail.adapters.schedule.curves import Curve
from treenail.adapters.schedule.schedule import Interval, Schedule

INF = 1_000_000_000
"""mmengine's word for a schedule without end."""

Factor = Annotated[float, Meta(ge=0)]
UnitFactor = Annotated[float, Meta(ge=0, le=1)]
Length = Annotated[float, Meta(gt=0)]
EpochLength = Annotated[int, Meta(ge=1)]

_log = structlog.get_logger(__name__)


class MmengineSchedule(Schedule):
    """A schedule with mmengine's names; `step` counts from the schedule's construction.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of its groups.
        curve: Factor by step since the schedule began.
        interval: When it acts.
        last_step: The step to go on after; -1 begins.
        verbose: Log every value.
        floor: What a factor of 0 leads to.
        floor_ratio: Likewise, as a part of each group's base value.
        anchor: What the curve scales in the place of the base value.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        curve: Curve,
        interval: Interval,
        last_step: int,
        verbose: bool,
        *,
        floor: float = 0.0,
        floor_ratio: float = 0.0,
        anchor: float | Sequence[float] | None = None,
    ) -> None:
        self.verbose = verbose
        super().__init__(
            unwrapped(optimizer),
            param_name,
            curve,
            interval,
            floor=floor,
            floor_ratio=floor_ratio,
            anchor=anchor,
            last_epoch=last_step,
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

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step, or to any.

        Args:
            epoch: The step to go to, if it is not the next one.
        """
        super().step(epoch)
        if self.verbose:
            for group, value in enumerate(self.get_last_value()):
                _log.info("schedule", param=self.param, group=group, value=value, step=self.last_epoch)


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that a wrapper holds, or the optimizer itself."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, Optimizer) and not isinstance(optimizer, Optimizer) else optimizer


def in_unit(**factors: float) -> None:
    """Refuse what is not from 0 to 1, as mmengine does."""
    for name, factor in factors.items():
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} must be from 0 to 1: it is {factor}")


def floors(eta_min: float | None, eta_min_ratio: float | None) -> tuple[float, float]:
    """Return the floor and its ratio to the base value, of which only one may be given."""
    if eta_min is not None and eta_min_ratio is not None:
        raise ValueError("eta_min and eta_min_ratio say the same thing: leave out one of them")
    return eta_min or 0.0, eta_min_ratio or 0.0

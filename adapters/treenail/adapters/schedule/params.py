"""What schedulers find in an optimizer, and what they set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def unwrapped(optimizer: object) -> Optimizer:
    """Return the optimizer that a wrapper holds, or the optimizer itself.

    Args:
        optimizer: An optimizer, or what has one as ``optimizer``.

    Raises:
        ValueError: There is none.
    """
    found = optimizer if isinstance(optimizer, Optimizer) else getattr(optimizer, "optimizer", None)
    if not isinstance(found, Optimizer):
        raise ValueError(
            f"a schedule's first argument is an optimizer of torch, and this is a {type(optimizer).__name__}"
        )
    return found


def read_param(group: Mapping[str, Any], name: str) -> float:  # Any: as torch types what a group holds
    """Return the value that a group holds of a parameter that is scheduled.

    Args:
        group: A group of an optimizer's.
        name: Its key, or ``momentum``, which where there is none is the first of ``betas``.

    Raises:
        KeyError: There is none.
    """
    return float(group["betas"][0] if name == "momentum" and name not in group else group[name])


def scheduled_params(scheduler: LRScheduler) -> Iterator[str]:
    """Yield what a scheduler sets: ``lr``, ``momentum``, or another key of an optimizer's groups.

    Args:
        scheduler: One of ours, torch's or mmengine's.
    """
    several: Sequence[LRScheduler] = getattr(scheduler, "_schedulers", ())  # torch's SequentialLR and ChainedScheduler
    for each in several:
        yield from scheduled_params(each)
    if not several:
        yield str(getattr(scheduler, "param", getattr(scheduler, "param_name", "lr")))
    if getattr(scheduler, "cycle_momentum", False):  # torch's OneCycleLR and CyclicLR
        yield "momentum"

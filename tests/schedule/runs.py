"""Optimizers, and the values that schedulers give them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

BASES = (0.1, 0.025)
"""Learning rates of the groups; the first one is what tolerances are relative to."""


class Steps(Protocol):
    """What torch's, mmengine's and our schedulers share."""

    def step(self) -> object: ...


def sgd(*bases: float, momentum: float = 0.9) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": base} for base in bases or BASES]
    return torch.optim.SGD(groups, lr=0.1, momentum=momentum)


def adam(*bases: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": base} for base in bases or BASES]
    return torch.optim.Adam(groups, lr=0.1)


def values(optimizer: torch.optim.Optimizer, param: str = "lr") -> list[float]:
    if param == "momentum" and "betas" in optimizer.defaults:
        return [float(group["betas"][0]) for group in optimizer.param_groups]
    return [float(group[param]) for group in optimizer.param_groups]


def trace(
    optimizer: torch.optim.Optimizer,
    make: Callable[[torch.optim.Optimizer], Steps | Sequence[Steps]],
    steps: int,
    param: str = "lr",
) -> list[list[float]]:
    """Return the groups' values after construction and after each step."""
    made = make(optimizer)
    found = [values(optimizer, param)]
    for _ in range(steps):
        for scheduler in made if isinstance(made, (list, tuple)) else (made,):
            scheduler.step()
        found.append(values(optimizer, param))
    return found


def assert_close(ours: list[list[float]], theirs: list[list[float]], scale: float = BASES[0]) -> None:
    """Compare to 1e-12 of the base value.

    Relative to the value itself recursions cannot be compared: near zero they have lost what they started from.
    """
    assert len(ours) == len(theirs)
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for a, b in zip(mine, other, strict=True):
            assert abs(a - b) <= 1e-12 * max(scale, abs(b)), (step, mine, other)

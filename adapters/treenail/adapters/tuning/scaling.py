"""Learning rates for another batch size than they were found with."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer


def scale_lr(
    optimizer: Optimizer, batch_size: int, base_batch_size: int, rule: Literal["linear", "sqrt"] = "linear"
) -> float:
    """Scale the learning rate of each parameter group to a batch size, and return the factor.

    Call it between making an optimizer and making its schedules, which remember the learning rate that they begin with.
    Learning rates that a schedule has as arguments of its own (``max_lr``, ``eta_min``) are not scaled.

    Args:
        optimizer: Whose groups have an ``lr``.
        batch_size: Samples of an update: of all ranks and micro-batches together.
        base_batch_size: For which the learning rate was meant.
        rule: linear: times k for k times the batch (SGD: Goyal et al. 2017, https://arxiv.org/abs/1706.02677). sqrt: times the
            square root of k (SGD: Krizhevsky 2014, https://arxiv.org/abs/1404.5997; Adam and RMSprop: Malladi et al. 2022,
            https://arxiv.org/abs/2205.10287, whose rule changes the betas and eps, too).

    Raises:
        ValueError: A size is below 1, there is no such rule, or a schedule was made already.
    """
    if batch_size < 1 or base_batch_size < 1:
        raise ValueError(f"{batch_size=} and {base_batch_size=} must be at least 1")
    if rule not in ("linear", "sqrt"):
        raise ValueError(f"rule is {rule!r}, must be linear or sqrt")
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise ValueError("the optimizer has a schedule already, which would not know of the scaled rate; scale before")
    ratio = batch_size / base_batch_size
    factor = ratio if rule == "linear" else sqrt(ratio)
    for group in optimizer.param_groups:
        set_lr(group, float(group["lr"]) * factor)
    return factor


def set_lr(group: dict[str, object], lr: float) -> None:
    """Set the learning rate of a parameter group; a tensor, as compiled optimizers have it, stays the same one."""
    if isinstance(current := group["lr"], Tensor):
        current.fill_(lr)
    else:
        group["lr"] = lr

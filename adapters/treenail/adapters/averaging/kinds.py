"""The kinds of averages: how far each goes towards the weights of its time."""

from __future__ import annotations

from functools import partial
from math import exp
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import nn

from treenail.adapters.averaging.weights import Buffers, Rule, WeightAverages

Momentum = Annotated[float, Meta(gt=0, lt=1)]
Curve = Literal["hyperbolic", "exponential"]


def exponential_average(
    model: nn.Module,
    *,
    momentum: Momentum = 0.0002,
    interval: Annotated[int, Meta(ge=1)] = 1,
    begin_step: Annotated[int, Meta(ge=0)] = 0,
    begin_epoch: Annotated[int, Meta(ge=0)] = 0,
    buffers: Buffers = "copy",
    device: torch.device | None = None,
) -> WeightAverages:
    """Average a model's weights exponentially (EMA): average ← (1 - momentum) · average + momentum · weights.

    Equal to torch's `torch.optim.swa_utils.get_ema_multi_avg_fn` of the decay 1 - momentum.

    Args:
        model: The model without what makes it parallel.
        momentum: Weight of the new weights; what others call the decay is 1 - momentum.
        interval: Average at every so many updates.
        begin_step: The first training step, from 1, after which weights are averaged; 0: from the beginning.
        begin_epoch: The first epoch, from 1, in which weights are averaged; 0: from the beginning.
        buffers: Of the averages: ``copy`` the model's, ``average`` those of floating point, or ``ignore`` the model's
            and keep those of the beginning until `update_bn`, which no run calls.
        device: Where averages are kept, where not with the weights: ``cpu``.

    Raises:
        ValueError: The momentum is not between 0 and 1; and see `WeightAverages`.
    """
    rule = constant_rule(momentum)
    return WeightAverages(
        model, rule, interval=interval, begin_step=begin_step, begin_epoch=begin_epoch, buffers=buffers, device=device
    )


def annealed_average(
    model: nn.Module,
    *,
    momentum: Momentum = 0.0002,
    gamma: Annotated[float, Meta(gt=0)] | None = None,
    curve: Curve = "hyperbolic",
    power: Annotated[float, Meta(gt=0)] = 1.0,
    interval: Annotated[int, Meta(ge=1)] = 1,
    begin_step: Annotated[int, Meta(ge=0)] = 0,
    begin_epoch: Annotated[int, Meta(ge=0)] = 0,
    buffers: Buffers = "copy",
    device: torch.device | None = None,
) -> WeightAverages:
    """Average exponentially with a momentum that begins large, so that the average soon forgets the first weights.

    After t updates the momentum is max(momentum, (gamma / (gamma + t)) ** power), as in mmengine's `MomentumAnnealingEMA`
    with the power 1 and in timm's `ModelEmaV3` and diffusers' `EMAModel` with another, or
    (1 - momentum) · exp(-(1 + t) / gamma) + momentum, as in YOLOX and mmdetection's `ExpMomentumEMA`.

    Args:
        model: The model without what makes it parallel.
        momentum: Weight of the new weights in the end.
        gamma: How many updates it takes the momentum to fall to a half (hyperbolic) or to 1/e (exponential); None: 100 or
            2000.
        curve: How it falls.
        power: How fast it falls, where the curve is hyperbolic.
        interval: Average at every so many updates.
        begin_step: The first training step, from 1, after which weights are averaged; 0: from the beginning.
        begin_epoch: The first epoch, from 1, in which weights are averaged; 0: from the beginning.
        buffers: Of the averages: ``copy`` the model's, ``average`` those of floating point, or ``ignore`` the model's
            and keep those of the beginning until `update_bn`, which no run calls.
        device: Where averages are kept, where not with the weights: ``cpu``.

    Raises:
        ValueError: The momentum is not between 0 and 1, gamma or power are not positive, or the power has no meaning for the
            curve; and see `WeightAverages`.
    """
    rule = annealed_rule(momentum, gamma, curve, power)
    return WeightAverages(
        model, rule, interval=interval, begin_step=begin_step, begin_epoch=begin_epoch, buffers=buffers, device=device
    )


def uniform_average(
    model: nn.Module,
    *,
    interval: Annotated[int, Meta(ge=1)] = 1,
    begin_step: Annotated[int, Meta(ge=0)] = 0,
    begin_epoch: Annotated[int, Meta(ge=0)] = 0,
    buffers: Buffers = "copy",
    device: torch.device | None = None,
) -> WeightAverages:
    """Average a model's weights with equal weight, as stochastic weight averaging (SWA) does.

    SWA averages once an epoch of a constant or cyclic learning rate near the end of a training (Izmailov et al. 2018, "Averaging
    Weights Leads to Wider Optima and Better Generalization"), and computes the statistics of batch normalisation anew
    for the averages: see `update_bn`.

    Args:
        model: The model without what makes it parallel.
        interval: Average at every so many updates.
        begin_step: The first training step, from 1, after which weights are averaged; 0: from the beginning.
        begin_epoch: The first epoch, from 1, in which weights are averaged; 0: from the beginning.
        buffers: Of the averages: ``copy`` the model's, ``average`` those of floating point, or ``ignore`` the model's
            and keep those of the beginning until `update_bn`, which no run calls.
        device: Where averages are kept, where not with the weights: ``cpu``.

    Raises:
        ValueError: See `WeightAverages`.
    """
    return WeightAverages(
        model,
        uniform_rule,
        interval=interval,
        begin_step=begin_step,
        begin_epoch=begin_epoch,
        buffers=buffers,
        device=device,
    )


def constant_rule(momentum: float) -> Rule:
    """Return the rule of an exponential average.

    Raises:
        ValueError: The momentum is not between 0 and 1.
    """
    return partial(_constant, _between_0_and_1(momentum))


def annealed_rule(momentum: float, gamma: float | None, curve: Curve, power: float = 1.0) -> Rule:
    """Return the rule of an exponential average whose momentum falls; see `annealed_average`.

    Raises:
        ValueError: A number is out of its bounds, or the power has no meaning for the curve.
    """
    momentum = _between_0_and_1(momentum)
    if curve not in ("hyperbolic", "exponential"):
        raise ValueError(f"curve is {curve!r}, must be 'hyperbolic' or 'exponential'")
    gamma = gamma if gamma is not None else 100.0 if curve == "hyperbolic" else 2000.0
    if not gamma > 0 or not power > 0:
        raise ValueError(f"gamma is {gamma} and power is {power}, both must be positive")
    if curve == "hyperbolic":
        return partial(hyperbolic, momentum, gamma, power)
    if power != 1:
        raise ValueError(f"power is {power}, which an exponential curve does not have; leave it out")
    return partial(exponential, momentum, gamma)


def uniform_rule(updates: int, averaged: int) -> float:
    """Return the weight that makes the average a mean; it is a `Rule`."""
    return 1 / (averaged + 1)


def hyperbolic(momentum: float, gamma: float, power: float, updates: int, averaged: int) -> float:
    """Return max(momentum, (gamma / (gamma + updates)) ** power)."""
    falling: float = (gamma / (gamma + updates)) ** power
    return max(momentum, falling)


def exponential(momentum: float, gamma: float, updates: int, averaged: int) -> float:
    """Return (1 - momentum) · exp(-(1 + updates) / gamma) + momentum."""
    return (1 - momentum) * exp(-(1 + updates) / gamma) + momentum


def _constant(momentum: float, updates: int, averaged: int) -> float:
    return momentum


def _between_0_and_1(momentum: float) -> float:
    if not 0 < momentum < 1:
        raise ValueError(f"momentum is {momentum}, must be between 0 and 1 (a decay of 0.999 is a momentum of 0.001)")
    return momentum

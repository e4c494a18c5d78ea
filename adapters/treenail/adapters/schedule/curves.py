"""The shapes of schedules: pure functions of the step since a schedule began, so that any step's factor follows at once.

A curve gives the factor by which a schedule multiplies a value; step 0 is the first step of the schedule's interval.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, cos, pi, sqrt
from typing import Literal, Protocol

from treenail.kernel import TrainingError

Annealing = Literal["cos", "linear"]
"""How a one-cycle goes from one level to the next."""

DecayShape = Literal["linear", "cosine", "one_minus_sqrt"]
"""How a warm-up-stable-decay schedule decays."""


class Curve(Protocol):
    """A factor by step."""

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step ≥ 0."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """A factor until ``steps`` are over, then 1 (`torch.optim.lr_scheduler.ConstantLR`)."""

    factor: float
    steps: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        return self.factor if step < self.steps else 1.0


UNCHANGED = Constant(1.0, 0.0)
"""Multiplies by nothing."""


@dataclass(frozen=True, slots=True)
class Linear:
    """From one factor to another in ``steps``, along a line (`torch.optim.lr_scheduler.LinearLR`)."""

    start_factor: float
    end_factor: float
    steps: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        if step < self.steps:
            return self.start_factor + (self.end_factor - self.start_factor) * step / self.steps
        return self.end_factor if self.steps > 0 else self.start_factor


@dataclass(frozen=True, slots=True)
class Cosine:
    """From 1 to 0 in ``period`` steps along half a cosine, and up again (SGDR without restarts, arXiv:1608.03983)."""

    period: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        return (1.0 + cos(pi * step / self.period)) / 2.0


@dataclass(frozen=True, slots=True)
class Exponential:
    """``gamma`` to the power of the step (`torch.optim.lr_scheduler.ExponentialLR`)."""

    gamma: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        try:
            return math.pow(self.gamma, step)
        except OverflowError:
            raise _too_large(self.gamma, step) from None


@dataclass(frozen=True, slots=True)
class Step:
    """``gamma`` once for every ``step_size`` steps (`torch.optim.lr_scheduler.StepLR`)."""

    step_size: float
    gamma: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        try:
            return math.pow(self.gamma, step // self.step_size)
        except OverflowError:
            raise _too_large(self.gamma, step // self.step_size) from None


@dataclass(frozen=True, slots=True)
class MultiStep:
    """``gamma`` once for every milestone reached; milestones are sorted (`torch.optim.lr_scheduler.MultiStepLR`)."""

    milestones: tuple[float, ...]
    gamma: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        try:
            return math.pow(self.gamma, bisect_right(self.milestones, step))
        except OverflowError:
            raise _too_large(self.gamma, bisect_right(self.milestones, step)) from None


@dataclass(frozen=True, slots=True)
class Polynomial:
    """From 1 to 0 in ``steps``, as a power of what is left (`torch.optim.lr_scheduler.PolynomialLR`)."""

    steps: float
    power: float

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        if self.steps <= 0:
            return 1.0
        return math.pow(1.0 - min(step / self.steps, 1.0), self.power)


@dataclass(frozen=True, slots=True)
class OneCycle:
    """From 1 / div_factor up to 1 and down to 1 / (div_factor · final_div_factor) (arXiv:1708.07120).

    The phases end where those of `torch.optim.lr_scheduler.OneCycleLR` do; after the cycle it stays where it ended.
    """

    steps: float
    pct_start: float
    anneal_strategy: Annealing
    div_factor: float
    final_div_factor: float
    three_phase: bool

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        start = 1.0 / self.div_factor
        last = start / self.final_div_factor
        top = self.pct_start * self.steps - 1
        phases = [(top, start, 1.0), (self.steps - 1, 1.0, last)]
        if self.three_phase:
            phases[1:] = [(2 * self.pct_start * self.steps - 2, 1.0, start), (self.steps - 1, start, last)]
        began = 0.0
        for ends, level, target in phases:
            if step <= ends:
                # A phase without length is over as soon as it begins; torch divides by zero there.
                return self._anneal(level, target, (step - began) / (ends - began) if ends > began else 1.0)
            began = ends
        return last

    def _anneal(self, level: float, target: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (target - level) * share + level
        return target + (level - target) / 2.0 * (cos(pi * share) + 1)


@dataclass(frozen=True, slots=True)
class CosineRestarts:
    """Half a cosine from 1 to 0 for every period, one after another; the last one's last factor stays.

    Each period multiplies the value that it begins from with a weight of its own.
    """

    periods: tuple[float, ...]
    weights: tuple[float, ...]

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        index, began = self._period(step)
        last = max(ceil(began + self.periods[index]) - 1 - began, 0.0)
        return (1.0 + cos(pi * min(step - began, last) / self.periods[index])) / 2.0

    def weight(self, step: float) -> float:
        """Return by what the period of a step multiplies."""
        return self.weights[self._period(step)[0]]

    def _period(self, step: float) -> tuple[int, float]:
        ends = list(accumulate(self.periods))
        index = min(bisect_right(ends, step), len(ends) - 1)
        return index, ends[index - 1] if index else 0.0


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Up to 1 along a line, 1 for most of the time, down at the end, where it stays.

    Sources: Hu et al. 2024, MiniCPM, arXiv:2404.06395; the shape one_minus_sqrt: Hägele et al. 2024, arXiv:2405.18392.
    """

    steps: float
    warmup: float
    decay: float
    start_factor: float
    end_factor: float
    shape: DecayShape

    def __call__(self, step: float, /) -> float:
        """Return the factor at a step."""
        if step < self.warmup:
            return self.start_factor + (1.0 - self.start_factor) * step / self.warmup
        left = max(self.steps - step, 0.0)
        if left >= self.decay:
            return 1.0
        share = 1.0 - left / self.decay
        if self.shape == "cosine":
            share = (1.0 - cos(pi * share)) / 2.0
        elif self.shape == "one_minus_sqrt":
            share = sqrt(share)
        return 1.0 + (self.end_factor - 1.0) * share


def _too_large(gamma: float, times: float) -> TrainingError:
    return TrainingError(
        f"gamma {gamma:g} to the power of {times:g} is more than a number can hold",
        mend="let gamma be smaller, or let the schedule end earlier: write end",
    )

"""The schedules by their shapes, for the learning rate, momentum or any other parameter of an optimizer's groups.

Each acts from ``begin`` on and before ``end``; before, it leaves the value alone, and afterwards its last factor stays. A
warm-up is a schedule that ends where the next one begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch.optim import Optimizer

from treenail.adapters.schedule import curves
from treenail.adapters.schedule.arguments import (
    Begin,
    EpochLength,
    Factor,
    LastStep,
    Length,
    UnitFactor,
    check_arguments,
)
from treenail.adapters.schedule.curves import Annealing, Curve, DecayShape
from treenail.adapters.schedule.schedule import Interval, Schedule


@dataclass(eq=False, repr=False, kw_only=True)
class Shape(Schedule):
    """What the schedules by their shapes have in common.

    Args:
        optimizer: The optimizer.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that; a run knows it.
        last_step: The step to go on after; -1 begins.

    Raises:
        ValueError: An argument is out of its range, the interval has no steps, or the optimizer's groups have no such
            parameter.
    """

    optimizer: Optimizer = field(kw_only=False)
    param: str = "lr"
    begin: Begin = 0
    end: float | None = None
    by_epoch: bool = True
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None
    last_step: LastStep = -1

    def _interval(self) -> Interval:
        check_arguments(type(self), vars(self))
        return Interval(self.begin, self.end, self.by_epoch, self.convert_to_iter_based, self.epoch_length)

    def _follow_curve(
        self,
        curve: Curve,
        interval: Interval,
        *,
        floor: float = 0.0,
        floor_ratio: float = 0.0,
        anchor: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            self.optimizer,
            self.param,
            curve,
            interval,
            floor=floor,
            floor_ratio=floor_ratio,
            anchor=anchor,
            last_epoch=self.last_step,
        )


@dataclass(eq=False, repr=False, kw_only=True)
class Constant(Shape):
    """Multiplies by a factor until the interval's last step, which has the factor 1.

    Source: `torch.optim.lr_scheduler.ConstantLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        factor: The factor.

    Raises:
        ValueError: Besides, the interval is a single step, on which it would do nothing.
    """

    factor: Factor = 1 / 3

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(constant_curve(interval, self.factor), interval)


@dataclass(eq=False, repr=False, kw_only=True)
class Linear(Shape):
    """Multiplies by a factor that goes along a line and arrives at the interval's last step; a warm-up, or a decay.

    Source: `torch.optim.lr_scheduler.LinearLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        start_factor: The factor at the first step.
        end_factor: The factor at the last step.

    Raises:
        ValueError: Besides, it has no end, or is a warm-up of a single step.
    """

    start_factor: Factor = 1 / 3
    end_factor: Factor = 1.0

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(linear_curve(interval, self.start_factor, self.end_factor), interval)


@dataclass(eq=False, repr=False, kw_only=True)
class Cosine(Shape):
    """Goes down along half a cosine, from what is there to ``eta_min``.

    With ``end`` alone the bottom lies at that step, and the interval's last one is still above it, as with torch's ``T_max``;
    ``period=end - begin - 1`` ends at the bottom.

    Source: the annealing of SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983, as `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Args:
        period: Steps or epochs from top to bottom; null: from begin to end. After it the value goes up again.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.

    Raises:
        ValueError: Besides, there is neither period nor end.
    """

    period: Length | None = None
    eta_min: float = 0.0
    eta_min_ratio: float = 0.0

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = curves.Cosine(interval.length("cosine without period", self.period))
        self._follow_curve(curve, interval, floor=self.eta_min, floor_ratio=self.eta_min_ratio)


@dataclass(eq=False, repr=False, kw_only=True)
class CosineRestarts(Shape):
    """Goes down along half a cosine, again and again, each time from a height of its own.

    Source: SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983; weights as in mmengine's ``CosineRestartLR``.

    Args:
        periods: Steps or epochs of each descent; after the last one the value stays.
        weights: What each descent multiplies the value with, from which it begins; null: 1.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.

    Raises:
        ValueError: Besides, there are not as many weights as periods.
    """

    periods: tuple[Length, ...]
    weights: tuple[float, ...] | None = None
    eta_min: float = 0.0
    eta_min_ratio: float = 0.0

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = restarts_curve(interval, self.periods, self.weights)
        self._follow_curve(curve, interval, floor=self.eta_min, floor_ratio=self.eta_min_ratio)


@dataclass(eq=False, repr=False, kw_only=True)
class Exponential(Shape):
    """Multiplies by ``gamma`` once more at each step after the first.

    Source: `torch.optim.lr_scheduler.ExponentialLR`. ``gamma`` is that of a step, also where lengths are converted.

    Args:
        gamma: The factor of a step.
    """

    gamma: Factor

    def __post_init__(self) -> None:
        self._follow_curve(curves.Exponential(self.gamma), self._interval())


@dataclass(eq=False, repr=False, kw_only=True)
class Step(Shape):
    """Multiplies by ``gamma`` once more every so many steps.

    Source: `torch.optim.lr_scheduler.StepLR`.

    Args:
        step_size: Steps or epochs between two changes.
        gamma: The factor of a change.
    """

    step_size: Length
    gamma: Factor = 0.1

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(curves.Step(interval.steps(self.step_size), self.gamma), interval)


@dataclass(eq=False, repr=False, kw_only=True)
class MultiStep(Shape):
    """Multiplies by ``gamma`` once more at each milestone.

    Source: `torch.optim.lr_scheduler.MultiStepLR`.

    Args:
        milestones: Steps or epochs after begin, in any order; one that comes twice counts twice.
        gamma: The factor of a milestone.
    """

    milestones: tuple[float, ...]
    gamma: Factor = 0.1

    def __post_init__(self) -> None:
        interval = self._interval()
        milestones = tuple(sorted(interval.steps(each) for each in self.milestones))
        self._follow_curve(curves.MultiStep(milestones, self.gamma), interval)


@dataclass(eq=False, repr=False, kw_only=True)
class Polynomial(Shape):
    """Goes down to ``eta_min``, which it reaches at the interval's last step, as a power of the steps left.

    Source: `torch.optim.lr_scheduler.PolynomialLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        power: The power.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.

    Raises:
        ValueError: Besides, it has no end.
    """

    power: Factor = 1.0
    eta_min: float = 0.0
    eta_min_ratio: float = 0.0

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = curves.Polynomial(interval.length("polynomial") - 1, self.power)
        self._follow_curve(curve, interval, floor=self.eta_min, floor_ratio=self.eta_min_ratio)


@dataclass(eq=False, repr=False, kw_only=True)
class OneCycle(Shape):
    """Goes from a low value up to ``eta_max`` and down to a much lower one; it takes the place of the base value.

    Source: Smith and Topin 2018, arXiv:1708.07120, as `torch.optim.lr_scheduler.OneCycleLR`. What that does to the momentum is
    another one: ``param="momentum", eta_max=0.85, div_factor=0.85 / 0.95, final_div_factor=1``.

    Args:
        eta_max: The highest value: of all groups, or of each.
        total_steps: Steps or epochs of the cycle; null: from begin to end.
        pct_start: Part of the cycle that goes up.
        anneal_strategy: Along half a cosine, or along a line.
        div_factor: eta_max / first value.
        final_div_factor: First value / last value.
        three_phase: Come down to the first value as fast as up, and then to the last one.

    Raises:
        ValueError: Besides, there is neither total_steps nor end, or not one eta_max for each group.
    """

    eta_max: float | tuple[float, ...]
    total_steps: Length | None = None
    pct_start: UnitFactor = 0.3
    anneal_strategy: Annealing = "cos"
    div_factor: Length = 25.0
    final_div_factor: Length = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        interval = self._interval()
        steps = interval.length("one_cycle without total_steps", self.total_steps)
        curve = curves.OneCycle(
            steps, self.pct_start, self.anneal_strategy, self.div_factor, self.final_div_factor, self.three_phase
        )
        self._follow_curve(curve, interval, anchor=self.eta_max)


@dataclass(eq=False, repr=False, kw_only=True)
class WarmupStableDecay(Shape):
    """Warms up along a line, stays, and decays at the end (WSD).

    Sources: Hu et al. 2024, MiniCPM, arXiv:2404.06395; the shape one_minus_sqrt: Hägele et al. 2024, arXiv:2405.18392.

    Args:
        warmup: Steps or epochs of the warm-up; 0: none.
        decay: Steps or epochs of the decay, the interval's last ones; it arrives when they are over, at ``end``.
        shape: Of the decay; one_minus_sqrt falls fast first: 1 - sqrt(its share that is over).
        start_factor: The factor at the first step.
        end_factor: The factor when the decay is over.

    Raises:
        ValueError: Besides, it has no end, or is too short for warm-up and decay.
    """

    warmup: Factor
    decay: Factor
    shape: DecayShape = "linear"
    start_factor: Factor = 0.0
    end_factor: Factor = 0.0

    def __post_init__(self) -> None:
        interval = self._interval()
        total, up, down = interval.length("wsd"), interval.steps(self.warmup), interval.steps(self.decay)
        if up + down > total:
            raise ValueError(f"warm-up and decay take {up} + {down} steps, and there are {total}")
        curve = curves.WarmupStableDecay(total, up, down, self.start_factor, self.end_factor, self.shape)
        # It arrives a step after the interval's last one, and stays there by itself.
        self._follow_curve(curve, replace(interval, end=None))


def constant_curve(interval: Interval, factor: float) -> curves.Constant:
    """Return the factor that holds until an interval's last step.

    Raises:
        ValueError: The interval is a single step, on which it would do nothing.
    """
    steps = interval.stop - interval.start - 1
    if steps <= 0 and factor != 1:
        raise ValueError(
            f"a constant factor of {factor} holds until the last of several steps, and here is one: let end be later, count "
            "training steps, or leave it out"
        )
    return curves.Constant(factor, steps)


def linear_curve(interval: Interval, start_factor: float, end_factor: float) -> curves.Linear:
    """Return the line that arrives at an interval's last step.

    Raises:
        ValueError: The interval has no end, or is a single step that warms up.
    """
    steps = interval.length("linear") - 1
    if steps <= 0 and start_factor < end_factor:
        raise ValueError(
            f"a warm-up of one step stays at its start_factor, {start_factor}, for ever: let end be later, count training "
            "steps, or leave it out"
        )
    return curves.Linear(start_factor, end_factor, steps)


def restarts_curve(
    interval: Interval, periods: tuple[float, ...], weights: tuple[float, ...] | None
) -> curves.CosineRestarts:
    """Return the descents of some periods.

    Raises:
        ValueError: There is none, or there are not as many weights.
    """
    weights = (1.0,) * len(periods) if weights is None else tuple(weights)
    if not periods or len(weights) != len(periods):
        raise ValueError(f"each period has a weight: there are {len(periods)} periods and {len(weights)} weights")
    return curves.CosineRestarts(tuple(interval.steps(period) for period in periods), weights)

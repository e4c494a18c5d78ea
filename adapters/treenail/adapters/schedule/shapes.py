"""The schedules by their shapes, for the learning rate, momentum or any other parameter of an optimizer's groups.

Each acts from ``begin`` on and before ``end``; before, it leaves the value alone, and afterwards its last factor stays. A
warm-up is a schedule that ends where the next one begins. ``by_epoch`` says what its steps are to those who step it;
``convert_to_iter_based`` reads all lengths as epochs and makes them training steps, of which an epoch has ``epoch_length``.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch.optim import Optimizer

from treenail.adapters.schedule import curves
from treenail.adapters.schedule.curves import Annealing, DecayShape
from treenail.adapters.schedule.schedule import Interval, Schedule

Factor = Annotated[float, Meta(ge=0)]
Length = Annotated[float, Meta(gt=0)]
EpochLength = Annotated[int, Meta(ge=1)]


def constant(
    optimizer: Optimizer,
    *,
    factor: Factor = 1 / 3,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Multiply by a factor until the interval's last step.

    Source: `torch.optim.lr_scheduler.ConstantLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        optimizer: The optimizer.
        factor: The factor.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: The interval has no steps, or the groups no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    steps = interval.stop - interval.start - 1
    curve = curves.Constant(factor, steps)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


def linear(
    optimizer: Optimizer,
    *,
    start_factor: Factor = 1 / 3,
    end_factor: Factor = 1.0,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Multiply by a factor that goes along a line and arrives at the interval's last step; a warm-up, or a decay.

    Source: `torch.optim.lr_scheduler.LinearLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        optimizer: The optimizer.
        start_factor: The factor at the first step.
        end_factor: The factor at the last step.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; required.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: It has no end, is a warm-up of a single step, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    curve = linear_curve(interval, start_factor, end_factor)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


def cosine(
    optimizer: Optimizer,
    *,
    period: Length | None = None,
    eta_min: float = 0.0,
    eta_min_ratio: float = 0.0,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Go down along half a cosine, from what is there to ``eta_min``.

    Source: the annealing of SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983, as `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Args:
        optimizer: The optimizer.
        period: Steps or epochs from top to bottom; null: from begin to end. After it the value goes up again.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: There is neither period nor end, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    _check_positive(period=period)
    curve = curves.Cosine(interval.length("cosine without period") if period is None else interval.steps(period))
    return Schedule(optimizer, param, curve, interval, floor=eta_min, floor_ratio=eta_min_ratio, last_epoch=last_epoch)


def cosine_restarts(
    optimizer: Optimizer,
    *,
    periods: tuple[Length, ...],
    weights: tuple[float, ...] | None = None,
    eta_min: float = 0.0,
    eta_min_ratio: float = 0.0,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Go down along half a cosine, again and again, each time from a height of its own.

    Source: SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983; weights as in mmengine's ``CosineRestartLR``.

    Args:
        optimizer: The optimizer.
        periods: Steps or epochs of each descent; after the last one the value stays.
        weights: What each descent multiplies the value with, from which it begins; null: 1.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: There are not as many weights as periods, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    weights = (1.0,) * len(periods) if weights is None else tuple(weights)
    if not periods or len(weights) != len(periods):
        raise ValueError(f"each period has a weight: there are {len(periods)} periods and {len(weights)} weights")
    _check_positive(**{f"period {index}": period for index, period in enumerate(periods)})
    curve = curves.CosineRestarts(tuple(interval.steps(period) for period in periods), weights)
    return Schedule(optimizer, param, curve, interval, floor=eta_min, floor_ratio=eta_min_ratio, last_epoch=last_epoch)


def exponential(
    optimizer: Optimizer,
    *,
    gamma: Factor,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Multiply by ``gamma`` once more at each step after the first.

    Source: `torch.optim.lr_scheduler.ExponentialLR`. ``gamma`` is that of a step, also where lengths are converted.

    Args:
        optimizer: The optimizer.
        gamma: The factor of a step.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: The interval has no steps, or the groups no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    curve = curves.Exponential(gamma)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


def step(
    optimizer: Optimizer,
    *,
    step_size: Length,
    gamma: Factor = 0.1,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Multiply by ``gamma`` once more every so many steps.

    Source: `torch.optim.lr_scheduler.StepLR`.

    Args:
        optimizer: The optimizer.
        step_size: Steps or epochs between two changes.
        gamma: The factor of a change.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: The interval has no steps, or the groups no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    _check_positive(step_size=step_size)
    curve = curves.Step(interval.steps(step_size), gamma)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


def multi_step(
    optimizer: Optimizer,
    *,
    milestones: tuple[float, ...],
    gamma: Factor = 0.1,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Multiply by ``gamma`` once more at each milestone.

    Source: `torch.optim.lr_scheduler.MultiStepLR`.

    Args:
        optimizer: The optimizer.
        milestones: Steps or epochs after begin, in any order; one that comes twice counts twice.
        gamma: The factor of a milestone.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: The interval has no steps, or the groups no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    curve = curves.MultiStep(tuple(sorted(interval.steps(each) for each in milestones)), gamma)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


def polynomial(
    optimizer: Optimizer,
    *,
    power: Factor = 1.0,
    eta_min: float = 0.0,
    eta_min_ratio: float = 0.0,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Go down to ``eta_min``, which it reaches at the interval's last step, as a power of the steps left.

    Source: `torch.optim.lr_scheduler.PolynomialLR`, whose ``total_iters`` is ``end - begin - 1``.

    Args:
        optimizer: The optimizer.
        power: The power.
        eta_min: Where it leads, in the parameter's unit.
        eta_min_ratio: Likewise, as a part of each group's base value; both add up.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; required.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: It has no end, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    curve = curves.Polynomial(interval.length("polynomial") - 1, power)
    return Schedule(optimizer, param, curve, interval, floor=eta_min, floor_ratio=eta_min_ratio, last_epoch=last_epoch)


def one_cycle(
    optimizer: Optimizer,
    *,
    eta_max: float | tuple[float, ...],
    total_steps: Length | None = None,
    pct_start: Annotated[float, Meta(ge=0, le=1)] = 0.3,
    anneal_strategy: Annealing = "cos",
    div_factor: Length = 25.0,
    final_div_factor: Length = 1e4,
    three_phase: bool = False,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Go from a low value up to ``eta_max`` and down to a much lower one; it takes the place of the base value.

    Source: Smith and Topin 2018, arXiv:1708.07120, as `torch.optim.lr_scheduler.OneCycleLR`. What that does to the momentum is
    another one_cycle: ``param="momentum", eta_max=0.85, div_factor=0.85 / 0.95, final_div_factor=1``.

    Args:
        optimizer: The optimizer.
        eta_max: The highest value: of all groups, or of each.
        total_steps: Steps or epochs of the cycle; null: from begin to end.
        pct_start: Part of the cycle that goes up.
        anneal_strategy: Along half a cosine, or along a line.
        div_factor: eta_max / first value.
        final_div_factor: First value / last value.
        three_phase: Come down to the first value as fast as up, and then to the last one.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; null: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: There is neither total_steps nor end, not one eta_max for each group, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    _check_positive(total_steps=total_steps, div_factor=div_factor, final_div_factor=final_div_factor)
    if not 0 <= pct_start <= 1:
        raise ValueError(f"pct_start is a part of the cycle, from 0 to 1: it is {pct_start}")
    steps = interval.length("one_cycle without total_steps") if total_steps is None else interval.steps(total_steps)
    curve = curves.OneCycle(steps, pct_start, anneal_strategy, div_factor, final_div_factor, three_phase)
    return Schedule(optimizer, param, curve, interval, anchor=eta_max, last_epoch=last_epoch)


def wsd(
    optimizer: Optimizer,
    *,
    warmup: Factor,
    decay: Factor,
    shape: DecayShape = "linear",
    start_factor: Factor = 0.0,
    end_factor: Factor = 0.0,
    param: str = "lr",
    begin: float = 0,
    end: float | None = None,
    by_epoch: bool = True,
    convert_to_iter_based: bool = False,
    epoch_length: EpochLength | None = None,
    last_epoch: int = -1,
) -> Schedule:
    """Warm up along a line, stay, and decay at the end (warm-up, stable, decay).

    Sources: Hu et al. 2024, MiniCPM, arXiv:2404.06395; the shape one_minus_sqrt: Hägele et al. 2024, arXiv:2405.18392.

    Args:
        optimizer: The optimizer.
        warmup: Steps or epochs of the warm-up; 0: none.
        decay: Steps or epochs of the decay, the interval's last ones; it arrives when they are over.
        shape: Of the decay; one_minus_sqrt falls fast first: 1 - sqrt(its share that is over).
        start_factor: The factor at the first step.
        end_factor: The factor when the decay is over.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays; required.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: It has no end, is too short for warm-up and decay, or the groups have no such parameter.
    """
    interval = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
    total, up, down = interval.length("wsd"), interval.steps(warmup), interval.steps(decay)
    if up + down > total:
        raise ValueError(f"warm-up and decay take {up} + {down} steps, and there are {total}")
    curve = curves.WarmupStableDecay(total, up, down, start_factor, end_factor, shape)
    return Schedule(optimizer, param, curve, interval, last_epoch=last_epoch)


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


def _check_positive(**lengths: float | None) -> None:
    """Refuse what is not above 0; configs are checked by the annotations, calls are not."""
    for name, value in lengths.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0: it is {value}")

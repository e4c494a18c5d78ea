"""mmengine's schedulers of any parameter of an optimizer's groups."""

from __future__ import annotations

from torch.optim import Optimizer

from treenail.adapters.schedule import curves
from treenail.adapters.schedule.compat.base import (
    INF,
    EpochLength,
    Factor,
    Length,
    MmengineSchedule,
    UnitFactor,
    floors,
    in_unit,
)
from treenail.adapters.schedule.curves import Annealing
from treenail.adapters.schedule.schedule import Interval
from treenail.adapters.schedule.shapes import linear_curve


class ConstantParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a factor until the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        factor: The factor.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        factor: UnitFactor = 1 / 3,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        in_unit(factor=factor)
        curve = curves.Constant(factor, span.length("constant") - 1)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose)


class CosineAnnealingParamScheduler(MmengineSchedule):
    """Multiplies any parameter by half a cosine down to eta_min.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        T_max: Steps or epochs from top to bottom; null: from begin to end.
        eta_min: Where it leads, in the parameter's unit; null: 0.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        eta_min_ratio: Likewise, as a part of each group's base value; in the place of eta_min.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        T_max: Length | None = None,  # noqa: N803  # mmengine's
        eta_min: float | None = None,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        eta_min_ratio: float | None = None,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        period = span.length("cosine") if T_max is None else span.steps(T_max)
        curve = curves.Cosine(period)
        floor, floor_ratio = floors(eta_min, eta_min_ratio)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose, floor=floor, floor_ratio=floor_ratio)


class ExponentialParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more at each step after the first.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        gamma: The factor of a step, also of a converted one.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        gamma: Factor,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        curve = curves.Exponential(gamma)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose)


class LinearParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a factor along a line, which arrives at the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        start_factor: The factor at the first step.
        end_factor: The factor at the last step.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        start_factor: UnitFactor = 1 / 3,
        end_factor: UnitFactor = 1.0,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        in_unit(start_factor=start_factor, end_factor=end_factor)
        curve = linear_curve(span, start_factor, end_factor)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose)


class MultiStepParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more at each milestone.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        milestones: Steps or epochs after begin.
        gamma: The factor of a milestone.
        last_step: The step to go on after; -1 begins.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        milestones: tuple[float, ...],
        gamma: Factor = 0.1,
        last_step: int = -1,
        begin: float = 0,
        end: float = INF,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        curve = curves.MultiStep(tuple(sorted(span.steps(each) for each in milestones)), gamma)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose)


class PolyParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a power of the steps left, down to eta_min at the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        eta_min: Where it leads, in the parameter's unit.
        power: The power.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        eta_min: float = 0.0,
        power: Factor = 1.0,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        curve = curves.Polynomial(span.length("polynomial") - 1, power)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose, floor=eta_min)


class StepParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more every ``step_size`` steps.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        step_size: Steps or epochs between two changes.
        gamma: The factor of a change.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        step_size: Length,
        gamma: Factor = 0.1,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        curve = curves.Step(span.steps(step_size), gamma)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose)


class CosineRestartParamScheduler(MmengineSchedule):
    """Multiplies any parameter by half a cosine for each period, each from a height of its own.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        periods: Steps or epochs of each descent.
        restart_weights: What each descent multiplies the value with, from which it begins.
        eta_min: Where it leads, in the parameter's unit; null: 0.
        eta_min_ratio: Likewise, as a part of each group's base value; in the place of eta_min.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        periods: tuple[Length, ...],
        restart_weights: tuple[float, ...] = (1.0,),
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        if not periods or len(restart_weights) != len(periods):
            raise ValueError(
                f"there are {len(periods)} periods and {len(restart_weights)} restart_weights: write as many"
            )
        curve = curves.CosineRestarts(tuple(span.steps(each) for each in periods), tuple(restart_weights))
        floor, floor_ratio = floors(eta_min, eta_min_ratio)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose, floor=floor, floor_ratio=floor_ratio)


class OneCycleParamScheduler(MmengineSchedule):
    """Takes a parameter up from eta_max / div_factor and down below it.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        eta_max: The highest value: of all groups, or of each.
        total_steps: Steps or epochs of the cycle; null: from begin to end.
        pct_start: Part of the cycle that goes up.
        anneal_strategy: Along half a cosine, or along a line.
        div_factor: eta_max / first value.
        final_div_factor: First value / last value.
        three_phase: Come down to the first value as fast as up, and then to the last one.
        begin: First step or epoch.
        end: Step or epoch from which on its last factor stays.
        last_step: The step to go on after; -1 begins.
        by_epoch: Whether its steps are epochs, else training steps.
        verbose: Log every value.
        convert_to_iter_based: Lengths are in epochs, and it steps after each training step.
        epoch_length: Training steps of an epoch, for that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        eta_max: float | tuple[float, ...] = 0.0,
        total_steps: Length | None = None,
        pct_start: UnitFactor = 0.3,
        anneal_strategy: Annealing = "cos",
        div_factor: Length = 25.0,
        final_div_factor: Length = 1e4,
        three_phase: bool = False,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
        *,
        convert_to_iter_based: bool = False,
        epoch_length: EpochLength | None = None,
    ) -> None:
        span = Interval(begin, end, by_epoch, convert_to_iter_based, epoch_length)
        in_unit(pct_start=pct_start)
        steps = span.length("one_cycle") if total_steps is None else span.steps(total_steps)
        curve = curves.OneCycle(steps, pct_start, anneal_strategy, div_factor, final_div_factor, three_phase)
        super().__init__(optimizer, param_name, curve, span, last_step, verbose, anchor=eta_max)

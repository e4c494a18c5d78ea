"""mmengine's schedulers of the learning rate."""

from __future__ import annotations

from torch.optim import Optimizer

from treenail.adapters.schedule.compat.base import INF, EpochLength, Factor, Length, UnitFactor
from treenail.adapters.schedule.compat.parameter import (
    ConstantParamScheduler,
    CosineAnnealingParamScheduler,
    CosineRestartParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    OneCycleParamScheduler,
    PolyParamScheduler,
    StepParamScheduler,
)
from treenail.adapters.schedule.curves import Annealing


class ConstantLR(ConstantParamScheduler):
    """Multiplies the learning rate by a factor until the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            factor,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class CosineAnnealingLR(CosineAnnealingParamScheduler):
    """Multiplies the learning rate by half a cosine down to eta_min.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            T_max,
            eta_min,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            eta_min_ratio,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class ExponentialLR(ExponentialParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more at each step after the first.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            gamma,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class LinearLR(LinearParamScheduler):
    """Multiplies the learning rate by a factor along a line, which arrives at the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            start_factor,
            end_factor,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class MultiStepLR(MultiStepParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more at each milestone.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            milestones,
            gamma,
            last_step,
            begin,
            end,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class PolyLR(PolyParamScheduler):
    """Multiplies the learning rate by a power of the steps left, down to eta_min at the interval's last step.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            eta_min,
            power,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class StepLR(StepParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more every ``step_size`` steps.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            step_size,
            gamma,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class CosineRestartLR(CosineRestartParamScheduler):
    """Multiplies the learning rate by half a cosine for each period, each from a height of its own.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            periods,
            restart_weights,
            eta_min,
            eta_min_ratio,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class OneCycleLR(OneCycleParamScheduler):
    """Takes the learning rate up from eta_max / div_factor and down below it.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
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
        super().__init__(
            optimizer,
            "lr",
            eta_max,
            total_steps,
            pct_start,
            anneal_strategy,
            div_factor,
            final_div_factor,
            three_phase,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )

"""mmengine's schedulers of the momentum, which for optimizers with betas is the first of them."""

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
    PolyParamScheduler,
    StepParamScheduler,
)


class ConstantMomentum(ConstantParamScheduler):
    """Multiplies the momentum by a factor until the interval's last step.

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
            "momentum",
            factor,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class CosineAnnealingMomentum(CosineAnnealingParamScheduler):
    """Multiplies the momentum by half a cosine down to eta_min.

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
            "momentum",
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


class ExponentialMomentum(ExponentialParamScheduler):
    """Multiplies the momentum by ``gamma`` once more at each step after the first.

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
            "momentum",
            gamma,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
            convert_to_iter_based=convert_to_iter_based,
            epoch_length=epoch_length,
        )


class LinearMomentum(LinearParamScheduler):
    """Multiplies the momentum by a factor along a line, which arrives at the interval's last step.

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
            "momentum",
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


class MultiStepMomentum(MultiStepParamScheduler):
    """Multiplies the momentum by ``gamma`` once more at each milestone.

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
            "momentum",
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


class PolyMomentum(PolyParamScheduler):
    """Multiplies the momentum by a power of the steps left, down to eta_min at the interval's last step.

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
            "momentum",
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


class StepMomentum(StepParamScheduler):
    """Multiplies the momentum by ``gamma`` once more every ``step_size`` steps.

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
            "momentum",
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


class CosineRestartMomentum(CosineRestartParamScheduler):
    """Multiplies the momentum by half a cosine for each period, each from a height of its own.

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
            "momentum",
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

"""mmengine's schedulers, under their names and with their arguments, as closed forms.

They give the values of mmengine's own, step for step, but where those break their own promises: `docs/` tells under
schedules. In a config their names that torch has too (``LinearLR``, ``CosineAnnealingLR`` …) mean torch's, and
``mmengine.LinearLR`` means these.

Each family is one class, whose fields are mmengine's arguments in mmengine's order; the classes of the learning rate and of
the momentum (for optimizers with betas the first of them) leave out the parameter's name.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from torch.optim import Optimizer

from treenail.adapters.schedule import curves
from treenail.adapters.schedule.arguments import Begin, EpochLength, Factor, Length, UnitFactor
from treenail.adapters.schedule.compat.base import INF, MmengineSchedule
from treenail.adapters.schedule.compat.plateau import (
    ReduceOnPlateauLR,
    ReduceOnPlateauMomentum,
    ReduceOnPlateauParamScheduler,
)
from treenail.adapters.schedule.curves import Annealing
from treenail.adapters.schedule.shapes import constant_curve, linear_curve, restarts_curve

__all__ = [
    "INF",
    "ConstantLR",
    "ConstantMomentum",
    "ConstantParamScheduler",
    "CosineAnnealingLR",
    "CosineAnnealingMomentum",
    "CosineAnnealingParamScheduler",
    "CosineRestartLR",
    "CosineRestartMomentum",
    "CosineRestartParamScheduler",
    "ExponentialLR",
    "ExponentialMomentum",
    "ExponentialParamScheduler",
    "LinearLR",
    "LinearMomentum",
    "LinearParamScheduler",
    "MmengineSchedule",
    "MultiStepLR",
    "MultiStepMomentum",
    "MultiStepParamScheduler",
    "OneCycleLR",
    "OneCycleParamScheduler",
    "PolyLR",
    "PolyMomentum",
    "PolyParamScheduler",
    "ReduceOnPlateauLR",
    "ReduceOnPlateauMomentum",
    "ReduceOnPlateauParamScheduler",
    "StepLR",
    "StepMomentum",
    "StepParamScheduler",
]


@dataclass(eq=False, repr=False)
class ConstantParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a factor until the interval's last step.

    Args:
        factor: The factor.
    """

    optimizer: Optimizer
    param_name: str
    factor: UnitFactor = 1 / 3
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(constant_curve(interval, self.factor), interval)


@dataclass(eq=False, repr=False)
class ConstantLR(ConstantParamScheduler):
    """Multiplies the learning rate by a factor until the interval's last step."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class ConstantMomentum(ConstantParamScheduler):
    """Multiplies the momentum by a factor until the interval's last step."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class CosineAnnealingParamScheduler(MmengineSchedule):
    """Multiplies any parameter by half a cosine down to eta_min.

    Args:
        T_max: Steps or epochs from top to bottom; null: from begin to end.
        eta_min: Where it leads, in the parameter's unit; null: 0.
        eta_min_ratio: Likewise, as a part of each group's base value; in the place of eta_min.
    """

    optimizer: Optimizer
    param_name: str
    T_max: Length | None = None  # mmengine's
    eta_min: float | None = None
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    eta_min_ratio: float | None = None
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = curves.Cosine(interval.length("cosine", self.T_max))
        self._follow_curve(curve, interval, eta_min=self.eta_min, eta_min_ratio=self.eta_min_ratio)


@dataclass(eq=False, repr=False)
class CosineAnnealingLR(CosineAnnealingParamScheduler):
    """Multiplies the learning rate by half a cosine down to eta_min."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class CosineAnnealingMomentum(CosineAnnealingParamScheduler):
    """Multiplies the momentum by half a cosine down to eta_min."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class ExponentialParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more at each step after the first.

    Args:
        gamma: The factor of a step, also of a converted one.
    """

    optimizer: Optimizer
    param_name: str
    gamma: Factor
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        self._follow_curve(curves.Exponential(self.gamma), self._interval())


@dataclass(eq=False, repr=False)
class ExponentialLR(ExponentialParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more at each step after the first."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class ExponentialMomentum(ExponentialParamScheduler):
    """Multiplies the momentum by ``gamma`` once more at each step after the first."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class LinearParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a factor along a line, which arrives at the interval's last step.

    Args:
        start_factor: The factor at the first step.
        end_factor: The factor at the last step.
    """

    optimizer: Optimizer
    param_name: str
    start_factor: UnitFactor = 1 / 3
    end_factor: UnitFactor = 1.0
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(linear_curve(interval, self.start_factor, self.end_factor), interval)


@dataclass(eq=False, repr=False)
class LinearLR(LinearParamScheduler):
    """Multiplies the learning rate by a factor along a line, which arrives at the interval's last step."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class LinearMomentum(LinearParamScheduler):
    """Multiplies the momentum by a factor along a line, which arrives at the interval's last step."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class MultiStepParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more at each milestone.

    Args:
        milestones: Steps or epochs after begin.
        gamma: The factor of a milestone.
    """

    optimizer: Optimizer
    param_name: str
    milestones: tuple[float, ...]
    gamma: Factor = 0.1
    last_step: int = -1
    begin: Begin = 0
    end: float = INF
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        milestones = tuple(sorted(interval.steps(each) for each in self.milestones))
        self._follow_curve(curves.MultiStep(milestones, self.gamma), interval)


@dataclass(eq=False, repr=False)
class MultiStepLR(MultiStepParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more at each milestone."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class MultiStepMomentum(MultiStepParamScheduler):
    """Multiplies the momentum by ``gamma`` once more at each milestone."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class PolyParamScheduler(MmengineSchedule):
    """Multiplies any parameter by a power of the steps left, down to eta_min at the interval's last step.

    Args:
        eta_min: Where it leads, in the parameter's unit.
        power: The power.
    """

    optimizer: Optimizer
    param_name: str
    eta_min: float = 0.0
    power: Factor = 1.0
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = curves.Polynomial(interval.length("polynomial") - 1, self.power)
        self._follow_curve(curve, interval, eta_min=self.eta_min)


@dataclass(eq=False, repr=False)
class PolyLR(PolyParamScheduler):
    """Multiplies the learning rate by a power of the steps left, down to eta_min at the interval's last step."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class PolyMomentum(PolyParamScheduler):
    """Multiplies the momentum by a power of the steps left, down to eta_min at the interval's last step."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class StepParamScheduler(MmengineSchedule):
    """Multiplies any parameter by ``gamma`` once more every ``step_size`` steps.

    Args:
        step_size: Steps or epochs between two changes.
        gamma: The factor of a change.
    """

    optimizer: Optimizer
    param_name: str
    step_size: Length
    gamma: Factor = 0.1
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        self._follow_curve(curves.Step(interval.steps(self.step_size), self.gamma), interval)


@dataclass(eq=False, repr=False)
class StepLR(StepParamScheduler):
    """Multiplies the learning rate by ``gamma`` once more every ``step_size`` steps."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class StepMomentum(StepParamScheduler):
    """Multiplies the momentum by ``gamma`` once more every ``step_size`` steps."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class CosineRestartParamScheduler(MmengineSchedule):
    """Multiplies any parameter by half a cosine for each period, each from a height of its own.

    Args:
        periods: Steps or epochs of each descent.
        restart_weights: What each descent multiplies the value with, from which it begins.
        eta_min: Where it leads, in the parameter's unit; null: 0.
        eta_min_ratio: Likewise, as a part of each group's base value; in the place of eta_min.
    """

    optimizer: Optimizer
    param_name: str
    periods: tuple[Length, ...]
    restart_weights: tuple[float, ...] = (1.0,)
    eta_min: float | None = None
    eta_min_ratio: float | None = None
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        curve = restarts_curve(interval, self.periods, self.restart_weights)
        self._follow_curve(curve, interval, eta_min=self.eta_min, eta_min_ratio=self.eta_min_ratio)


@dataclass(eq=False, repr=False)
class CosineRestartLR(CosineRestartParamScheduler):
    """Multiplies the learning rate by half a cosine for each period, each from a height of its own."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class CosineRestartMomentum(CosineRestartParamScheduler):
    """Multiplies the momentum by half a cosine for each period, each from a height of its own."""

    param_name: str = field(default="momentum", init=False)


@dataclass(eq=False, repr=False)
class OneCycleParamScheduler(MmengineSchedule):
    """Takes a parameter up from eta_max / div_factor and down below it.

    Args:
        eta_max: The highest value: of all groups, or of each.
        total_steps: Steps or epochs of the cycle; null: from begin to end.
        pct_start: Part of the cycle that goes up.
        anneal_strategy: Along half a cosine, or along a line.
        div_factor: eta_max / first value.
        final_div_factor: First value / last value.
        three_phase: Come down to the first value as fast as up, and then to the last one.
    """

    optimizer: Optimizer
    param_name: str
    eta_max: float | tuple[float, ...] = 0.0
    total_steps: Length | None = None
    pct_start: UnitFactor = 0.3
    anneal_strategy: Annealing = "cos"
    div_factor: Length = 25.0
    final_div_factor: Length = 1e4
    three_phase: bool = False
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False
    _: KW_ONLY
    convert_to_iter_based: bool = False
    epoch_length: EpochLength | None = None

    def __post_init__(self) -> None:
        interval = self._interval()
        steps = interval.length("one_cycle", self.total_steps)
        curve = curves.OneCycle(
            steps, self.pct_start, self.anneal_strategy, self.div_factor, self.final_div_factor, self.three_phase
        )
        self._follow_curve(curve, interval, anchor=self.eta_max)


@dataclass(eq=False, repr=False)
class OneCycleLR(OneCycleParamScheduler):
    """Takes the learning rate up from eta_max / div_factor and down below it."""

    param_name: str = field(default="lr", init=False)

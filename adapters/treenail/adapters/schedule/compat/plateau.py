"""mmengine's reduction on a plateau."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, SupportsFloat, TypeAlias

import structlog
from torch.optim import Optimizer

from treenail.adapters.schedule.arguments import Begin, Count, Factor, Reduction, check_arguments
from treenail.adapters.schedule.compat.base import INF
from treenail.adapters.schedule.plateau import PlateauState, ReduceOnPlateau
from treenail.adapters.schedule.schedule import Interval, checked_state
from treenail.kernel import TrainingError, did_you_mean

Metrics: TypeAlias = Mapping[str, SupportsFloat] | SupportsFloat

_log = structlog.get_logger(__name__)


class EpochPlateauState(PlateauState):
    """What a checkpoint holds of a plateau that counts epochs, besides."""

    epochs: Count


@dataclass(eq=False, repr=False)
class ReduceOnPlateauParamScheduler(ReduceOnPlateau):
    """Reduces any parameter when a metric stops improving.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        monitor: Which metric, where `step` is given several; that of the validation of a run may do without ``val/``.
        rule: Whether the metric should become smaller or larger.
        factor: By what a group's value is multiplied.
        patience: How many validations without improvement are borne.
        threshold: How much better than the best counts as improvement.
        threshold_rule: Whether the threshold is a part of the best, or in the metric's unit.
        cooldown: Validations after a reduction that do not count.
        min_value: What no value falls below: for all groups, or for each.
        eps: A smaller reduction is left out.
        begin: First epoch whose validation counts; a call of `step` without a metric counts an epoch.
        end: The epoch from which on none counts.
        last_step: The validation to go on after; -1 begins.
        by_epoch: Must stay true.
        verbose: Log every reduction.

    Raises:
        ValueError: An argument is out of its range, or the optimizer's groups have no such parameter.
    """

    need_val_args: ClassVar[bool] = True
    """mmengine's hook, and ours, call `step` after each epoch and hand the metrics of each validation to it."""

    optimizer: Optimizer
    param_name: str
    monitor: str = "loss"
    rule: Literal["less", "greater"] = "less"
    factor: Reduction = 0.1
    patience: Count = 10
    threshold: Factor = 1e-4
    threshold_rule: Literal["rel", "abs"] = "rel"
    cooldown: Count = 0
    min_value: float | tuple[float, ...] = 0.0
    eps: Factor = 1e-8
    begin: Begin = 0
    end: float = INF
    last_step: int = -1
    by_epoch: bool = True
    verbose: bool = False

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self))
        Interval(self.begin, self.end)  # refuses what is none
        if not self.by_epoch:
            raise ValueError("a plateau is seen by validations: leave out by_epoch: false")
        super().__init__(
            self.optimizer,
            mode="min" if self.rule == "less" else "max",
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            threshold_mode=self.threshold_rule,
            cooldown=self.cooldown,
            minimum=self.min_value,
            eps=self.eps,
            param=self.param_name,
        )
        self.last_epoch = self.last_step + 1
        self._epochs = 0

    def step(self, metrics: Metrics | None = None, epoch: int | None = None) -> None:  # type: ignore[override]  # mmengine's
        """Count an epoch, or look at a metric.

        Args:
            metrics: The metrics by name, or the one that counts; None counts an epoch.
            epoch: Which validation this is, if it is not the next one.

        Raises:
            TrainingError: The metric that counts is not among them.
        """
        if metrics is None:
            self._epochs += 1
            return
        if isinstance(metrics, Mapping):
            name = self.monitor if self.monitor in metrics else f"val/{self.monitor}"
            if name not in metrics:
                mend = did_you_mean(self.monitor, metrics) or f"there are {', '.join(metrics)}"
                raise TrainingError(
                    f"a plateau of '{self.monitor}' needs it, and validation does not give it", mend=mend
                )
            metrics = metrics[name]
        if self.begin <= self._epochs < self.end:
            before = self.get_last_value()
            super().step(metrics, epoch)
            after = self.get_last_value()
            if self.verbose and after != before:
                _log.info("plateau", param=self.param, values=after, metric=float(metrics))

    def state_dict(self) -> dict[str, object]:
        """Return where the schedule stands."""
        return super().state_dict() | {"epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, and set the values.

        Raises:
            StateError: The state is of no such schedule, or of another parameter's; nothing has changed.
        """
        state = checked_state(state_dict, EpochPlateauState, "ReduceOnPlateau", self.param)
        self._load(state)
        self._epochs = state["epochs"]


@dataclass(eq=False, repr=False)
class ReduceOnPlateauLR(ReduceOnPlateauParamScheduler):
    """Reduces the learning rate when a metric stops improving."""

    param_name: str = field(default="lr", init=False)


@dataclass(eq=False, repr=False)
class ReduceOnPlateauMomentum(ReduceOnPlateauParamScheduler):
    """Reduces the momentum, which for optimizers with betas is the first of them, when a metric stops improving."""

    param_name: str = field(default="momentum", init=False)

"""mmengine's reduction on a plateau."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, SupportsFloat, TypeAlias

import structlog
from msgspec import Meta
from torch.optim import Optimizer

from treenail.adapters.schedule.compat.base import INF, Factor, unwrapped
from treenail.adapters.schedule.plateau import ReduceOnPlateau
from treenail.adapters.schedule.schedule import int_of
from treenail.kernel import TrainingError, did_you_mean

Count = Annotated[int, Meta(ge=0)]
Metrics: TypeAlias = Mapping[str, SupportsFloat] | SupportsFloat
Reduction = Annotated[float, Meta(ge=0, lt=1)]

_log = structlog.get_logger(__name__)


class ReduceOnPlateauParamScheduler(ReduceOnPlateau):
    """Reduces any parameter when a metric stops improving.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        param_name: Key of the optimizer's groups.
        monitor: Which metric, where `step` is given several.
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

    need_val_args = True  # mmengine's hook hands metrics to those that say so

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str,
        monitor: str = "loss",
        rule: Literal["less", "greater"] = "less",
        factor: Reduction = 0.1,
        patience: Count = 10,
        threshold: Factor = 1e-4,
        threshold_rule: Literal["rel", "abs"] = "rel",
        cooldown: Count = 0,
        min_value: float | tuple[float, ...] = 0.0,
        eps: Factor = 1e-8,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if rule not in {"less", "greater"}:
            raise ValueError(f"rule is less or greater, not {rule!r}")
        if not by_epoch:
            raise ValueError("a plateau is seen by validations: leave out by_epoch: false")
        if end <= begin:
            raise ValueError(f"end must be after begin: they are {end} and {begin}")
        super().__init__(
            unwrapped(optimizer),
            mode="min" if rule == "less" else "max",
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_rule,
            cooldown=cooldown,
            minimum=min_value,
            eps=eps,
            param=param_name,
        )
        self.last_epoch = last_step + 1
        self.by_epoch = True
        self.monitor = monitor
        self.verbose = verbose
        self._epochs_from, self._epochs_until = begin, end
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
            if self.monitor not in metrics:
                mend = did_you_mean(self.monitor, metrics) or f"there are {', '.join(metrics)}"
                raise TrainingError(
                    f"a plateau of '{self.monitor}' needs it, and validation does not give it", mend=mend
                )
            metrics = metrics[self.monitor]
        if self._epochs_from <= self._epochs < self._epochs_until:
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
            StateError: The state is of no such schedule, or of another parameter's.
        """
        epochs = int_of(state_dict, "epochs", self.param)
        super().load_state_dict(state_dict)
        self._epochs = epochs


class ReduceOnPlateauLR(ReduceOnPlateauParamScheduler):
    """Reduces the learning rate when a metric stops improving.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        monitor: Which metric, where `step` is given several.
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
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str = "loss",
        rule: Literal["less", "greater"] = "less",
        factor: Reduction = 0.1,
        patience: Count = 10,
        threshold: Factor = 1e-4,
        threshold_rule: Literal["rel", "abs"] = "rel",
        cooldown: Count = 0,
        min_value: float | tuple[float, ...] = 0.0,
        eps: Factor = 1e-8,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            optimizer,
            "lr",
            monitor,
            rule,
            factor,
            patience,
            threshold,
            threshold_rule,
            cooldown,
            min_value,
            eps,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
        )


class ReduceOnPlateauMomentum(ReduceOnPlateauParamScheduler):
    """Reduces the momentum, which for optimizers with betas is the first of them, when a metric stops improving.

    Args:
        optimizer: The optimizer, or mmengine's wrapper of one.
        monitor: Which metric, where `step` is given several.
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
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str = "loss",
        rule: Literal["less", "greater"] = "less",
        factor: Reduction = 0.1,
        patience: Count = 10,
        threshold: Factor = 1e-4,
        threshold_rule: Literal["rel", "abs"] = "rel",
        cooldown: Count = 0,
        min_value: float | tuple[float, ...] = 0.0,
        eps: Factor = 1e-8,
        begin: float = 0,
        end: float = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            optimizer,
            "momentum",
            monitor,
            rule,
            factor,
            patience,
            threshold,
            threshold_rule,
            cooldown,
            min_value,
            eps,
            begin,
            end,
            last_step,
            by_epoch,
            verbose,
        )

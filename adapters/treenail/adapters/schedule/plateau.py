"""Reduction when a metric stops improving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, SupportsFloat

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from treenail.adapters.schedule.arguments import Begin, Count, Factor, Reduction, check_arguments
from treenail.adapters.schedule.chain import Chain, Link
from treenail.adapters.schedule.params import unwrapped
from treenail.adapters.schedule.schedule import Interval, State, checked_state, last_learning_rates, load_link


class PlateauState(State):
    """What a checkpoint holds of a plateau, besides."""

    best: float
    cooldown_counter: Count
    num_bad_epochs: Count
    scales: list[float]


class ReduceOnPlateau(ReduceLROnPlateau):
    """Reduces a parameter when a metric stops improving; a factor beside those of the other schedules on it.

    When to reduce is torch's: https://pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html

    Args:
        optimizer: The optimizer.
        mode: Whether the metric should become smaller or larger.
        factor: By what a group's value is multiplied.
        patience: How many steps without improvement are borne.
        threshold: How much better than the best counts as improvement.
        threshold_mode: Whether the threshold is a part of the best, or in the metric's unit.
        cooldown: Steps after a reduction that do not count.
        minimum: What no value falls below: for all groups, or for each.
        eps: A smaller reduction is left out.
        param: Key of the optimizer's groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        begin: First step that counts; a step is a call with a metric, one each validation.
        end: The step from which on none counts.

    Raises:
        ValueError: An argument is out of its range, or the optimizer's groups have no such parameter.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        mode: Literal["min", "max"] = "min",
        factor: Reduction = 0.1,
        patience: Count = 10,
        threshold: Factor = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: Count = 0,
        minimum: float | tuple[float, ...] = 0.0,
        eps: Factor = 1e-8,
        param: str = "lr",
        begin: Begin = 0,
        end: float | None = None,
    ) -> None:
        check_arguments(ReduceOnPlateau.__init__, locals())
        interval = Interval(begin, end)
        optimizer = unwrapped(optimizer)
        self._chain = Chain.of(optimizer, param)
        super().__init__(
            optimizer,
            mode,
            factor,
            patience,
            threshold,
            threshold_mode,
            cooldown,
            list(minimum) if isinstance(minimum, Sequence) else minimum,
            eps,
        )
        self.param = param
        self._from, self._until = interval.start, interval.stop
        self._link = Link()
        self._link.group_scales = [1.0] * len(optimizer.param_groups)
        self._chain.append(self._link)
        self._chain.begin(self._link)

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # as torch's
        """Look at a metric, and reduce if it has not improved for too long.

        Args:
            metrics: The metric.
            epoch: Which step this is, if it is not the next one.
        """
        step = self.last_epoch if epoch is None else epoch - 1
        self.last_epoch = step
        if self._from <= step < self._until:
            super().step(metrics)
        else:
            self.last_epoch = step + 1

    def _reduce_lr(self, epoch: int) -> None:
        scales = self._link.group_scales or []
        self._chain.notice()
        values = self._chain.values()
        if len(self.min_lrs) != len(values):
            if self.default_min_lr is None:
                raise ValueError(f"there are {len(self.min_lrs)} minima, and {len(values)} groups: write one for each")
            self.min_lrs = [self.default_min_lr] * len(values)
        scales += [1.0] * (len(values) - len(scales))
        for index, (value, minimum) in enumerate(zip(values, self.min_lrs, strict=True)):
            reduced = max(value * self.factor, minimum)
            if value - reduced > self.eps:
                scales[index] *= self.factor if reduced > minimum else reduced / value
        self._link.group_scales = scales
        self._chain.update(self._link)

    def get_last_value(self) -> list[float]:
        """Return the scheduled parameter's value in each group."""
        return self._chain.values()

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group, whatever the schedule is of."""
        return last_learning_rates(self.optimizer)

    def state_dict(self) -> dict[str, object]:
        """Return where the schedule stands."""
        self._chain.notice()
        return {
            "kind": "ReduceOnPlateau",
            "param": self.param,
            "last_epoch": self.last_epoch,
            "best": self.best,
            "cooldown_counter": self.cooldown_counter,
            "num_bad_epochs": self.num_bad_epochs,
            "scales": list(self._link.group_scales or ()),
            "order": self._link.order,
            "outside": self._chain.outside,
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, and set the values; the state of the optimizer may be loaded before or after it.

        Raises:
            StateError: The state is of no such schedule, or of another parameter's; nothing has changed.
        """
        self._load(checked_state(state_dict, PlateauState, "ReduceOnPlateau", self.param))

    def _load(self, state: PlateauState) -> None:
        self._chain.notice()
        self.last_epoch, self.best = state["last_epoch"], state["best"]
        self.cooldown_counter, self.num_bad_epochs = state["cooldown_counter"], state["num_bad_epochs"]
        self._link.group_scales = state["scales"]
        load_link(state, self._chain, self._link)
        self._chain.update(self._link)

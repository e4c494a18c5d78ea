"""A schedule of one parameter of an optimizer's groups, with the interface of torch's schedulers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypedDict, TypeVar, cast

import msgspec
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from treenail.adapters.schedule.arguments import Count, LastStep
from treenail.adapters.schedule.chain import Chain, Link
from treenail.adapters.schedule.curves import CosineRestarts, Curve
from treenail.adapters.schedule.params import unwrapped
from treenail.kernel import StateError

T = TypeVar("T")
StateT = TypeVar("StateT", bound="State")


class State(TypedDict):
    """What a checkpoint holds of a schedule.

    Args:
        kind: Of its curve.
        param: What it sets.
        last_epoch: Where it stands; -1 before its first step, where torch's SequentialLR sets it.
        order: How many began before it; None while it did not begin.
        outside: What others multiplied each group's value with.
    """

    kind: str
    param: str
    last_epoch: LastStep
    order: Count | None
    outside: list[float]


@dataclass(frozen=True, slots=True)
class Interval:
    """When a schedule acts: from the step ``begin`` on, before the step ``end``.

    Args:
        begin: First step; before it, the schedule leaves the value alone.
        end: The step from which on its last factor stays; None: never.
        by_epoch: Whether its steps are epochs, else training steps.
        convert_to_iter_based: begin, end and all lengths are epochs, and its steps are training steps.
        epoch_length: Training steps of an epoch, for that.

    Raises:
        ValueError: begin is before 0, end is not after begin or infinite, or there is nothing to convert with.
    """

    begin: float = 0
    end: float | None = None
    by_epoch: bool = True
    convert_to_iter_based: bool = False
    epoch_length: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.begin < math.inf:
            raise ValueError(f"begin must be a step from 0 on: it is {self.begin}")
        if self.end is not None and not self.begin < self.end < math.inf:
            raise ValueError(
                f"end must be after begin: they are {self.end} and {self.begin}; what has no end leaves it out"
            )
        if self.convert_to_iter_based:
            if not self.by_epoch:
                raise ValueError("by_epoch: false has nothing to convert: leave out convert_to_iter_based")
            if self.epoch_length is None or self.epoch_length <= 0:
                raise ValueError(
                    f"convert_to_iter_based needs epoch_length, steps of an epoch, and got {self.epoch_length}"
                )

    def steps(self, length: float) -> float:
        """Return a length in steps."""
        return length * self.epoch_length if self.convert_to_iter_based and self.epoch_length else length

    @property
    def start(self) -> float:
        """The step at which it begins."""
        return int(self.steps(self.begin)) if self.convert_to_iter_based else self.begin

    @property
    def stop(self) -> float:
        """The step from which on it does nothing."""
        if self.end is None:
            return math.inf
        return int(self.steps(self.end)) if self.convert_to_iter_based else self.end

    def length(self, what: str, given: float | None = None) -> float:
        """Return a length in steps: that which is given, or the interval's own.

        Args:
            what: What needs a length, for messages.
            given: In the unit of begin and end.

        Raises:
            ValueError: There is none, and the interval has no end.
        """
        if given is not None:
            return self.steps(given)
        if self.end is None:
            raise ValueError(f"{what} needs an end: write end, the step (or epoch) before which it stops")
        return self.stop - self.start


class Schedule(LRScheduler):
    """Sets a parameter of each group: its base value times this schedule's curve and those of the others on it.

    `step` counts steps, or epochs, whatever it is called after. The value at any step follows from the step alone, so
    resuming replays nothing. See `Chain` for what several schedules do together.

    Args:
        optimizer: The optimizer, or a wrapper that has it as ``optimizer``.
        param: Key of its groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        curve: Factor by step since the schedule began.
        interval: When it acts.
        floor: What a factor of 0 leads to, in the parameter's unit.
        floor_ratio: Likewise, as a part of each group's base value.
        anchor: What the curve scales in the place of the base value: for all groups, or for each.
        last_epoch: The step to go on after; -1 begins.

    Raises:
        ValueError: There is no optimizer, its groups have no such parameter, or not as many as there are anchors; or
            last_epoch is below -1, or goes on with groups that do not say their base values.
        TrainingError: (also later) The curve's factor is more than a number can hold.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param: str,
        curve: Curve,
        interval: Interval,
        *,
        floor: float = 0.0,
        floor_ratio: float = 0.0,
        anchor: float | Sequence[float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        # The base class's constructor is not called: it patches optimizer.step and takes a first step of its own.
        if last_epoch < -1:
            raise ValueError(f"the step to go on after is at least 0, or -1 to begin: it is {last_epoch}")
        self.optimizer = optimizer = unwrapped(optimizer)
        self.param = param
        self.curve = curve
        self.by_epoch = interval.by_epoch and not interval.convert_to_iter_based
        self._weight = curve.weight if isinstance(curve, CosineRestarts) else None
        self._chain = Chain.of(optimizer, param, resumed=last_epoch >= 0)
        each = tuple(anchor) if isinstance(anchor, Sequence) else anchor
        if isinstance(each, tuple) and len(each) != len(optimizer.param_groups):
            raise ValueError(
                f"there are {len(each)} maxima for {len(optimizer.param_groups)} groups: write one for each"
            )
        # The integers that begin <= step < end.
        first = max(0, math.ceil(interval.start))
        last = sys.maxsize if math.isinf(interval.stop) else math.ceil(interval.stop) - 1
        self._link = Link(floor, floor_ratio, each, curve, first, last)
        self._chain.append(self._link)
        self._link.step = last_epoch
        self._step_count = 1  # accelerate adds to it
        self.step()

    @property
    def last_epoch(self) -> int:
        """The last step: 0 as soon as the schedule is built; torch's SequentialLR sets it."""
        return self._link.step

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        self._link.step = step
        self._follow()
        self._chain.settle()

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]  # torch has an attribute
        """The base value of each group."""
        return self._chain.bases

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step, or to any.

        Args:
            epoch: The step to go to, if it is not the next one.

        Raises:
            ValueError: The optimizer has got more groups than there are anchors.
        """
        link, chain = self._link, self._chain
        if epoch is not None or not link.simple:
            link.step = link.step + 1 if epoch is None else epoch
            self._follow()
            chain.update(link)
            return
        step = link.step = link.step + 1
        if step <= link.last:
            link.scale = link.curve(step - link.first)
        slot = chain.alone
        if slot is None:
            chain.write(link)
            return
        # What that would do for a single group, without a call.
        groups, group, key = chain.optimizer.param_groups, slot.group, chain.key
        if len(groups) == 1 and groups[0] is group and group[key] is slot.value:
            base, scale = slot.base, link.scale
            value = base * scale
            if not link.is_factor:
                value += (link.floor + link.ratio * base) * (1.0 - scale)
            slot.value = group[key] = value * slot.outside
        else:
            chain.update(link)

    @property
    def steps_plainly(self) -> bool:
        """Whether `step` does nothing besides, so that `Together` may do its work."""
        return type(self).step is Schedule.step

    def _follow(self) -> None:
        """Let the link say what its step asks for."""
        link = self._link
        local = min(link.step, link.last) - link.first
        if local < 0:
            if link.order is not None:
                link.order, link.scale, link.lift = None, 1.0, None
                link.simple = False
                self._chain.settle()
            return
        link.scale = factor = self.curve(local)
        if self._weight is not None:
            link.scale, link.lift = factor * self._weight(local), 1.0 - factor
        if link.order is None:
            link.simple = self._weight is None
            self._chain.begin(link)

    def get_last_value(self) -> list[float]:
        """Return the scheduled parameter's value in each group."""
        return self._chain.values()

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group, whatever the schedule is of."""
        return last_learning_rates(self.optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return what `get_last_lr` does."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, object]:
        """Return where the schedule stands."""
        self._chain.notice()
        return {
            "kind": type(self.curve).__name__,
            "param": self.param,
            "last_epoch": self._link.step,
            "order": self._link.order,
            "outside": self._chain.outside,
        }

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, and set the values; the state of the optimizer may be loaded before or after it.

        Raises:
            StateError: The state is of no such schedule, or of another parameter's; nothing has changed.
        """
        state = checked_state(state_dict, State, type(self.curve).__name__, self.param)
        self._chain.notice()
        self._link.step = state["last_epoch"]
        self._follow()
        load_link(state, self._chain, self._link)
        self._chain.update(self._link)


class Together:
    """Steps several schedules, and writes each parameter once, when all of its schedules have stepped.

    The values are those that the schedules give one after the other.

    Args:
        schedules: The schedules.
    """

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self._parts = [(each, each._link, *each._chain.place_of(each._link)) for each in schedules]
        self._chains = list({id(each._chain): each._chain for each in schedules}.values())

    @classmethod
    def where_possible(cls, schedulers: Iterable[T]) -> list[T | Together]:
        """Put neighbours together that may step so; the order stays.

        Args:
            schedulers: Ours, torch's and others.
        """
        found: list[T | Together] = []
        for together, run in groupby(schedulers, lambda each: isinstance(each, Schedule) and each.steps_plainly):
            neighbours = list(run)
            ours = [each for each in neighbours if isinstance(each, Schedule)]
            found += [cls(ours)] if together and len(ours) > 1 else neighbours
        return found

    def step(self) -> None:
        """Go to the next step."""
        for schedule, link, factors, place in self._parts:
            if link.simple:
                step = link.step = link.step + 1
                if step <= link.last:
                    factors[place] = link.scale = link.curve(step - link.first)
            else:
                link.step += 1
                schedule._follow()
                factors[place] = link.scale
        for chain in self._chains:
            chain.write_all()


def last_learning_rates(optimizer: Optimizer) -> list[float | Tensor]:
    """Return the learning rate of each group; tensors are copies."""
    rates = [cast("float | Tensor", group["lr"]) for group in optimizer.param_groups]
    return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]


def checked_state(state_dict: dict[str, object], form: type[StateT], kind: str, param: str) -> StateT:
    """Return a schedule's state, if it is one.

    Args:
        state_dict: The state.
        form: What such a state holds.
        kind: Of which kind it must be.
        param: Of which parameter it must be.

    Raises:
        StateError: It is of no schedule, or of another kind or parameter.
    """
    try:
        state = msgspec.convert(state_dict, form)
    except msgspec.ValidationError as error:
        detail = str(error).replace("Expected", "expected").replace("Object missing", "missing")
    else:
        if (state["kind"], state["param"]) == (kind, param):
            return state
        detail = f"it is of a {state['kind']} of '{state['param']}'"
    message = f"the state is not of a schedule {kind} of '{param}': {detail}"
    raise StateError(message, where=", ".join(state_dict), mend="was the config changed?")


def load_link(state: State, chain: Chain, link: Link) -> None:
    """Take the part of a schedule's state that is about others: what began before it, and what they multiplied."""
    link.order = state["order"]
    chain.outside = state["outside"]
    chain.settle()

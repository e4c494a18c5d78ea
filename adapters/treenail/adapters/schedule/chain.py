"""What several schedules together make of one parameter of an optimizer's groups."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from math import prod
from typing import TypeAlias, cast

from torch import Tensor
from torch.optim import Optimizer

from treenail.adapters.schedule.curves import UNCHANGED, Curve
from treenail.kernel import did_you_mean

Group: TypeAlias = dict[str, object]

_BLOCK = 32
"""Factors whose product is kept, so that a step of one of many schedules multiplies few numbers."""


class Link:
    """What a schedule does to the value that those begun before it leave: ``value · scale + floor · lift``.

    Args:
        floor: What the schedule tends to, in the parameter's unit.
        ratio: Likewise, as a part of each group's base value.
        anchor: In the place of the base value and of what other anchored links make of it: for all groups, or for each.
        curve: Its scale by step since it began.
        first: The step at which it begins.
        last: The step whose scale stays.
    """

    __slots__ = (
        "anchor",
        "block",
        "curve",
        "first",
        "floor",
        "group_scales",
        "index",
        "is_factor",
        "last",
        "lift",
        "order",
        "ratio",
        "scale",
        "simple",
        "step",
    )

    def __init__(
        self,
        floor: float = 0.0,
        ratio: float = 0.0,
        anchor: float | tuple[float, ...] | None = None,
        curve: Curve = UNCHANGED,
        first: int = 0,
        last: int = sys.maxsize,
    ) -> None:
        self.floor = floor
        self.ratio = ratio
        self.anchor = anchor
        self.is_factor = not floor and not ratio and anchor is None
        """Whether it multiplies all groups alike."""
        self.curve = curve.__call__  # bound once, for a step takes half a microsecond
        self.first = first
        self.last = last
        self.step = -1
        self.scale = 1.0
        self.lift: float | None = None
        """None: 1 - scale."""
        self.group_scales: list[float] | None = None
        """A scale for each group besides; what is missing is 1."""
        self.simple = False
        """Whether it began, and its scale is all that a step changes."""
        self.order: int | None = None
        """How many began before it; None while it did not begin."""
        self.index = 0
        self.block = 0
        """The block of factors where its own stands."""

    def anchor_of(self, index: int) -> float:
        """Return the anchor of a group.

        Raises:
            ValueError: There is none for this group.
        """
        if not isinstance(self.anchor, tuple):
            return self.anchor or 0.0
        if index >= len(self.anchor):
            raise ValueError(
                f"there are {len(self.anchor)} maxima, and the optimizer has more groups: write one for each"
            )
        return self.anchor[index]

    @property
    def is_affine(self) -> bool:
        """Whether it only scales, and lifts towards its floor by what that takes."""
        return self.anchor is None and self.group_scales is None and self.lift is None


class _Slot:
    """A group as the chain knows it."""

    __slots__ = ("base", "group", "outside", "value", "version", "written")

    def __init__(self, group: Group, base: float) -> None:
        self.group = group
        self.base = base
        self.outside = 1.0
        """What others than the chain's schedules multiplied the value with."""
        self.value = math.nan
        """The value when the chain last looked; where the group holds a float, that very object."""
        self.written: object = None
        """What the group held then, if it was no float."""
        self.version = 0
        """How often that tensor had been written to."""


class Chain:
    """The schedules of one parameter of one optimizer.

    The value of a group is its base value (``initial_lr`` in the group, as torch keeps it) times what the schedules make of
    it, in the order in which they began. Factors commute; a schedule with a floor bends what came before it towards the
    floor. What others do to the value meanwhile stays as a factor of its own, so that schedulers of torch may act on the
    same group; setting it back to the base value undoes that.

    Args:
        optimizer: The optimizer.
        name: Key of its groups, or ``momentum``, which for optimizers with ``betas`` is the first of them.
        resumed: The groups say their base values, and the values that they hold mean nothing.

    Raises:
        ValueError: A group has no such number, or says no base value though resumed.
    """

    def __init__(self, optimizer: Optimizer, name: str, *, resumed: bool = False) -> None:
        self.name = name
        self.optimizer = optimizer
        self._in_betas = name == "momentum" and "momentum" not in optimizer.defaults and "betas" in optimizer.defaults
        self.key = "betas" if self._in_betas else name
        self._links: list[Link] = []
        self._ordered: list[Link] = []
        self._blocks: list[list[float]] = []
        self._products: list[float] = []
        self._only_factors = True
        self._few: list[float] | None = None
        """The only block, if all links are factors."""
        self._affine = False
        """Whether all that began are affine."""
        self.alone: _Slot | None = None
        """The only group, if there is one link, and it is affine."""
        self._slots: list[_Slot] = []
        for group in cast("list[Group]", optimizer.param_groups):
            if resumed and f"initial_{name}" not in group:
                raise ValueError(
                    f"a group without 'initial_{name}' cannot be resumed: load the optimizer's state first"
                )
            slot = self._slot(group)
            if not resumed and slot.base != 0:
                slot.outside = slot.value / slot.base
            self._slots.append(slot)

    @classmethod
    def of(cls, optimizer: Optimizer, name: str, *, resumed: bool = False) -> Chain:
        """Return the chain of an optimizer's parameter, which lives as long as the optimizer."""
        chains: dict[str, Chain] = vars(optimizer).setdefault("_treenail_schedules", {})
        if name not in chains:
            chains[name] = cls(optimizer, name, resumed=resumed)
        return chains[name]

    def append(self, link: Link) -> None:
        """Take one more schedule."""
        link.index = len(self._links)
        link.block = link.index // _BLOCK
        self._links.append(link)
        if link.index % _BLOCK == 0:
            self._blocks.append([])
            self._products.append(1.0)
        self._only_factors = self._only_factors and link.is_factor and link.group_scales is None
        self.settle()

    def begin(self, link: Link) -> None:
        """Note that a schedule begins, after all those that did."""
        link.order = 1 + max((each.order for each in self._links if each.order is not None), default=-1)
        self.settle()

    def settle(self) -> None:
        """Take in what changed about links otherwise than by `update`."""
        for block, factors in enumerate(self._blocks):
            first = block * _BLOCK
            factors[:] = [link.scale for link in self._links[first : first + _BLOCK]]
            self._products[block] = prod(factors)
        self._few = self._blocks[0] if self._only_factors and len(self._blocks) == 1 else None
        if not self._only_factors:
            begun = [each for each in self._links if each.order is not None]
            self._ordered = sorted(begun, key=lambda each: (each.order, each.index))
            self._affine = all(each.is_affine for each in begun)
        one = len(self._links) == len(self._slots) == 1 and self._links[0].is_affine
        self.alone = self._slots[0] if one else None

    def write(self, link: Link) -> None:
        """Write what follows from the scale of a link that is simple.

        What `update` does, for groups that hold floats which nobody else changed.
        """
        product: float | None = None
        if self._few is not None:
            self._few[link.index] = link.scale
            product = prod(self._few)
        elif self._only_factors:
            product = self._multiplied(link)
        groups: list[Group] = self.optimizer.param_groups
        slots, key = self._slots, self.key
        if len(groups) == len(slots) and (product is not None or self._affine):
            count = 0
            for slot in slots:
                group = groups[count]
                count += 1  # noqa: SIM113  # enumerate and zip take time to be made
                if slot.group is not group or group[key] is not slot.value:
                    break
                value = base = slot.base
                if product is not None:
                    value *= product
                else:
                    for each in self._ordered:
                        scale = each.scale
                        value = value * scale + (each.floor + each.ratio * base) * (1.0 - scale)
                slot.value = group[key] = value * slot.outside
            else:
                return
        self.update(link)

    def place_of(self, link: Link) -> tuple[list[float], int]:
        """Return the block of factors where a link's own stands, and where in it."""
        return self._blocks[link.block], link.index - _BLOCK * link.block

    def write_all(self) -> None:
        """Write what follows from all links, whose scales stand in their places."""
        if len(self._blocks) > 1:
            self._products[:] = map(prod, self._blocks)
        self.write(self._links[0])

    def update(self, link: Link) -> None:
        """Write what the schedules make of each group, of which ``link`` changed."""
        product = self._multiplied(link) if self._only_factors else None
        self.notice()
        for index, slot in enumerate(self._slots):
            inner = self._fold(slot.base, index) if product is None else slot.base * product
            value = inner * slot.outside
            if value != slot.value:
                self._write(slot, value)

    def _multiplied(self, link: Link) -> float:
        block, products = link.block, self._products
        factors = self._blocks[block]
        factors[link.index - _BLOCK * block] = link.scale
        if len(products) == 1:
            return prod(factors)
        products[block] = prod(factors)
        return prod(products)

    def notice(self) -> None:
        """See which groups there are, and what others did to their values."""
        groups: list[Group] = self.optimizer.param_groups
        slots = self._slots
        if len(groups) != len(slots):
            del slots[len(groups) :]
            slots += [self._slot(group) for group in groups[len(slots) :]]
        for slot, group in zip(slots, groups, strict=True):
            held = group[self.key]
            if slot.group is not group:  # a loaded state brings groups of its own, with the values they were saved with
                slot.group, slot.base = group, self._base(group)
                self._look(slot, self._read(group))
            elif held is not slot.value and (held is not slot.written or slot.version != _version(held)):
                value = self._read(group)
                if value == slot.base:
                    slot.outside = 1.0
                elif slot.value not in {0.0, value}:  # what became of nothing says no factor
                    slot.outside *= value / slot.value
                self._look(slot, value)

    def values(self) -> list[float]:
        """Return the value that each group holds."""
        return [self._read(slot.group) for slot in self._slots]

    @property
    def bases(self) -> list[float]:
        """The base value of each group."""
        return [slot.base for slot in self._slots]

    @property
    def outside(self) -> list[float]:
        """What others multiplied each group's value with."""
        return [slot.outside for slot in self._slots]

    @outside.setter
    def outside(self, factors: Sequence[float]) -> None:
        for slot, factor in zip(self._slots, factors, strict=False):
            slot.outside = factor

    def _fold(self, base: float, index: int) -> float:
        value = base
        for link in reversed(self._ordered):
            if link.anchor is not None:
                value = link.anchor_of(index) * link.scale
                break
        for link in self._ordered:
            if link.anchor is None:
                lift = 1.0 - link.scale if link.lift is None else link.lift
                value = value * link.scale + (link.floor + link.ratio * base) * lift
                if link.group_scales is not None and index < len(link.group_scales):
                    value *= link.group_scales[index]
        return value

    def _slot(self, group: Group) -> _Slot:
        slot = _Slot(group, self._base(group))
        self._look(slot, self._read(group))
        return slot

    def _base(self, group: Group) -> float:
        if self.key not in group:
            found = [key for key in group if key != "params"]
            mend = did_you_mean(self.name, found) or f"there are {', '.join(found)}"
            raise ValueError(f"the optimizer's groups have no '{self.name}' to schedule: {mend}")
        held = self._held(group)
        if isinstance(held, bool) or not isinstance(held, (int, float, Tensor)):
            raise ValueError(f"'{self.name}' of the optimizer's groups is {held!r}, which is no number to schedule")
        base = group.setdefault(f"initial_{self.name}", held.clone() if isinstance(held, Tensor) else held)
        return float(cast("float | Tensor", base))

    def _held(self, group: Group) -> object:
        held = group[self.key]
        return cast("Sequence[object]", held)[0] if self._in_betas else held

    def _read(self, group: Group) -> float:
        return float(cast("float | Tensor", self._held(group)))

    def _write(self, slot: _Slot, value: float) -> None:
        held = self._held(slot.group)
        if isinstance(held, Tensor):
            held.fill_(value)  # compiled and captured steps read this very tensor
        elif self._in_betas:
            slot.group["betas"] = (value, *cast("tuple[object, ...]", slot.group["betas"])[1:])
        else:
            slot.group[self.key] = value
        self._look(slot, value)

    def _look(self, slot: _Slot, value: float) -> None:
        slot.value = value
        held = slot.group[self.key]
        if held is not value:
            slot.written, slot.version = held, _version(held)


def _version(held: object) -> int:
    """Return how often a tensor was written to in place: what a float's identity says, a tensor's does not."""
    first = held[0] if isinstance(held, tuple) else held
    return first._version if isinstance(first, Tensor) else 0

"""When a training validates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
"""A number of epochs or steps, from 1."""

DynamicIntervals = tuple[tuple[Count, Count], ...]
"""Pairs (begin, interval): from the epoch or step `begin` on, counted from 1, this interval holds."""


class ValidationIntervals:
    """After which epochs or steps a training validates: the multiples of an interval, which may change, and the last one.

    Args:
        last: The last epoch or step; it is validated in any case.
        begin: The first one after which is validated.
        interval: Validate after every multiple of it.
        dynamic: (begin, interval) pairs that replace `interval` from `begin` on, in ascending order; from there on the
            multiples of the new interval count.

    Raises:
        ValueError: A number is below 1, or the pairs are not in ascending order.
    """

    def __init__(self, last: int, begin: int, interval: int, dynamic: Sequence[tuple[int, int]] | None = None) -> None:
        pairs = [(1, interval), *(dynamic or ())]
        if min(last, begin, *(number for pair in pairs for number in pair)) < 1:
            raise ValueError(
                f"the last one, {last}, val_begin={begin}, val_interval={interval} and dynamic_intervals={dynamic} must be at "
                "least 1"
            )
        begins = [first for first, _ in pairs[1:]]
        if begins != sorted(set(begins)):
            raise ValueError(f"dynamic_intervals begin at {begins}, which must ascend")
        self.last = last
        self._pieces = [
            (max(first, begin), length, until)
            for (first, length), until in zip(pairs, [*begins, last + 1], strict=True)
        ]

    def following(self, done: int) -> int:
        """Return the first epoch or step after `done` that is validated; `last` where there is none."""
        for first, length, until in self._pieces:
            due = -(-max(first, done + 1) // length) * length
            if due < until:
                return min(due, self.last)
        return self.last

    def __contains__(self, done: int) -> bool:
        return self.following(done - 1) == done

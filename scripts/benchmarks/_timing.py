"""What all benchmarks share: taking turns, and figures of many rounds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Turn(NamedTuple, Generic[T]):
    """A contestant's result, and the reference's just before and just after it."""

    own: T
    before: T
    after: T


def interleave(
    reference: Callable[[], T], contestants: Mapping[str, Callable[[], T]], rounds: int
) -> dict[str, list[Turn[T]]]:
    """Let every contestant run once a round, each between two runs of the reference.

    A machine that is slow for a second or for a minute is slow for the reference, too. The order rotates from round to
    round: nobody always runs at the same place. A first round is not counted.

    Args:
        reference: What the contestants are compared with.
        contestants: What to run, by name.
        rounds: How many turns of each come back.
    """
    names = list(contestants)
    turns: dict[str, list[Turn[T]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        before = _clean(reference)
        for name in names[shift:] + names[:shift]:
            own, after = _clean(contestants[name]), _clean(reference)
            if number > 0:
                turns[name].append(Turn(own, before, after))
            before = after
        if sys.stderr.isatty():
            print(f"\rround {number} of {rounds}", end="" if number < rounds else "\n", file=sys.stderr, flush=True)
    return turns


def _clean(run: Callable[[], T]) -> T:
    gc.collect()
    return run()


class Figures(NamedTuple):
    """What is told of a series, in the unit of its measurements.

    Args:
        median: Over the rounds.
        over: Median of the differences to the reference around it.
        ratio: Median of the ratios to the reference around it.
    """

    median: float
    over: float
    ratio: float


def compare(turns: Sequence[Turn[float]]) -> Figures:
    """Sum up a contestant's turns."""
    around = [(turn.before + turn.after) / 2 for turn in turns]
    return Figures(
        median=median(turn.own for turn in turns),
        over=median(turn.own - beside for turn, beside in zip(turns, around, strict=True)),
        ratio=median(turn.own / beside for turn, beside in zip(turns, around, strict=True)),
    )

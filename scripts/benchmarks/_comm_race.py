"""The benchmark `comm`: contestants that run on all ranks at once, in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch.distributed as dist


class Contestant(NamedTuple):
    """Something that every rank does together with the others.

    Args:
        name: For the table.
        run: Does it, with what `make` returned.
        check: Gets what `run` returned and raises where it is not right; called on every rank in the round that is not counted.
        make: Makes what is given to `run`, before the clock starts.
    """

    name: str
    # Contestants have values of types of their own.
    run: Callable[[Any], object]
    check: Callable[[Any], None]
    make: Callable[[], object] = lambda: None


class Times(NamedTuple):
    """Seconds of a contestant, round by round.

    Args:
        first: On rank 0.
        slowest: On the rank that took longest.
    """

    first: list[float]
    slowest: list[float]


def race(contestants: Sequence[Contestant], rounds: int, calls: int = 1) -> dict[str, Times]:
    """Let every contestant run once a round on all ranks, which start together; the order rotates from round to round.

    A first round is not counted; results are checked in it.

    Args:
        contestants: The same on every rank.
        rounds: Rounds that are counted.
        calls: How many times a contestant does it in a row, where once is too short for a clock.
    """
    own: dict[str, list[float]] = {each.name: [] for each in contestants}
    for number in range(rounds + 1):
        shift = number % len(contestants)
        for each in [*contestants[shift:], *contestants[:shift]]:
            given = [each.make() for _ in range(calls)]
            gc.collect()
            dist.barrier()
            start = perf_counter()
            for argument in given:
                result = each.run(argument)
            seconds = (perf_counter() - start) / calls
            if number == 0:
                each.check(result)
            else:
                own[each.name].append(seconds)
            del result, given, argument
    every: list[dict[str, list[float]]] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return {
        name: Times(every[0][name], [max(ranks) for ranks in zip(*(each[name] for each in every), strict=True)])
        for name in own
    }


class Comparison(NamedTuple):
    """How many times faster one is than another.

    Args:
        medians: Ratio of the medians.
        bests: Ratio of the fastest rounds.
    """

    medians: float
    bests: float

    def __str__(self) -> str:
        return f"{_short(self.medians)}× (bests {_short(self.bests)}×)"


def faster(own: Sequence[float], other: Sequence[float]) -> Comparison:
    """Return how many times faster the first is."""
    return Comparison(median(other) / median(own), min(other) / min(own))


def rows(times: Mapping[str, Times], own: str) -> list[tuple[str, ...]]:
    """Return a table's rows: medians and bests in ms, and how many times as long as ours each took."""
    found: list[tuple[str, ...]] = []
    for name, each in times.items():
        against = faster(times[own].first, each.first)
        found.append(
            (
                name,
                _short(median(each.first) * 1e3),
                _short(min(each.first) * 1e3),
                _short(median(each.slowest) * 1e3),
                _short(against.medians),
                _short(against.bests),
            )
        )
    return found


HEADER = ("", "median ms", "best ms", "slowest rank", "× ours", "bests")


def _short(number: float) -> str:
    """Three digits, as many as a noisy machine can tell."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

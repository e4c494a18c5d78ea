"""Which of several sources a position draws from, in exact proportions and without counting from the start."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from treenail.adapters.sampling.permutation import Permutation
from treenail.kernel import mix

Exhausted = Literal["restart", "stop", "renormalize"]
"""What happens when a source has no samples left in an epoch.

``"restart"``: it begins again, in a new order. ``"stop"``: the epoch ends. ``"renormalize"``: the others go on in their
proportions until every source was drawn once.
"""

_ROUND = 1024  # positions within which the sources have their shares, at least; a shuffle of so many is quick


class Draws(NamedTuple):
    """What positions draw; int64[n] each.

    Args:
        sources: The source, 0 … number of sources - 1.
        passes: How many times that source was drawn through before.
        offsets: The position in this pass of the source.
    """

    sources: Tensor
    passes: Tensor
    offsets: Tensor


class _Segment(NamedTuple):
    """A stretch of an epoch with one proportion: start position, draws of each source before it and within it."""

    start: int
    before: list[int]
    counts: list[int]
    rounds: int

    @property
    def length(self) -> int:
        return sum(self.counts)


class Proportions:
    """Sources drawn from in proportion to weights; a pure function of (epoch, position).

    An epoch falls into rounds of about a thousand positions. After each round every source was drawn from as often as its
    weight says, to within one; within a round the order is a random one.

    Args:
        lengths: Samples of each source.
        weights: Weight of each source, 0 or more; 0 is never drawn from.
        seed: Seed of the order within rounds.
        num_samples: Positions of an epoch; for ``exhausted="restart"`` only. None: the sum of the drawn sources' lengths.
        exhausted: What happens when a source has no samples left in an epoch.

    Raises:
        ValueError: The arguments do not fit each other.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        *,
        seed: int,
        num_samples: int | None = None,
        exhausted: Exhausted = "restart",
    ) -> None:
        _check(lengths, weights, num_samples, exhausted)
        self._seed = seed
        self._lengths = list(lengths)
        shares = [Fraction(weight) for weight in weights]  # exact: what a float holds is a fraction
        drawn = [length if share else 0 for length, share in zip(lengths, shares, strict=True)]
        if exhausted == "renormalize":
            self._segments = _until_all_are_empty(drawn, shares)
        else:
            if exhausted == "stop":
                total, each = sum(shares), zip(lengths, shares, strict=True)
                num_samples = min(int(length * total / share) for length, share in each if share)
                while any(
                    count > length for count, length in zip(_apportion(num_samples, shares), lengths, strict=True)
                ):
                    num_samples -= 1  # rounding up gave a source one too many
            counts = _apportion(sum(drawn) if num_samples is None else num_samples, shares)
            self._segments = [_segment(0, [0] * len(counts), counts)]
        self._starts = [segment.start for segment in self._segments]
        last = self._segments[-1]
        self.length = last.start + last.length
        self._each = [before + count for before, count in zip(last.before, last.counts, strict=True)]
        self._last: tuple[tuple[int, int, int], _Round] | None = None

    def at(self, epoch: int, positions: Tensor) -> Draws:
        """Return what the positions int64[n] of an epoch draw, each 0 … length-1."""
        draws = Draws(*(torch.empty_like(positions) for _ in range(3)))
        done = 0
        while done < len(positions):  # positions ascend, so that each round has one stretch of them
            number = bisect_right(self._starts, int(positions[done])) - 1
            current = self._round(epoch, number, int(positions[done]) - self._starts[number])
            until = int(torch.searchsorted(positions, current.stop))
            sources, counts = current.draw(positions[done:until] - current.start)
            lengths = torch.tensor(self._lengths)[sources]
            counts += torch.tensor([epoch * each for each in self._each])[sources]
            draws.sources[done:until] = sources
            draws.passes[done:until] = counts // lengths
            draws.offsets[done:until] = counts % lengths
            done = until
        return draws

    def _round(self, epoch: int, number: int, offset: int) -> _Round:
        """Return the round of a segment that holds an offset into it; the last one used stays at hand."""
        segment = self._segments[number]
        length, rounds = segment.length, segment.rounds
        index = ((offset + 1) * rounds - 1) // length
        if self._last is None or self._last[0] != (epoch, number, index):
            start, stop = index * length // rounds, (index + 1) * length // rounds
            totals = list(accumulate(segment.counts))
            at_start, at_stop = ([0, *(edge * total // length for total in totals)] for edge in (start, stop))
            self._last = (
                (epoch, number, index),
                _Round(
                    segment.start + start,
                    segment.start + stop,
                    torch.tensor([late - early for early, late in zip(at_start, at_stop, strict=True)]),
                    torch.tensor(
                        [
                            before + above - below
                            for before, below, above in zip(segment.before, at_start, at_start[1:], strict=False)
                        ]
                    ),
                    Permutation(stop - start, mix(self._seed, epoch, number, index, "mixture")),
                ),
            )
        return self._last[1]


class _Round(NamedTuple):
    """A round: its positions, where each source's slots begin and end, how often each was drawn before, and its order."""

    start: int
    stop: int
    edges: Tensor
    before: Tensor
    order: Permutation

    def draw(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return (sources, counts of draws of that source before it in the epoch) at places of the round; int64[n]."""
        slots = self.order(places)
        sources = torch.searchsorted(self.edges[1:], slots, right=True)
        return sources, self.before[sources] + slots - self.edges[sources]


def _check(lengths: Sequence[int], weights: Sequence[float], num_samples: int | None, exhausted: str) -> None:
    if exhausted not in get_args(Exhausted):
        raise ValueError(f"exhausted is {exhausted!r}, must be one of {', '.join(map(repr, get_args(Exhausted)))}")
    if len(lengths) != len(weights) or not lengths:
        raise ValueError(f"there are {len(lengths)} sources and {len(weights)} weights; each source needs a weight")
    for number, (length, weight) in enumerate(zip(lengths, weights, strict=True)):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weights[{number}] is {weight}, must be a finite number, 0 or more")
        if length < 0 or (length == 0 and weight > 0):
            raise ValueError(f"source {number} has the weight {weight}, but {length} samples; give it the weight 0")
    if not any(weights):
        raise ValueError("all weights are 0; there is nothing to draw from")
    if num_samples is not None and (exhausted != "restart" or num_samples < 0):
        raise ValueError(f"num_samples is {num_samples}; it is for exhausted='restart' and must not be negative")


def _segment(start: int, before: list[int], counts: list[int]) -> _Segment:
    """Return a segment with as many rounds as leave each source two draws in each: so no share is ever negative."""
    return _Segment(
        start, before, counts, max(1, min(sum(counts) // _ROUND, min((n for n in counts if n), default=0) // 2))
    )


def _apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Return whole numbers that sum to total, each within one of its proportion: the largest remainders are rounded up."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(number) for number in exact]
    missing = total - sum(counts)
    for place in sorted(range(len(shares)), key=lambda place: counts[place] - exact[place])[:missing]:
        counts[place] += 1
    return counts


def _until_all_are_empty(lengths: Sequence[int], shares: Sequence[Fraction]) -> list[_Segment]:
    """Return the segments of an epoch in which every source is drawn once, each in proportion while it lasts."""
    left, before, start = list(lengths), [0] * len(lengths), 0
    segments = []
    while any(left):
        # The source that runs out first ends the segment; the others have been drawn in proportion until then.
        time = min(Fraction(count) / share for count, share in zip(left, shares, strict=True) if count)
        counts = [min(count, round(time * share)) if count else 0 for count, share in zip(left, shares, strict=True)]
        segments.append(_segment(start, list(before), counts))
        start += sum(counts)
        left = [count - drawn for count, drawn in zip(left, counts, strict=True)]
        before = [count + drawn for count, drawn in zip(before, counts, strict=True)]
    return segments or [_segment(0, before, before)]

"""Which of several sources a position draws from, in exact proportions and without counting from the start."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from treenail.adapters.sampling.permutation import hashed
from treenail.kernel import mix

Exhausted = Literal["restart", "stop", "renormalize"]
"""What happens when a source has no samples left in an epoch.

``"restart"``: it begins again, in a new order. ``"stop"``: the epoch ends. ``"renormalize"``: the others go on in their
proportions until every source was drawn once.
"""

_ROUND = 2048  # the most positions within which sources are drawn in a random order


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


class _Stretch(NamedTuple):
    """Positions of an epoch: the first and how many, the draws of each source among them, and before them."""

    start: int
    length: int
    counts: list[int]
    before: list[int]

    def halves(self) -> tuple[_Stretch, _Stretch]:
        """Divide it in two, and each source's draws in proportion, to within one."""
        half = self.length // 2
        early = _apportion(half, self.counts)
        late = [count - drawn for count, drawn in zip(self.counts, early, strict=True)]
        until = [before + drawn for before, drawn in zip(self.before, early, strict=True)]
        return (
            _Stretch(self.start, half, early, self.before),
            _Stretch(self.start + half, self.length - half, late, until),
        )


class _Round(NamedTuple):
    """A stretch of few positions, drawn: its first position, and for each the source and its draws before; int64[n]."""

    epoch: int
    start: int
    sources: Tensor
    drawn: Tensor


class Proportions:
    """Sources drawn from in proportion to weights; a pure function of (epoch, position).

    An epoch is halved, and what each source gives with it, until the stretches are short; in those the sources come in a random
    order. At the end of every stretch each source was drawn as often as its weight says, to within two. The draws of a
    source follow each other in its own order.

    Args:
        lengths: Samples of each source.
        weights: Weight of each source, 0 or more; 0 is never drawn from.
        seed: Seed of the order of sources.
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
        shares = [Fraction(weight) for weight in weights]  # exact: what a float holds is a fraction
        drawn = [length if share else 0 for length, share in zip(lengths, shares, strict=True)]
        if exhausted == "renormalize":
            self._stretches = _until_all_are_empty(drawn, shares)
        else:
            if num_samples is None:
                num_samples = sum(drawn) if exhausted == "restart" else _until_one_is_empty(lengths, shares)
            self._stretches = [_Stretch(0, num_samples, _apportion(num_samples, shares), [0] * len(shares))]
        self._starts = [stretch.start for stretch in self._stretches]
        last = self._stretches[-1]
        self.length = last.start + last.length
        self._lengths = torch.tensor(lengths, device="cpu")
        self._each = torch.tensor(
            [before + count for before, count in zip(last.before, last.counts, strict=True)], device="cpu"
        )
        self._path = self._stretches[:1]  # from a whole stretch to the short one used last
        self._last: _Round | None = None

    def at(self, epoch: int, positions: Tensor) -> Draws:
        """Return what ascending positions int64[n] of an epoch draw, each 0 … length-1."""
        draws = Draws(*(torch.empty_like(positions) for _ in range(3)))
        done = 0
        while done < len(positions):
            current = self._round(epoch, int(positions[done]))
            until = int(torch.searchsorted(positions, current.start + len(current.sources)))
            places = positions[done:until] - current.start
            sources = current.sources[places]
            # Sources go on from epoch to epoch, so that none of their samples is drawn more often than the others.
            drawn, lengths = current.drawn[places] + epoch * self._each[sources], self._lengths[sources]
            draws.sources[done:until], draws.passes[done:until] = sources, drawn // lengths
            draws.offsets[done:until] = drawn % lengths
            done = until
        return draws

    def _round(self, epoch: int, position: int) -> _Round:
        """Return the round of an epoch that holds a position; the one used last stays at hand."""
        last = self._last
        if last is None or last.epoch != epoch or not 0 <= position - last.start < len(last.sources):
            short = self._short(position)
            key = mix(self._seed, epoch, "mixture")
            order = hashed(key, torch.arange(short.start, short.start + short.length, device="cpu")).argsort()
            counts = torch.tensor(short.counts, device="cpu")
            sources = torch.arange(len(counts), device="cpu").repeat_interleave(counts)[order]
            in_order = sources.argsort(stable=True)
            drawn = torch.empty_like(sources)
            drawn[in_order] = torch.arange(short.length, device="cpu")
            drawn += (torch.tensor(short.before, device="cpu") - counts.cumsum(0) + counts)[sources]
            self._last = last = _Round(epoch, short.start, sources, drawn)
        return last

    def _short(self, position: int) -> _Stretch:
        """Return the short stretch that holds a position, by halving from the last one on the way there that holds it."""
        while self._path and not 0 <= position - self._path[-1].start < self._path[-1].length:
            self._path.pop()
        if not self._path:
            self._path.append(self._stretches[bisect_right(self._starts, position) - 1])
        while self._path[-1].length > _ROUND:
            early, late = self._path[-1].halves()
            self._path.append(early if position < late.start else late)
        return self._path[-1]


def _check(lengths: Sequence[int], weights: Sequence[float], num_samples: int | None, exhausted: str) -> None:
    if exhausted not in get_args(Exhausted):
        raise ValueError(f"exhausted is {exhausted!r}, must be one of {', '.join(map(repr, get_args(Exhausted)))}")
    if len(lengths) != len(weights) or not lengths:
        raise ValueError(f"there are {len(lengths)} sources and {len(weights)} weights; each source needs a weight")
    for number, (length, weight) in enumerate(zip(lengths, weights, strict=True)):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weights[{number}] is {weight}, must be a finite number, 0 or more")
        if length < 0 or (length == 0 and weight > 0 and any(lengths)):
            raise ValueError(f"source {number} has the weight {weight}, but {length} samples; give it the weight 0")
    if num_samples and not any(lengths):
        raise ValueError(f"num_samples is {num_samples}, but all sources are empty")
    if not any(weights) and any(lengths):
        raise ValueError("all weights are 0; there is nothing to draw from")
    if num_samples is not None and (exhausted != "restart" or num_samples < 0):
        raise ValueError(f"num_samples is {num_samples}; it is for exhausted='restart' and must not be negative")


def _apportion(total: int, shares: Sequence[Fraction] | Sequence[int]) -> list[int]:
    """Return whole numbers that sum to total, each within one of its proportion: the largest remainders are rounded up."""
    whole = sum(shares)
    exact = [divmod(total * share, whole) if whole else (0, 0) for share in shares]
    counts = [int(count) for count, _ in exact]
    for place in sorted(range(len(shares)), key=lambda place: -exact[place][1])[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _until_one_is_empty(lengths: Sequence[int], shares: Sequence[Fraction]) -> int:
    """Return how many positions there are in proportion until a source has no more."""
    whole = sum(shares)
    lasting = (int(length * whole / share) for length, share in zip(lengths, shares, strict=True) if share)
    total = min(lasting, default=0)
    while any(count > length for count, length in zip(_apportion(total, shares), lengths, strict=True)):
        total -= 1  # rounding up gave a source one too many
    return total


def _until_all_are_empty(lengths: Sequence[int], shares: Sequence[Fraction]) -> list[_Stretch]:
    """Return the stretches of an epoch in which every source is drawn once, each in proportion while it lasts."""
    left, before, start = list(lengths), [0] * len(lengths), 0
    stretches = []
    while any(left):
        # The source that runs out first ends the stretch; the others have been drawn in proportion until then.
        time = min(Fraction(count) / share for count, share in zip(left, shares, strict=True) if count)
        counts = [min(count, round(time * share)) for count, share in zip(left, shares, strict=True)]
        stretches.append(_Stretch(start, sum(counts), counts, before))
        start += sum(counts)
        left = [count - drawn for count, drawn in zip(left, counts, strict=True)]
        before = [count + drawn for count, drawn in zip(before, counts, strict=True)]
    return stretches or [_Stretch(0, 0, left, before)]

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
    """Positions of an epoch: the first and how many, the draws of each source among them and before them; int64[s]."""

    start: int
    length: int
    counts: Tensor
    before: Tensor

    def halves(self) -> tuple[_Stretch, _Stretch]:
        """Divide it in two, and each source's draws to within one half."""
        half, odd = self.length // 2, self.counts & 1
        # Of the sources that have one draw too many, every second one gives it to the first half: it then has `half`.
        early = (self.counts >> 1) + (odd & (odd.cumsum(0) + 1))
        return (
            _Stretch(self.start, half, early, self.before),
            _Stretch(self.start + half, self.length - half, self.counts - early, self.before + early),
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
            self._stretches = [_stretch(0, _apportion(num_samples, shares), [0] * len(shares))]
        self._starts = [stretch.start for stretch in self._stretches]
        last = self._stretches[-1]
        self.length = last.start + last.length
        self._lengths = torch.tensor(lengths, dtype=torch.int64, device="cpu")
        self._each: list[int] = (last.before + last.counts).tolist()
        self._begun: tuple[int, Tensor, Tensor] | None = None
        self._path = self._stretches[:1]  # from a whole stretch to the short one used last
        self._last: _Round | None = None

    def at(self, epoch: int, positions: Tensor) -> Draws:
        """Return what ascending positions int64[n] of an epoch draw, each 0 … length-1."""
        draws = Draws(*(torch.empty_like(positions) for _ in range(3)))
        passes, offsets = self._beginning(epoch)
        done = 0
        while done < len(positions):
            current = self._round(epoch, int(positions[done]))
            until = int(torch.searchsorted(positions, current.start + len(current.sources)))
            places = positions[done:until] - current.start
            sources = current.sources[places]
            drawn, lengths = current.drawn[places] + offsets[sources], self._lengths[sources]
            draws.sources[done:until], draws.passes[done:until] = sources, passes[sources] + drawn // lengths
            draws.offsets[done:until] = drawn % lengths
            done = until
        return draws

    def _beginning(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return (pass, offset in it) that each source begins an epoch at; int64[s] each.

        Sources go on from epoch to epoch, so that none of their samples is drawn more often than the others.
        """
        begun = self._begun
        if begun is None or begun[0] != epoch:
            counts = [
                divmod(epoch * each, max(length, 1))
                for each, length in zip(self._each, self._lengths.tolist(), strict=True)
            ]
            passes = torch.tensor([number % 2**62 for number, _ in counts], dtype=torch.int64, device="cpu")
            offsets = torch.tensor([offset for _, offset in counts], dtype=torch.int64, device="cpu")
            self._begun = begun = epoch, passes, offsets
        return begun[1], begun[2]

    def _round(self, epoch: int, position: int) -> _Round:
        """Return the round of an epoch that holds a position; the one used last stays at hand."""
        last = self._last
        if last is None or last.epoch != epoch or not 0 <= position - last.start < len(last.sources):
            short = self._short(position)
            key = mix(self._seed, epoch, "mixture")
            order = hashed(key, torch.arange(short.start, short.start + short.length, device="cpu")).argsort()
            sources = torch.arange(len(short.counts), device="cpu").repeat_interleave(short.counts)[order]
            in_order = sources.argsort(stable=True)
            drawn = torch.empty_like(sources)
            drawn[in_order] = torch.arange(short.length, device="cpu")
            drawn += (short.before - short.counts.cumsum(0) + short.counts)[sources]
            self._last = last = _Round(epoch, short.start, sources, drawn)
        return last

    def _short(self, position: int) -> _Stretch:
        """Return the short stretch that holds a position, by halving from the last one on the way there that holds it."""
        path = list(self._path)  # a list of its own: another thread may draw, too
        while path and not 0 <= position - path[-1].start < path[-1].length:
            path.pop()
        if not path:
            path.append(self._stretches[bisect_right(self._starts, position) - 1])
        while path[-1].length > _ROUND:
            early, late = path[-1].halves()
            path.append(early if position < late.start else late)
        self._path = path
        return path[-1]


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


def _stretch(start: int, counts: Sequence[int], before: Sequence[int]) -> _Stretch:
    numbers = (torch.tensor(each, dtype=torch.int64, device="cpu") for each in (counts, before))
    return _Stretch(start, sum(counts), *numbers)


def _apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
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
    return min(lasting, default=0)  # its proportion of so many is no more than a source has, rounded up or not


def _until_all_are_empty(lengths: Sequence[int], shares: Sequence[Fraction]) -> list[_Stretch]:
    """Return the stretches of an epoch in which every source is drawn once, each in proportion while it lasts."""
    # A source with much of what is left lasts as long as its length by its share says, whatever happens to the others.
    ends = sorted({Fraction(length) / share for length, share in zip(lengths, shares, strict=True) if length})
    stretches, before, start = [], [0] * len(lengths), 0
    for end in ends:
        until = [min(length, round(end * share)) for length, share in zip(lengths, shares, strict=True)]
        counts = [upto - drawn for upto, drawn in zip(until, before, strict=True)]
        stretches.append(_stretch(start, counts, before))
        start, before = start + sum(counts), until
    return stretches or [_stretch(0, before, before)]

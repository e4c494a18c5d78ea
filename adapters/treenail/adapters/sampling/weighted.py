"""Samples drawn by weight."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.sampling.columns import column
from treenail.adapters.sampling.epochs import IndexSampler, whole
from treenail.adapters.sampling.permutation import fingerprint, uniform
from treenail.kernel import mix


class WeightedSampler(IndexSampler):
    """Samples in proportion to their weights, with replacement or without.

    With replacement, the index at a position is computed from (seed, epoch, position) alone. Without, an epoch is drawn one
    sample after another, each in proportion to its weight among those that are left; its order is made at the epoch's first
    index and kept (8 bytes a sample). Source: P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir"
    (2006), in the form of exponential clocks.

    Args:
        dataset: The dataset, or how many samples it has.
        weights: A number for each sample, 0 or more, 0 for those that are never drawn; or the name of the dataset's
            attribute that holds them.
        num_samples: Indices of an epoch; as many as the dataset has samples when None (without replacement: as many as have
            a weight).
        replacement: Whether a sample may come several times in an epoch.
        seed: Hashed with the epoch.
    """

    def __init__(
        self,
        dataset: int | Sized,
        weights: Sequence[float] | Tensor | str,
        num_samples: Annotated[int, Meta(ge=0)] | None = None,
        *,
        replacement: bool = True,
        seed: int = 0,
    ) -> None:
        self._weights = column(dataset, weights, "weights")
        if (self._weights < 0).any():
            wrong = int((self._weights < 0).nonzero()[0])
            raise ValueError(f"weights[{wrong}] is {float(self._weights[wrong])}, must not be negative")
        if len(self._weights):  # so that no sum is infinite
            self._weights /= self._weights.max().clamp(min=torch.finfo(torch.float64).tiny)
        self._drawable = self._weights.nonzero().squeeze(1)
        drawable = len(self._drawable)
        self.seed = seed = whole(seed, "seed")
        self.repeats_items = self.replacement = bool(replacement)
        if num_samples is not None:
            num_samples = whole(num_samples, "num_samples")
        else:
            num_samples = len(self._weights) if replacement else drawable
        if num_samples < 0 or (num_samples and not drawable):
            raise ValueError(f"cannot draw {num_samples} samples: {drawable} have a weight")
        if not replacement and num_samples > drawable:
            raise ValueError(f"cannot draw {num_samples} different samples: {drawable} have a weight")
        self._cumulated = self._weights.cumsum(0)
        self._order: tuple[int, Tensor] | None = None
        identity = {"size": len(self._weights), "weights": fingerprint(self._weights), "replacement": replacement}
        super().__init__(num_samples, {"kind": "weighted", "length": num_samples, "seed": seed, **identity})

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at positions of an epoch."""
        if self.replacement:
            if not len(positions):
                return positions.clone()
            drawn = uniform(mix(self.seed, epoch, "weighted"), positions).mul_(self._cumulated[-1:].sum())
            # Rounding may reach the total; the last sample that has a weight is what lies below it.
            return torch.searchsorted(self._cumulated, drawn, right=True).clamp_(max=int(self._drawable[-1]))
        order = self._order  # read once: another thread may draw, too
        if order is None or order[0] != epoch:
            self._order = order = (epoch, self._without_replacement(epoch))
        return order[1][positions]

    def _without_replacement(self, epoch: int) -> Tensor:
        """Return the samples in the order in which their clocks ring: at exponential times of rate weight."""
        drawn = uniform(mix(self.seed, epoch, "weighted"), self._drawable)
        times = drawn.neg_().log1p_().neg_().div_(self._weights[self._drawable])
        return self._drawable[times.argsort(stable=True)[: len(self)]]

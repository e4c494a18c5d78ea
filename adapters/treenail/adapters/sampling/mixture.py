"""Several parts of a dataset: drawn in proportions, balanced by class, or one after another."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import accumulate
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.sampling.columns import column, numbers
from treenail.adapters.sampling.epochs import IndexSampler, length_of, whole
from treenail.adapters.sampling.permutation import EXACT, fingerprint, hashed, shuffled
from treenail.adapters.sampling.proportions import Draws, Exhausted, Proportions
from treenail.adapters.sampling.samplers import Orders
from treenail.kernel import mix


class MixtureSampler(IndexSampler):
    """The parts of a concatenated dataset in exact proportions, each part shuffled.

    Args:
        dataset: The whole dataset, or how many samples it has.
        weights: Weight of each part, 0 or more; their proportions count.
        sizes: Samples of each part, in the order in which they are concatenated; those of a torch ConcatDataset when None.
        num_samples: Indices of an epoch, where parts begin again; as many as the drawn parts have when None.
        exhausted: What happens when a part has no samples left in an epoch: ``"restart"`` begins it again in a new order,
            going on from epoch to epoch so that each of its samples is drawn as often as the others; ``"stop"`` ends the
            epoch; ``"renormalize"`` goes on with the others, until every sample was drawn once.
        shuffle: Draw each part in an order that (seed, pass) decides, else in its own order.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        dataset: int | Sized,
        weights: Sequence[float],
        *,
        sizes: Sequence[int] | None = None,
        num_samples: Annotated[int, Meta(ge=0)] | None = None,
        exhausted: Exhausted = "restart",
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        sizes = part_sizes(dataset, sizes)
        shares = numbers(weights, "weights")
        self.seed = seed = whole(seed, "seed")
        self.repeats_items = exhausted == "restart"
        self._parts = _Parts(sizes, seed, shuffle=shuffle)
        self._proportions = Proportions(sizes, shares.tolist(), seed=seed, num_samples=num_samples, exhausted=exhausted)
        length = self._proportions.length
        arguments = torch.cat((numbers(sizes, "sizes", torch.int64), shares.view(torch.int64)))
        super().__init__(
            length,
            {
                "kind": "mixture",
                "size": sum(sizes),
                "length": length,
                "parts": fingerprint(arguments),
                "exhausted": exhausted,
                "shuffle": shuffle,
                "seed": seed,
            },
        )

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at ascending positions of an epoch."""
        return self._parts.at(self._proportions.at(epoch, positions))


class ClassBalancedSampler(IndexSampler):
    """Every class as often as every other, in exact proportions; each class shuffled, and its samples equally often.

    Args:
        dataset: The dataset, or how many samples it has.
        labels: The class of each sample, any whole number; or the name of the dataset's attribute that holds them.
        num_samples: Indices of an epoch; as many as the dataset has samples when None.
        balance: From 0, classes as frequent as in the dataset, to 1, all equally frequent: frequencies to the power of
            1 - balance.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        dataset: int | Sized,
        labels: Sequence[int] | Tensor | str,
        num_samples: Annotated[int, Meta(ge=0)] | None = None,
        *,
        balance: Annotated[float, Meta(ge=0, le=1)] = 1.0,
        seed: int = 0,
    ) -> None:
        self.repeats_items = True
        if not 0 <= balance <= 1:
            raise ValueError(f"balance is {balance}, must be 0 … 1")
        classes = column(dataset, labels, "labels", torch.int64)
        self.seed = seed = whole(seed, "seed")
        self._members = classes.argsort(stable=True)
        _, frequencies = torch.unique(classes, return_counts=True)  # ascending, as the members are
        sizes = frequencies.tolist()
        self._parts = _Parts(sizes, seed, shuffle=True)
        self._proportions = (
            Proportions(
                sizes,
                [float(size) ** (1 - balance) for size in sizes],
                seed=seed,
                num_samples=len(classes) if num_samples is None else num_samples,
            )
            if sizes
            else None
        )
        length = self._proportions.length if self._proportions else 0
        if num_samples and not length:
            raise ValueError(f"cannot draw {num_samples} samples: the dataset is empty")
        identity = {"size": len(classes), "labels": fingerprint(classes), "balance": balance, "seed": seed}
        super().__init__(length, {"kind": "class-balanced", "length": length, **identity})

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at ascending positions of an epoch."""
        if self._proportions is None:
            return positions.clone()
        return self._members[self._parts.at(self._proportions.at(epoch, positions))]


class ChainSampler(IndexSampler):
    """The parts of a concatenated dataset one after another, each shuffled: easy samples before hard ones, for example.

    Args:
        dataset: The whole dataset, or how many samples it has.
        sizes: Samples of each part, in the order in which they are concatenated; those of a torch ConcatDataset when None.
        shuffle: Draw each part in an order that (seed, epoch) decides, else in its own order.
        seed: Seed of all orders.
    """

    def __init__(
        self, dataset: int | Sized, sizes: Sequence[int] | None = None, *, shuffle: bool = True, seed: int = 0
    ) -> None:
        sizes = part_sizes(dataset, sizes)
        self.seed = seed = whole(seed, "seed")
        self._parts = _Parts(sizes, seed, shuffle=shuffle)
        self._edges = torch.tensor([0, *accumulate(sizes)], device="cpu")
        super().__init__(
            sum(sizes),
            {
                "kind": "chain",
                "size": sum(sizes),
                "parts": fingerprint(torch.tensor(sizes, dtype=torch.int64, device="cpu")),
                **({"seed": seed} if shuffle else {"shuffle": False}),
            },
        )

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at positions of an epoch."""
        sources = torch.searchsorted(self._edges[1:], positions, right=True)
        return self._parts.at(Draws(sources, torch.full_like(positions, epoch), positions - self._edges[sources]))


def part_sizes(dataset: int | Sized, sizes: Sequence[int] | None) -> list[int]:
    """Return the sizes of a concatenated dataset's parts.

    Raises:
        ValueError: They are not given and the dataset does not know them, or they do not sum to the dataset's size.
    """
    if sizes is None:
        edges = getattr(dataset, "cumulative_sizes", None)  # torch.utils.data.ConcatDataset has it
        if edges is None:
            raise ValueError("sizes is needed: the dataset is no torch ConcatDataset, which would know its parts")
        sizes = [upper - lower for lower, upper in zip([0, *edges], edges, strict=False)]
    given, size = [whole(each, "sizes") for each in sizes], length_of(dataset)
    if any(each < 0 for each in given) or sum(given) != size:
        raise ValueError(f"sizes is {given}, which sums to {sum(given)}; the dataset has {size} samples")
    return given


class _Parts:
    """The parts of a concatenated dataset, each shuffled anew in every pass."""

    def __init__(self, sizes: Sequence[int], seed: int, *, shuffle: bool) -> None:
        self._sizes = torch.tensor(sizes, dtype=torch.int64, device="cpu")
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._seed = seed
        self._shuffle = shuffle
        self._orders = {
            number: Orders(size, mix(seed, number, "part"), "hashed")
            for number, size in enumerate(sizes)
            if size > EXACT
        }

    def at(self, draws: Draws) -> Tensor:
        """Return the indices, in the whole dataset, of what was drawn; int64[n]."""
        if not self._shuffle:
            return draws.offsets + self._starts[draws.sources]
        indices = torch.empty_like(draws.offsets)
        short = self._sizes[draws.sources] <= EXACT
        if short.any():
            indices[short] = self._short(draws.sources[short], draws.passes[short], draws.offsets[short])
        if not short.all():
            for source in torch.unique(draws.sources[~short]).tolist():
                here = draws.sources == source
                indices[here] = self._orders[source].of(0, draws.passes[here], draws.offsets[here])
        return indices + self._starts[draws.sources]

    def _short(self, sources: Tensor, passes: Tensor, offsets: Tensor) -> Tensor:
        """Return the indices, in their parts, at offsets of passes of short parts; int64[n] each."""
        # There may be thousands of parts and of passes in a block: all their orders are drawn at once.
        pairs, row_of = torch.unique(torch.stack((sources, passes)), dim=1, return_inverse=True)
        keys = hashed(hashed(mix(self._seed, "parts"), pairs[0]), pairs[1])
        return shuffled(keys, self._sizes[pairs[0]], row_of, offsets)

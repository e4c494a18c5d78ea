"""Every index once an epoch: in order, shuffled, from a subset, or several times."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.sampling.columns import numbers
from treenail.adapters.sampling.epochs import IndexSampler, at_least, length_of, whole
from treenail.adapters.sampling.permutation import EXACT, Permutation, fingerprint, shuffled
from treenail.kernel import mix

Shuffle = Literal["hashed", "torch"]
"""``"hashed"``: a `Permutation` whose key is the hash of (seed, epoch), in constant memory.

``"torch"``: ``torch.randperm`` seeded by seed + epoch, as torch's DistributedSampler, helios and mmengine have it. It holds
the epoch's order (8 bytes an index), and seed 0 epoch 1 has the order of seed 1 epoch 0.
"""


class SequentialSampler(IndexSampler):
    """The indices 0 … n-1 in order, every epoch.

    Args:
        dataset: The dataset, or how many samples it has.
    """

    def __init__(self, dataset: int | Sized) -> None:
        size = length_of(dataset)
        super().__init__(size, {"kind": "sequential", "size": size})

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the positions themselves."""
        return positions.clone()


class RandomSampler(IndexSampler):
    """Every index `repeats` times an epoch, in an order that (seed, epoch) decides.

    It takes the same time and memory for 10 samples and for 10¹²: the index at a position is computed (see `Permutation`).

    Args:
        dataset: The dataset, or how many samples it has.
        seed: Hashed with the epoch, so that seed 0 epoch 1 is not seed 1 epoch 0.
        shuffle: How orders are drawn: ``"hashed"``, or ``"torch"`` for the very indices that torch's own samplers give.
        repeats: Passes over the dataset that make an epoch, each in an order of its own.
    """

    def __init__(
        self,
        dataset: int | Sized,
        seed: int = 0,
        *,
        shuffle: Shuffle = "hashed",
        repeats: Annotated[int, Meta(ge=1)] = 1,
    ) -> None:
        repeats, size = at_least(1, repeats, "repeats"), length_of(dataset)
        self.seed = seed = whole(seed, "seed")
        self.repeats_items = repeats > 1
        self._size = size
        self._orders = Orders(size, seed, shuffle)
        super().__init__(
            size * repeats, {"kind": "random", "size": size, "seed": seed, "shuffle": shuffle, "repeats": repeats}
        )

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at positions of an epoch."""
        if len(self) == self._size:
            return self._orders.at(epoch, 0, positions)
        passes = positions // max(self._size, 1)
        indices = positions - passes * self._size
        return self._orders.of(epoch, passes, indices)


class SubsetSampler(IndexSampler):
    """The given indices once an epoch, shuffled or in their order.

    Args:
        dataset: The dataset, or how many samples it has; indices must be below.
        indices: What to draw, in any order, also several times.
        shuffle: Draw them in an order that (seed, epoch) decides.
        seed: Seed of that order.
    """

    def __init__(self, dataset: int | Sized, indices: Sequence[int], *, shuffle: bool = True, seed: int = 0) -> None:
        size = length_of(dataset)
        self._indices = numbers(indices, "indices", torch.int64)
        wrong = self._indices[(self._indices < 0) | (self._indices >= size)]
        if len(wrong):
            raise ValueError(f"the subset has index {int(wrong[0])}; the dataset has 0 … {size - 1}")
        self.seed = seed = whole(seed, "seed")
        self.repeats_items = len(self._indices.unique()) < len(self._indices)  # type: ignore[no-untyped-call]  # torch does not type it
        self._orders = Orders(len(self._indices), seed, "hashed") if shuffle else None
        identity = {"kind": "subset", "size": size, "indices": fingerprint(self._indices)}
        super().__init__(len(self._indices), identity | ({"seed": seed} if shuffle else {"shuffle": False}))

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at positions of an epoch."""
        return self._indices[positions if self._orders is None else self._orders.at(epoch, 0, positions)]


class Orders:
    """The shuffled orders of a dataset, by epoch and pass; the last one used stays at hand.

    Args:
        size: Number of indices.
        seed: Seed of all orders.
        shuffle: How they are drawn.

    Raises:
        ValueError: There is no such way.
    """

    def __init__(self, size: int, seed: int, shuffle: Shuffle) -> None:
        if shuffle not in {"hashed", "torch"}:
            raise ValueError(f"shuffle is {shuffle!r}, must be 'hashed' or 'torch'")
        self.size = size
        self._seed = seed
        self._shuffle = shuffle
        self._last: tuple[tuple[int, int], Permutation | Tensor] | None = None

    def at(self, epoch: int, number: int, positions: Tensor) -> Tensor:
        """Return the indices at positions of the order that (epoch, pass) names; positions int64[n], 0 … size-1."""
        last = self._last  # read once: another thread may draw, too
        if last is None or last[0] != (epoch, number):
            self._last = last = ((epoch, number), self._make(epoch, number))
        order = last[1]
        return order(positions) if isinstance(order, Permutation) else order[positions]

    def of(self, epoch: int, passes: Tensor, positions: Tensor) -> Tensor:
        """Return the indices at positions int64[n] of passes int64[n]."""
        rows, row_of = torch.unique(passes, return_inverse=True)
        if self.size <= EXACT and len(rows) > 1 and self._shuffle == "hashed":
            # As the orders of `at` are, one by one, but a thousand at once: short orders are short of work.
            keys = torch.tensor([self._key(epoch, number) for number in rows.tolist()], device="cpu")
            return shuffled(keys, torch.full_like(rows, self.size), row_of, positions)
        indices = torch.empty_like(positions)
        for number, each in enumerate(rows.tolist()):
            here = row_of == number
            indices[here] = self.at(epoch, each, positions[here])
        return indices

    def _key(self, epoch: int, number: int) -> int:
        return mix(self._seed, epoch, number, "order")

    def _make(self, epoch: int, number: int) -> Permutation | Tensor:
        if self._shuffle == "hashed":
            return Permutation(self.size, self._key(epoch, number))
        # As torch's samplers do; whatever a further pass needs, its first one is theirs.
        seed = (self._seed + epoch) % 2**64 if number == 0 else mix(self._seed, epoch, number)
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(seed), device="cpu")

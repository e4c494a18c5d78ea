"""Batches of samples that are alike: in length, in tokens, in aspect ratio.

The samples fall into buckets, once. In each epoch every bucket is shuffled and cut into batches, and the batches of all
buckets are shuffled together. A batch's number thus leads to its samples by arithmetic alone, and an epoch has a known number
of batches, whatever their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import accumulate
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.sampling.columns import column, numbers
from treenail.adapters.sampling.epochs import IndexBatchSampler, at_least, whole
from treenail.adapters.sampling.permutation import fingerprint
from treenail.adapters.sampling.samplers import Orders
from treenail.kernel import mix


class BucketedBatches(IndexBatchSampler):
    """Batches of samples of one bucket each; the samplers below say what the buckets are.

    Args:
        kind: Name of the sampler, for states.
        buckets: The samples of each bucket; int64[…] each.
        batch_sizes: Samples of a batch, for each bucket.
        size: Samples of the dataset.
        drop_last: Leave out each bucket's incomplete last batch.
        shuffle: Shuffle buckets and batches by (seed, epoch), else both keep their order.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        kind: str,
        buckets: Sequence[Tensor],
        batch_sizes: Sequence[int],
        size: int,
        *,
        drop_last: bool,
        shuffle: bool,
        seed: int,
    ) -> None:
        self.seed = seed = whole(seed, "seed")
        self._buckets = buckets
        if not drop_last:  # what lies beyond a bucket's samples would only take memory
            batch_sizes = [min(most, len(bucket)) for bucket, most in zip(buckets, batch_sizes, strict=True)]
        self._batch_sizes = batch_sizes
        counts = [
            len(bucket) // size if drop_last else -(-len(bucket) // size)
            for bucket, size in zip(buckets, batch_sizes, strict=True)
        ]
        self._edges = torch.tensor([0, *accumulate(counts)], device="cpu")
        length = sum(counts)
        self._batch_order = Orders(length, mix(seed, "batches"), "hashed") if shuffle else None
        self._orders = (
            [Orders(len(bucket), mix(seed, number, "bucket"), "hashed") for number, bucket in enumerate(buckets)]
            if shuffle
            else None
        )
        shape = torch.tensor([len(buckets), *map(len, buckets), *batch_sizes], device="cpu")
        super().__init__(
            length,
            {
                "kind": kind,
                "size": size,
                "buckets": fingerprint(torch.cat([shape, *buckets])),
                "drop_last": drop_last,
                **({"seed": seed} if shuffle else {"shuffle": False}),
            },
        )

    def draw(self, epoch: int, positions: Tensor) -> list[list[int]]:
        """Return the batches at positions of an epoch."""
        numbers = positions if self._batch_order is None else self._batch_order.at(epoch, 0, positions)
        buckets = torch.searchsorted(self._edges[1:], numbers, right=True)
        batches: list[list[int]] = [[]] * len(positions)
        for bucket in torch.unique(buckets).tolist():
            here = (buckets == bucket).nonzero().squeeze(1)
            firsts = (numbers[here] - self._edges[bucket]) * self._batch_sizes[bucket]
            samples = self._samples(bucket, epoch, firsts).tolist()
            for place, batch in zip(here.tolist(), samples, strict=True):
                batches[place] = batch if batch[-1] >= 0 else [index for index in batch if index >= 0]
        return batches

    def _samples(self, bucket: int, epoch: int, firsts: Tensor) -> Tensor:
        """Return the samples of a bucket's batches that begin at `firsts` int64[n]; int64[n, batch size], -1 past the end."""
        members = self._buckets[bucket]
        places = firsts.unsqueeze(1) + torch.arange(self._batch_sizes[bucket], device="cpu")
        missing = places >= len(members)
        places = places.masked_fill_(missing, 0).flatten()
        order = places if self._orders is None else self._orders[bucket].at(epoch, 0, places)
        return members[order].view(missing.shape).masked_fill_(missing, -1)


class BucketBatchSampler(BucketedBatches):
    """Batches of samples of similar length.

    Args:
        dataset: The dataset, or how many samples it has.
        lengths: The length of each sample; or the name of the dataset's attribute that holds them.
        batch_size: Samples of a batch; a run gives its own.
        num_buckets: Buckets of equally many samples, fewer where one would not fill a batch; more of them make batches
            more alike and less random.
        boundaries: Lengths at which a new bucket begins, ascending, in the place of num_buckets.
        drop_last: Leave out each bucket's incomplete last batch.
        shuffle: Shuffle buckets and batches by (seed, epoch), else both keep their order, the shortest first.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        dataset: int | Sized,
        lengths: Sequence[float] | Tensor | str,
        batch_size: Annotated[int, Meta(ge=1)] | None = None,
        *,
        num_buckets: Annotated[int, Meta(ge=1)] = 32,
        boundaries: Sequence[float] | None = None,
        drop_last: bool = False,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        size = at_least(1, batch_size, "batch_size")
        values = column(dataset, lengths, "lengths")
        full = max(1, len(values) // size)
        if boundaries is None:
            buckets = _quantiles(values, min(at_least(1, num_buckets, "num_buckets"), full))
        else:
            buckets = _between(values, boundaries)
        super().__init__(
            "bucket", buckets, [size] * len(buckets), len(values), drop_last=drop_last, shuffle=shuffle, seed=seed
        )


class TokenBatchSampler(BucketedBatches):
    """Batches of samples of similar length that hold at most so many tokens, padded to their longest sample.

    Args:
        dataset: The dataset, or how many samples it has.
        lengths: The tokens of each sample; or the name of the dataset's attribute that holds them.
        max_tokens: The most that a batch may hold: its number of samples times the length of the longest.
        batch_size: The most samples of a batch, whatever their tokens; a run gives its own.
        num_buckets: Buckets of equally many samples; more of them waste less of max_tokens and are less random.
        boundaries: Lengths at which a new bucket begins, ascending, in the place of num_buckets.
        drop_last: Leave out each bucket's incomplete last batch.
        shuffle: Shuffle buckets and batches by (seed, epoch), else both keep their order, the shortest first.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        dataset: int | Sized,
        lengths: Sequence[float] | Tensor | str,
        max_tokens: Annotated[int, Meta(ge=1)],
        batch_size: Annotated[int, Meta(ge=1)] | None = None,
        *,
        num_buckets: Annotated[int, Meta(ge=1)] = 32,
        boundaries: Sequence[float] | None = None,
        drop_last: bool = False,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        values = column(dataset, lengths, "lengths")
        budget = at_least(1, max_tokens, "max_tokens")
        if len(values) and float(values.max()) > budget:
            longest = int(values.argmax())
            raise ValueError(
                f"sample {longest} has {values[longest].item():g} tokens, more than max_tokens={budget}; "
                "leave such samples out of the dataset, or allow more tokens"
            )
        buckets = _quantiles(values, num_buckets) if boundaries is None else _between(values, boundaries)
        most = [int(budget // max(float(values[bucket].max()), 1.0)) for bucket in buckets]
        if batch_size is not None:
            most = [min(size, at_least(1, batch_size, "batch_size")) for size in most]
        super().__init__("token", buckets, most, len(values), drop_last=drop_last, shuffle=shuffle, seed=seed)


class AspectRatioBatchSampler(BucketedBatches):
    """Batches of images whose aspect ratios lie between the same boundaries.

    Args:
        dataset: The dataset, or how many samples it has.
        ratios: Width by height of each image; or the name of the dataset's attribute that holds them.
        batch_size: Samples of a batch; a run gives its own.
        boundaries: Ratios at which a new bucket begins, ascending; by default upright images and the others.
        drop_last: Leave out each bucket's incomplete last batch.
        shuffle: Shuffle buckets and batches by (seed, epoch), else both keep their order, the narrowest first.
        seed: Seed of all orders.
    """

    def __init__(
        self,
        dataset: int | Sized,
        ratios: Sequence[float] | Tensor | str,
        batch_size: Annotated[int, Meta(ge=1)] | None = None,
        *,
        boundaries: Sequence[float] = (1.0,),
        drop_last: bool = False,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        size = at_least(1, batch_size, "batch_size")
        values = column(dataset, ratios, "ratios")
        buckets = _between(values, boundaries)
        super().__init__(
            "aspect-ratio", buckets, [size] * len(buckets), len(values), drop_last=drop_last, shuffle=shuffle, seed=seed
        )


def _quantiles(values: Tensor, count: int) -> list[Tensor]:
    """Return buckets of equally many samples, the smallest values first; int64[…] each, none is empty."""
    parts = min(at_least(1, count, "num_buckets"), len(values))
    return list(torch.tensor_split(values.argsort(stable=True), parts)) if parts else []


def _between(values: Tensor, boundaries: Sequence[float]) -> list[Tensor]:
    """Return the samples below the first boundary, from there to below the second …; int64[…] each, without empty ones."""
    edges = numbers(boundaries, "boundaries")
    if (edges.diff() <= 0).any():
        raise ValueError(f"boundaries is {edges.tolist()}, each must be above the one before")
    buckets = torch.searchsorted(edges, values, right=True)
    return [(buckets == number).nonzero().squeeze(1) for number in torch.unique(buckets).tolist()]

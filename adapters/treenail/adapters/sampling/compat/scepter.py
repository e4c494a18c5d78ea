"""The samplers of SCEPTER that draw indices for training: several folds an epoch, and mixtures of samplers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence, Sized
from typing import Annotated, Generic, TypeVar

import torch
from msgspec import Meta
from torch import Tensor

from treenail.adapters.sampling.compat.evaluation import EvalDistributedSampler
from treenail.adapters.sampling.compat.ranks import ENDLESS, RankSampler, any_rank, is_endless
from treenail.adapters.sampling.epochs import EpochSampler, IndexSampler, at_least, length_of, whole
from treenail.adapters.sampling.proportions import Exhausted, Proportions
from treenail.adapters.sampling.samplers import RandomSampler, Shuffle
from treenail.adapters.sampling.shard import Shard
from treenail.contracts import BatchSampler
from treenail.kernel import Sampler, mix

T = TypeVar("T")


class MultiFoldDistributedSampler(RankSampler):
    """One rank's share of every index `num_folds` times an epoch, each fold in an order of its own.

    Args:
        dataset: The dataset, or how many samples it has.
        num_folds: Passes over the dataset that make an epoch; 0 makes empty epochs.
        num_replicas: Number of ranks; torch's process group knows when None, and without one it is 1.
        rank: Which rank this is; as above, and without a process group it is 0.
        shuffle: Shuffle each fold, else draw it in order.
        seed: Seed of the orders of all epochs and folds.
        drop_last: Leave out what does not divide by the ranks; otherwise as many of the first come again as are missing.
        order: How it is shuffled: ``"torch"`` gives the indices of torch's DistributedSampler in the first fold,
            ``"hashed"`` takes constant memory and hashes seed, epoch and fold together.
        marked: Yield `SampleIndex`, which tells repeated samples, in place of plain ints.

    Raises:
        ValueError: num_folds is negative, or there is no such rank.
    """

    def __init__(
        self,
        dataset: int | Sized,
        num_folds: Annotated[int, Meta(ge=0)] = 1,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        *,
        seed: int = 0,
        drop_last: bool = False,
        order: Shuffle = "torch",
        marked: bool = False,
    ) -> None:
        num_folds, seed = at_least(0, num_folds, "num_folds"), whole(seed, "seed")
        sampler: IndexSampler
        if shuffle and num_folds:
            sampler = RandomSampler(dataset, seed, shuffle=order, repeats=num_folds)
        else:
            sampler = _InOrder(length_of(dataset), num_folds)
        super().__init__(sampler, rank, num_replicas, padding="drop" if drop_last else "repeat", marked=marked)


class _InOrder(IndexSampler):
    """The indices 0 … size-1 several times an epoch."""

    def __init__(self, size: int, folds: int) -> None:
        self._size = size
        self.repeats_items = folds > 1
        super().__init__(size * folds, {"kind": "folds", "size": size, "folds": folds})

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        return positions % max(self._size, 1)


class MixtureOfSamplers(EpochSampler[T]):
    """Items of several samplers, in exact proportions: indices, or batches where they give batches.

    After each thousand items or so, every sampler has given its share to within one; in between, the order is random. The
    samplers themselves stay where they are: which item comes when is a pure function of (seed, rank, epoch, position), and
    their own epochs are the passes of the mixture over them. So an epoch that is resumed draws nothing again.

    Args:
        samplers: What to draw from: samplers or batch samplers, or what one rank draws of them.
        probabilities: Probability of each; they sum to 1.
        rank: Which rank draws; torch's process group knows when None, and without one it is 0. Ranks choose the samplers in
            different orders.
        seed: Seed of the choice.
        keep_order: Choose the samplers in the same order on all ranks, which keeps one kind of batch in a step.
        exhausted: What happens when a sampler has given all items of its epoch: ``"restart"`` begins its next one, and
            goes on there in the mixture's next epoch; ``"stop"`` ends the mixture's epoch; ``"renormalize"`` goes on with
            the others, until every item came once.
        num_samples: Items of an epoch of the mixture, with ``exhausted="restart"``; the lengths of the samplers that have
            an end together when None. Without any such sampler, the mixture has no end.

    Raises:
        ValueError: The probabilities do not fit the samplers or do not sum to 1, a sampler is empty, or ``"renormalize"``
            is asked of samplers without an end.
    """

    def __init__(
        self,
        samplers: Sequence[Sampler | BatchSampler | EpochSampler[T] | Shard[T]],
        probabilities: Sequence[float],
        rank: Annotated[int, Meta(ge=0)] | None = None,
        seed: int = 8888,
        *,
        keep_order: bool = False,
        exhausted: Exhausted = "restart",
        num_samples: Annotated[int, Meta(ge=0)] | None = None,
    ) -> None:
        rank, seed = any_rank(rank), whole(seed, "seed")
        if num_samples is not None:
            num_samples = at_least(0, num_samples, "num_samples")
        if len(samplers) != len(probabilities) or not samplers:
            raise ValueError(
                f"there are {len(samplers)} samplers and {len(probabilities)} probabilities; give one each"
            )
        for number, share in enumerate(probabilities):
            if not 0 <= share <= 1:
                raise ValueError(f"probabilities[{number}] is {share}, must be 0 … 1")
        if abs(sum(probabilities) - 1) > 1e-6:
            raise ValueError(f"probabilities is {list(probabilities)}, which sums to {sum(probabilities)}, must be 1")
        self._sources = [_Source[T](sampler) for sampler in samplers]
        lengths = [source.length for source in self._sources]
        drawn = [source for source, share in zip(self._sources, probabilities, strict=True) if share]
        ends = [source.length for source in drawn if not source.endless]
        if exhausted == "renormalize" and any(source.endless for source in self._sources):
            raise ValueError("exhausted='renormalize' draws every sampler to its end, and one of them has none")
        self.endless = not ends and num_samples is None and exhausted != "renormalize"
        self.repeats_items = True  # of several samplers, if not of one
        if exhausted == "restart" and num_samples is None:
            num_samples = sum(ends) if ends else ENDLESS
        self._proportions = Proportions(
            lengths,
            probabilities,
            seed=mix(seed, "samplers") if keep_order else mix(seed, rank, "samplers"),
            num_samples=ENDLESS if self.endless else num_samples,
            exhausted="restart" if self.endless else exhausted,
        )
        described = [[source.identity for source in self._sources], [float(share) for share in probabilities]]
        super().__init__(
            self._proportions.length,
            {
                "kind": "samplers",
                "samplers": mix(json.dumps(described, sort_keys=True)),
                "exhausted": exhausted,
                "num_samples": num_samples,
                "keep_order": keep_order,
                "seed": seed,
            },
        )

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one or the mixture has no end.

        Raises:
            ValueError: epoch is negative.
        """
        if not self.endless:
            super().set_epoch(epoch)

    def draw(self, epoch: int, positions: Tensor) -> list[T]:
        """Return the items at ascending positions of an epoch."""
        draws = self._proportions.at(epoch, positions)
        items: list[T] = []  # by sampler and pass
        places: list[Tensor] = []  # and where they belong
        for number, source in enumerate(self._sources):
            mine = (draws.sources == number).nonzero().squeeze(1)
            passes = draws.passes[mine]
            for each in torch.unique(passes).tolist():
                places.append(mine[passes == each])
                items += source.read(each, draws.offsets[places[-1]])
        return [items[place] for place in torch.cat(places).argsort().tolist()] if items else []


class _Source(Generic[T]):
    """One of the samplers: its items by (epoch, position), whatever position it stands at.

    Args:
        sampler: The sampler.

    Attributes:
        length: Items of an epoch of it.
        endless: Whether it has no end.
        identity: What describes it, equal on all ranks.
    """

    def __init__(self, sampler: Sampler | BatchSampler | EpochSampler[T] | Shard[T]) -> None:
        self._draw: Callable[[int, Tensor], list[T]]
        self._rank, self._world_size, self.endless = 0, 1, False
        of_sampler: dict[str, object]
        if isinstance(sampler, EvalDistributedSampler):
            block = EvalDistributedSampler(sampler.size, sampler.world_size, sampler.rank, sampler.padding)
            self.length, self._draw = len(block), block.draw  # type: ignore[assignment]  # T is int for it
            of_sampler = {**block.identity, "padding": block.padding, "world_size": block.world_size}
        else:
            shard: Shard[T]
            shard = sampler if isinstance(sampler, Shard) else Shard(sampler, 0, 1)  # type: ignore[assignment]  # T is int for a Sampler, list[int] for a BatchSampler
            order = shard.sampler
            self._draw, self._rank, self._world_size = shard.draw, shard.rank, shard.world_size
            self.length = len(range(shard.rank, shard.stop(len(order)), shard.world_size))
            self.endless = is_endless(order)
            # A stranger's sampler tells no more of itself than its length.
            of_order = order.identity if isinstance(order, EpochSampler) else {"length": len(order)}
            of_sampler = {**of_order, "padding": shard.padding, "world_size": shard.world_size}
        self.identity = {**of_sampler, "type": type(sampler).__name__}

    def read(self, epoch: int, positions: Tensor) -> list[T]:
        """Return the items at ascending positions int64[n] of an epoch, n > 0."""
        return self._draw(epoch, positions * self._world_size + self._rank)

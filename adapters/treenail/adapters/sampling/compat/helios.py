"""The samplers of helios: batches of an epoch are counted by `start_iter`."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Callable, Iterator, Sized
from typing import Annotated, TypeAlias

import torch.utils.data
from msgspec import Meta

from treenail.adapters.registries import helios
from treenail.adapters.sampling.compat.ranks import ENDLESS, RankSampler, shuffled_or_not
from treenail.adapters.sampling.epochs import IndexSampler, at_least, checked_epoch, is_position, length_of, whole
from treenail.adapters.sampling.samplers import SequentialSampler, Shuffle
from treenail.adapters.sampling.shard import Padding
from treenail.kernel import StateError

SAMPLER_REGISTRY: helios.Registry[ResumableSamplerType] = helios.Registry("sampler")
"""The samplers that `create_sampler` makes; register your own with ``@SAMPLER_REGISTRY.register``."""


class ResumableSampler(torch.utils.data.Sampler[int], ABC):
    """Base of samplers of one's own that go on after a given batch of an epoch.

    A subclass defines ``__iter__``: the indices of epoch `epoch`, without those of the first `start_iter` batches.

    An assigned `start_iter` stays through the next `set_epoch` if nothing was drawn in between, so that a trainer may
    assign it before the epoch or after; the epoch after that one begins at its start.

    Args:
        batch_size: Samples of a batch.

    Raises:
        ValueError: batch_size is not positive.
    """

    def __init__(self, batch_size: Annotated[int, Meta(ge=1)]) -> None:
        self.batch_size = at_least(1, batch_size, "batch_size")
        self._epoch = 0
        self._start_iter = 0
        self._assigned = False  # whether start_iter was, and nothing was drawn since

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The base has to know when a subclass draws, and helios' contract is that subclasses define __iter__.
        if "__iter__" in vars(cls):
            cls.__iter__ = _settling(cls.__iter__)  # type: ignore[method-assign, assignment]  # torch's Sampler has it, too

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self._epoch

    @property
    def start_iter(self) -> int:
        """How many batches of the epoch were consumed: the next one's number."""
        return self._start_iter

    @start_iter.setter
    def start_iter(self, batches: int) -> None:
        self._start_iter, self._assigned = at_least(0, batches, "start_iter"), True

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, or to the `start_iter` that was assigned for it; the current epoch goes on.

        Raises:
            ValueError: epoch is negative.
        """
        epoch = checked_epoch(epoch)
        if epoch != self._epoch and not self._assigned:
            self._start_iter = 0
        self._epoch, self._assigned = epoch, False

    def state_dict(self) -> dict[str, object]:
        """Return epoch, batches consumed, and their size."""
        return {"epoch": self._epoch, "start_iter": self._start_iter, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: It is of another batch size, or no position.
        """
        epoch, batches, size = (state_dict.get(name) for name in ("epoch", "start_iter", "batch_size"))
        where = type(self).__name__
        if size != self.batch_size:
            raise StateError(
                f"the state counts batches of {size!r} samples, here they have {self.batch_size}",
                where=where,
                mend="resume with the batch size that the run was begun with",
            )
        if not is_position(epoch, batches, ENDLESS):
            raise StateError(f"no position epoch {epoch!r}, start_iter {batches!r}", where=where)
        self._epoch, self._start_iter, self._assigned = whole(epoch, "epoch"), whole(batches, "start_iter"), False


def _settling(draw: Callable[[ResumableSampler], Iterator[int]]) -> Callable[[ResumableSampler], Iterator[int]]:
    """Return what draws, and takes an assigned `start_iter` for used up."""

    @functools.wraps(draw)
    def settle_and_draw(self: ResumableSampler) -> Iterator[int]:
        self._assigned = False
        return draw(self)

    return settle_and_draw


class _BatchCounting(RankSampler, torch.utils.data.Sampler[int]):
    """What one rank draws, its position counted in batches.

    An assigned `start_iter` stays through the next `set_epoch` if nothing was drawn or advanced in between.
    """

    def __init__(
        self,
        sampler: IndexSampler,
        batch_size: int,
        rank: int | None = 0,
        world_size: int | None = 1,
        *,
        padding: Padding = "none",
        marked: bool = False,
    ) -> None:
        self.batch_size = at_least(1, batch_size, "batch_size")
        super().__init__(sampler, rank, world_size, padding=padding, marked=marked)
        self._order = sampler
        self._assigned: int | None = None  # start_iter, while nothing was drawn since it was assigned

    @property
    def start_iter(self) -> int:
        """How many batches of the epoch were consumed, by each rank: the next one's number.

        Assigning it goes to the start of that batch: of the current epoch, and of the one that `set_epoch` goes to next if
        nothing was drawn or advanced before. In every further epoch it begins at 0 again.
        """
        return -(-len(self) // self.batch_size) - -(-self.remaining // self.batch_size)

    @start_iter.setter
    def start_iter(self, batches: int) -> None:
        batches, most = at_least(0, batches, "start_iter"), -(-len(self) // self.batch_size)
        if batches > most:
            raise ValueError(f"start_iter is {batches}; the epoch has {most} batches of {self.batch_size} for a rank")
        self._go_to(batches)
        self._assigned = batches

    def _go_to(self, batches: int) -> None:
        self._order.cursor = 0
        if batches:
            super().advance(batches * self.batch_size)

    def __iter__(self) -> Iterator[int]:
        self._assigned = None
        return super().__iter__()

    def advance(self, count: int) -> None:
        """Record that every rank consumed `count` further items, or what it had left where that was less.

        Raises:
            ValueError: count is negative, or no rank has anything left in this epoch.
        """
        super().advance(count)
        self._assigned = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, or to the `start_iter` that was assigned for it; the current epoch goes on.

        Raises:
            ValueError: epoch is negative.
        """
        super().set_epoch(epoch)
        if self._assigned is not None:
            self._go_to(self._assigned)
            self._assigned = None

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, whatever the world size it was saved with.

        Raises:
            StateError: The state does not fit the sampler.
        """
        super().load_state_dict(state_dict)
        self._assigned = None


@SAMPLER_REGISTRY.register
@ResumableSampler.register
class ResumableRandomSampler(_BatchCounting):
    """Every index once an epoch, shuffled; for one process.

    Args:
        data_source: The dataset, or how many samples it has.
        seed: Seed of the order, of all epochs.
        batch_size: Samples of a batch, which `start_iter` counts.
        order: How it is shuffled: ``"torch"`` gives the indices of the original, ``"hashed"`` takes constant memory and
            hashes seed and epoch together.
    """

    def __init__(
        self,
        data_source: int | Sized,
        seed: int = 0,
        batch_size: Annotated[int, Meta(ge=1)] = 1,
        *,
        order: Shuffle = "torch",
    ) -> None:
        super().__init__(shuffled_or_not(data_source, seed, order, shuffle=True), batch_size)


@SAMPLER_REGISTRY.register
@ResumableSampler.register
class ResumableSequentialSampler(_BatchCounting):
    """Every index once an epoch, in order; for one process.

    Args:
        data_source: The dataset, or how many samples it has.
        batch_size: Samples of a batch, which `start_iter` counts.
    """

    def __init__(self, data_source: int | Sized, batch_size: Annotated[int, Meta(ge=1)] = 1) -> None:
        super().__init__(SequentialSampler(data_source), batch_size)


@SAMPLER_REGISTRY.register
class ResumableDistributedSampler(_BatchCounting, torch.utils.data.DistributedSampler[int]):  # type: ignore[override]  # `epoch` is set by set_epoch only
    """One rank's share of every index once an epoch, the very indices of torch's DistributedSampler.

    The state holds neither world size nor batch size: a run resumes on other numbers of ranks and sees the rest of the
    epoch once.

    Args:
        dataset: The dataset, or how many samples it has.
        num_replicas: Number of ranks; torch's process group knows when None, and without one it is 1.
        rank: Which rank this is; as above, and without a process group it is 0.
        shuffle: Shuffle the indices, else draw them in order.
        seed: Seed of the order, of all epochs.
        drop_last: Leave out the last num_replicas - 1 samples or fewer where the dataset does not divide by the ranks;
            otherwise as many of the first come again as are missing.
        batch_size: Samples of a rank's batch, which `start_iter` counts.
        order: How it is shuffled: ``"torch"`` gives the indices of the original, ``"hashed"`` takes constant memory and
            hashes seed and epoch together.
        marked: Yield `SampleIndex`, which tells repeated samples, in place of plain ints.
    """

    def __init__(
        self,
        dataset: int | Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        batch_size: Annotated[int, Meta(ge=1)] = 1,
        *,
        order: Shuffle = "torch",
        marked: bool = False,
    ) -> None:
        seed = whole(seed, "seed")
        super().__init__(
            shuffled_or_not(dataset, seed, order, shuffle=shuffle),
            batch_size,
            rank,
            num_replicas,
            padding="drop" if drop_last else "repeat",
            marked=marked,
        )
        # What torch's class holds, for those who read it; its own __init__ would assign `epoch`.
        self.dataset = dataset if isinstance(dataset, Sized) else range(length_of(dataset))  # type: ignore[assignment]  # torch says Dataset, and needs a length only
        self.num_replicas, self.shuffle, self.seed, self.drop_last = self.world_size, shuffle, seed, drop_last
        self.num_samples = len(self)
        self.total_size = self.num_samples * self.world_size


ResumableSamplerType: TypeAlias = (
    ResumableSampler | ResumableRandomSampler | ResumableSequentialSampler | ResumableDistributedSampler
)


create_sampler = SAMPLER_REGISTRY.create
"""Makes the sampler that a name of `SAMPLER_REGISTRY` stands for, of the arguments that follow the name."""

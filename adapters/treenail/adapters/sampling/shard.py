"""What one of several ranks draws of an order that does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, TypeVar, overload

import torch
from torch import Tensor

from treenail.adapters.sampling.drawing import BLOCK, Drawing
from treenail.adapters.sampling.epochs import EpochSampler, seek, whole
from treenail.contracts import BatchSampler, SamplerShard
from treenail.kernel import Sampler

T = TypeVar("T")

Padding = Literal["repeat", "drop", "none"]


class SampleIndex(int):
    """An index that knows where it was drawn, for datasets whose samples are random and for metrics.

    It is an int for every other purpose, and goes to loader workers as it is.

    Attributes:
        epoch: The epoch it was drawn in, for `treenail.adapters.seeding.sample_rng`.
        padding: Whether it repeats a sample only to give every rank as many; metrics leave such a sample out.
        position: Where in the epoch it was drawn, over all ranks; the batch's number for an index in a batch. It tells the
            draws of one sample apart where a sampler repeats samples.
    """

    epoch: int
    padding: bool
    position: int

    def __new__(cls, index: int, epoch: int, padding: bool = False, position: int = 0) -> SampleIndex:  # noqa: D102
        self = super().__new__(cls, index)
        self.epoch, self.padding, self.position = epoch, padding, position
        return self

    def __reduce__(self) -> tuple[type[SampleIndex], tuple[int, int, bool, int]]:
        return SampleIndex, (int(self), self.epoch, self.padding, self.position)


def process_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return (rank, world_size), those of torch's process group where None is given; (0, 1) without one.

    Raises:
        ValueError: There is no such rank.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if world_size is None:
        world_size = torch.distributed.get_world_size() if distributed else 1
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    rank, world_size = whole(rank, "rank"), whole(world_size, "world_size")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, must be 0 … {world_size - 1} in a world of {world_size}")
    return rank, world_size


class Shard(Generic[T]):
    """Every world_size-th item of a sampler, from `rank` on: a `treenail.contracts.SamplerShard`.

    The state is the sampler's own, counted over all ranks, so that it can be resumed with another number of ranks: each of
    them goes on from there. Steps of all ranks together see the sampler's items in their order.

    Args:
        sampler: The order that the ranks share; it must be equal on all of them.
        rank: Which rank this is; torch's process group knows when None, and without one it is 0.
        world_size: Number of ranks; as above, and without a process group it is 1.
        padding: What makes the ranks' shares equal where an epoch does not divide by world_size. ``"repeat"``: as many of
            the epoch's first items as are missing come again; ``"drop"``: the last ones are left out; ``"none"``: nothing,
            the last ranks have one item less.
        marked: Yield `SampleIndex`, which tells repeated samples and knows the epoch, in place of plain ints.

    Raises:
        ValueError: There is no such rank, or no such padding; or it is no sampler, or one rank's share already.
    """

    @overload
    def __init__(
        self: Shard[int],
        sampler: Sampler,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        padding: Padding = "repeat",
        marked: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Shard[list[int]],
        sampler: BatchSampler,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        padding: Padding = "repeat",
        marked: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self,
        sampler: EpochSampler[T],
        rank: int | None = None,
        world_size: int | None = None,
        *,
        padding: Padding = "repeat",
        marked: bool = False,
    ) -> None: ...
    def __init__(
        self,
        sampler: Sampler | BatchSampler | EpochSampler[T],
        rank: int | None = None,
        world_size: int | None = None,
        *,
        padding: Padding = "repeat",
        marked: bool = False,
    ) -> None:
        if isinstance(sampler, SamplerShard):
            raise ValueError(f"{type(sampler).__name__} is one rank's share already; a share of it would lose samples")
        if not isinstance(sampler, Sampler | BatchSampler | EpochSampler):
            raise ValueError(f"{type(sampler).__name__} is no sampler of Treenail's, which could be resumed")
        if padding not in {"repeat", "drop", "none"}:
            raise ValueError(f"padding is {padding!r}, must be 'repeat', 'drop' or 'none'")
        self.rank, self.world_size = process_rank(rank, world_size)
        self.sampler = sampler
        self.padding = padding
        self.marked = marked
        self._block = sampler.block if isinstance(sampler, EpochSampler) else BLOCK

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self.sampler.epoch

    @property
    def cursor(self) -> int:
        """How many items of the epoch were consumed, by all ranks together."""
        return self.sampler.cursor

    def __len__(self) -> int:
        return self._share(len(self.sampler))

    @property
    def remaining(self) -> int:
        """How many items this rank will still draw in this epoch."""
        return self._share(len(self.sampler) - self.cursor)

    def _share(self, left: int) -> int:
        return len(range(self.rank, self.stop(left), self.world_size))

    def stop(self, left: int) -> int:
        """Return how many of the items that are left all ranks draw together, repeated ones included."""
        if self.padding == "none":
            return left
        rounds = left // self.world_size if self.padding == "drop" else -(-left // self.world_size)
        return rounds * self.world_size

    def __iter__(self) -> Iterator[T]:
        stop = self.cursor + self.stop(len(self.sampler) - self.cursor)
        return Drawing.of(self.draw, self.epoch, self.cursor, stop, self.rank, self.world_size, self._block, self._seek)

    def _seek(self, epoch: int, cursor: int) -> int:
        """Go to a position, and return where the epoch then ends for all ranks together."""
        left = max(0, seek(self.sampler, epoch, cursor) - cursor)
        return cursor + self.stop(left)

    def draw(self, epoch: int, positions: Tensor) -> list[T]:
        """Return the items at ascending positions of an epoch, as all ranks together count them; int64[n], n > 0.

        Positions from the epoch's length on are those of repeated items.
        """
        length = len(self.sampler)
        repeated = max(0, (int(positions[-1]) - length) // self.world_size + 1)
        once, again = positions[: len(positions) - repeated], positions[len(positions) - repeated :] % length
        items = [self.read(epoch, once) if len(once) else [], self.read(epoch, again) if repeated else []]
        if self.marked:
            places = positions.tolist()
            return [
                _marked(item, epoch, place >= length, place)
                for item, place in zip(items[0] + items[1], places, strict=True)
            ]
        return items[0] + items[1] if repeated else items[0]

    def read(self, epoch: int, positions: Tensor) -> list[T]:
        """Return the items of the shared order at ascending positions of an epoch; int64[n], n > 0, none is repeated."""
        sampler = self.sampler
        if isinstance(sampler, EpochSampler):
            return sampler.draw(epoch, positions)
        if (now := sampler.epoch) != epoch:
            state = sampler.state_dict()
            sampler.set_epoch(epoch)
            try:
                return self.read(epoch, positions)
            finally:
                sampler.set_epoch(now)
                sampler.load_state_dict(state)
        first, last = int(positions[0]), int(positions[-1])
        items: list[int] | list[list[int]]
        if isinstance(sampler, Sampler):
            items = sampler.indices(first, last - first + 1)[positions - first].tolist()
        else:
            block = sampler.batches(first, last - first + 1)
            items = [block[place] for place in (positions - first).tolist()]
        return items  # type: ignore[return-value]  # T is what this sampler's items are

    def advance(self, count: int) -> None:
        """Record that every rank consumed `count` further items, or what it had left where that was less.

        Raises:
            ValueError: count is negative, or no rank has anything left in this epoch.
        """
        count, left = whole(count, "count"), len(self.sampler) - self.cursor
        most = -(-self.stop(left) // self.world_size)
        if count < 0 or (count > 0 and not most):
            raise ValueError(f"cannot advance by {count}: {most} are left for a rank in this epoch")
        self.sampler.advance(min(min(count, most) * self.world_size, left))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one.

        Raises:
            ValueError: epoch is negative.
        """
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, object]:
        """Return the sampler's state; equal on all ranks."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, whatever the world size it was saved with.

        Raises:
            StateError: The state does not fit the sampler.
        """
        self.sampler.load_state_dict(state_dict)


def _marked(item: T, epoch: int, padding: bool, position: int) -> T:
    if isinstance(item, list):
        return [SampleIndex(index, epoch, padding, position) for index in item]  # type: ignore[return-value]  # T is list[int]
    if isinstance(item, int):
        return SampleIndex(item, epoch, padding, position)  # type: ignore[return-value]  # T is int
    raise TypeError(f"only indices can be marked, not {type(item).__name__}")

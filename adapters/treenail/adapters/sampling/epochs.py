"""What samplers of indices and of batches have in common: an epoch, a cursor, and a state of a few integers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from functools import partial
from operator import index
from typing import Generic, TypeVar

import torch
from torch import Tensor

from treenail.adapters.sampling.drawing import BLOCK, Drawing
from treenail.adapters.sampling.permutation import LIMIT
from treenail.contracts import BatchSampler
from treenail.kernel import Sampler, StateError

T = TypeVar("T")


MOST_EPOCHS = 2**62


def whole(value: object, name: str) -> int:
    """Return a whole number as an int; numpy's and torch's are whole numbers, too.

    Args:
        value: The number.
        name: What it is, for messages: ``"seed"``.

    Raises:
        ValueError: It is none; neither is a bool.
    """
    try:
        if not isinstance(value, bool):
            return index(value)  # type: ignore[arg-type]  # that is what is tried
    except (TypeError, ValueError, RuntimeError):  # the last two are numpy's and torch's, of more than one number
        pass
    raise ValueError(f"{name} is {value!r}, must be a whole number")


def at_least(least: int, value: object, name: str) -> int:
    """Return a whole number as an int.

    Raises:
        ValueError: It is none, or too small.
    """
    number = whole(value, name)
    if number < least:
        raise ValueError(f"{name} is {number}, must be at least {least}")
    return number


def length_of(dataset: int | Sized) -> int:
    """Return the number of samples of a dataset, or the number that was given in its place.

    Raises:
        ValueError: It is negative, or too large.
    """
    # A tensor of no dimensions has __len__, and is a number.
    sized = hasattr(dataset, "__len__") and getattr(dataset, "shape", None) != ()
    size = len(dataset) if sized else whole(dataset, "the size")  # type: ignore[arg-type]  # it has a length
    return checked_length(size)


def checked_length(size: int) -> int:
    """Return a number of samples.

    Raises:
        ValueError: It is negative, or too large.
    """
    if not 0 <= size <= LIMIT:
        raise ValueError(f"the size is {size}, must be 0 … 2**60")
    return size


def checked_epoch(epoch: object) -> int:
    """Return the number of an epoch.

    Raises:
        ValueError: It is none.
    """
    number = whole(epoch, "epoch")
    if not 0 <= number < MOST_EPOCHS:
        raise ValueError(f"epoch is {number}; epochs are counted from 0")
    return number


def seek(sampler: Sampler | BatchSampler | EpochSampler[T], epoch: int, cursor: int) -> int:
    """Go to a position, or to the end of the epoch where it lies behind it; return the length of the epoch."""
    place = min(cursor, len(sampler))
    if isinstance(sampler, EpochSampler):
        sampler.epoch, sampler.cursor = epoch, place
    else:
        sampler.set_epoch(epoch + 1)  # to another epoch and back: to the start
        sampler.set_epoch(epoch)
        sampler.advance(place)
    return len(sampler)


def is_position(epoch: object, cursor: object, length: int) -> bool:
    """Return whether a state's epoch and cursor are a position in epochs of a length."""
    return type(epoch) is int and type(cursor) is int and 0 <= epoch < MOST_EPOCHS and 0 <= cursor <= length


class EpochSampler(ABC, Generic[T]):
    """A cursor in an order that a subclass defines as a pure function of (epoch, position).

    Args:
        length: Items of an epoch.
        identity: What a state must have in common with this sampler to fit: JSON.

    Attributes:
        block: The most items that an iteration draws at once.
        endless: Whether its one epoch is longer than any run, so that a shard of it may begin new passes.
        repeats_items: Whether an item may come several times in an epoch: randomness of a sample then depends on the
            position, too.
    """

    block = BLOCK
    endless = False
    repeats_items = False

    def __init__(self, length: int, identity: dict[str, object]) -> None:
        self.epoch = 0
        self.cursor = 0
        self._length = checked_length(length)
        self._identity = identity

    @property
    def identity(self) -> dict[str, object]:
        """What a state must have in common with this sampler to fit."""
        return dict(self._identity)

    @abstractmethod
    def draw(self, epoch: int, positions: Tensor) -> list[T]:
        """Return the items at ascending positions int64[n] of an epoch, each 0 … len(self)-1."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return Drawing.of(self.draw, self.epoch, self.cursor, self._length, block=self.block, moved=partial(seek, self))

    def positions(self, cursor: int, count: int) -> Tensor:
        """Return the positions cursor … cursor+count-1 as far as the epoch goes; int64[min(count, len(self) - cursor)].

        Raises:
            ValueError: cursor is not in 0 … len(self), or count is negative.
        """
        cursor, count = whole(cursor, "cursor"), whole(count, "count")
        if not 0 <= cursor <= self._length or count < 0:
            raise ValueError(f"nothing to draw: {count} from cursor {cursor} on; the epoch has 0 … {self._length}")
        return torch.arange(cursor, min(cursor + count, self._length), device="cpu")

    def advance(self, count: int) -> None:
        """Record that `count` further items were consumed.

        Raises:
            ValueError: count is negative or goes past the end of the epoch.
        """
        count = whole(count, "count")
        if not 0 <= count <= self._length - self.cursor:
            raise ValueError(f"cannot advance by {count} at cursor {self.cursor} of {self._length}")
        self.cursor += count

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one: a resumed epoch goes on where it stood.

        Raises:
            ValueError: epoch is negative.
        """
        epoch = checked_epoch(epoch)
        if epoch != self.epoch:
            self.epoch, self.cursor = epoch, 0

    def state_dict(self) -> dict[str, object]:
        """Return epoch, cursor, and what identifies the order; JSON of less than 1 KB."""
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: The state is of another order (kind, dataset size, seed …), or its position does not exist.
        """
        for name, value in self._identity.items():
            if state_dict.get(name) != value:
                raise StateError(
                    f"the state's {name} is {state_dict.get(name)!r}, this sampler's is {value!r}",
                    where=type(self).__name__,
                    mend="resume with the dataset, sampler and seed that the run was begun with",
                )
        epoch, cursor = state_dict.get("epoch"), state_dict.get("cursor")
        if not is_position(epoch, cursor, self._length):
            raise StateError(
                f"no position epoch {epoch!r}, cursor {cursor!r}; an epoch has 0 … {self._length}",
                where=type(self).__name__,
            )
        self.epoch, self.cursor = epoch, cursor  # type: ignore[assignment]  # they are ints: a position


class IndexSampler(EpochSampler[int]):
    """A `Sampler`: indices in blocks, over an order that a subclass defines."""

    @abstractmethod
    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at ascending positions int64[n] of an epoch, each 0 … len(self)-1; int64[n], not aliased."""

    def draw(self, epoch: int, positions: Tensor) -> list[int]:
        """Return the indices at positions as ints."""
        return self.at(epoch, positions).tolist()

    def indices(self, cursor: int, count: int) -> Tensor:
        """Return the indices at positions cursor … cursor+count-1 of the current epoch, fewer at its end.

        Args:
            cursor: First position, 0 … len(self).
            count: How many, at least 0.

        Returns:
            int64[min(count, len(self) - cursor)]

        Raises:
            ValueError: cursor or count is out of range.
        """
        return self.at(self.epoch, self.positions(cursor, count))


class IndexBatchSampler(EpochSampler[list[int]]):
    """A `treenail.contracts.BatchSampler`: batches of indices, over an order of batches that a subclass defines."""

    block = 64

    def batches(self, cursor: int, count: int) -> list[list[int]]:
        """Return the batches number cursor … cursor+count-1 of the current epoch, fewer at its end.

        Raises:
            ValueError: cursor or count is out of range.
        """
        return self.draw(self.epoch, self.positions(cursor, count))

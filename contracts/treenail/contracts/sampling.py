"""Orders of batches, and what one rank draws: what a loader takes besides the kernel's `Sampler`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

from treenail.kernel import Stateful

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class BatchSampler(Stateful, Protocol):
    """A resumable order of batches of indices, epoch after epoch: a `treenail.kernel.Sampler` whose items are batches.

    The batches of an epoch are a pure function of the sampler's arguments and the epoch; they depend neither on the number
    of processes nor on what was drawn before. Cursor, advance and len count batches.
    """

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The current epoch, from 0."""
        ...

    @property
    @abstractmethod
    def cursor(self) -> int:
        """How many batches of the current epoch were consumed."""
        ...

    @abstractmethod
    def __len__(self) -> int:
        """Return how many batches one whole epoch has, whatever the cursor."""
        ...

    @abstractmethod
    def batches(self, cursor: int, count: int) -> list[list[int]]:
        """Return the batches number cursor … cursor+count-1 of the current epoch.

        Args:
            cursor: First batch, 0 <= cursor <= len(self).
            count: How many, >= 0; fewer come back at the end of the epoch.

        Raises:
            ValueError: cursor or count is out of range.
        """
        ...

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches from the cursor to the end of this epoch, whatever happens meanwhile; the cursor stays."""
        ...

    @abstractmethod
    def advance(self, count: int) -> None:
        """Record that `count` further batches were consumed.

        Raises:
            ValueError: count is negative or goes past the end of the epoch.
        """
        ...

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one (then the cursor stays: a resumed epoch goes on).

        Raises:
            ValueError: epoch is negative.
        """
        ...


@runtime_checkable
class SamplerShard(Stateful, Protocol[T_co]):
    """What one rank draws of an order: indices, or batches of them.

    All ranks have the same state, and it holds no world size: it says how many items of the epoch were consumed by all
    ranks together, so that a run may go on with more ranks or fewer and still see every remaining item once. Where the items
    do not divide by the ranks, some may come again to give each rank as many (marked by a true attribute ``padding`` of such
    an index, where indices are marked), the last may be left out, or some ranks have one less.
    """

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The current epoch, from 0."""
        ...

    @abstractmethod
    def __len__(self) -> int:
        """Return how many items this rank draws in a whole epoch."""
        ...

    @property
    @abstractmethod
    def remaining(self) -> int:
        """How many items this rank will still draw in this epoch."""
        ...

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]:
        """Yield the `remaining` items of this rank in this epoch, whatever happens meanwhile; nothing moves."""
        ...

    @abstractmethod
    def advance(self, count: int) -> None:
        """Record that every rank consumed `count` further items, or what it had left where that was less.

        Raises:
            ValueError: count is negative, or no rank has anything left in this epoch.
        """
        ...

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one (then the position stays: a resumed epoch goes on).

        Raises:
            ValueError: epoch is negative.
        """
        ...

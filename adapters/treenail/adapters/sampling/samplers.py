"""Samplers whose order is a pure function of (seed, epoch, position), so that their state is a few integers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from treenail.kernel import StateError, mix

BLOCK = 4096  # indices drawn at once while iterating; one at a time costs a thousand times more


class _EpochSampler(ABC):
    """Cursor, epoch and state, over an order that a subclass defines."""

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size is {size}; a dataset has at least 0 samples")
        self.size = size
        self.epoch = 0
        self.cursor = 0

    @abstractmethod
    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        """Return the indices at positions start … stop-1 of an epoch; int64[stop - start]."""

    @abstractmethod
    def _identity(self) -> dict[str, object]:
        """Return what must be equal for a state to fit."""

    def __len__(self) -> int:
        return self.size

    def indices(self, cursor: int, count: int) -> Tensor:
        """Return the indices at positions cursor … cursor+count-1 of the current epoch's order, fewer at its end.

        Raises:
            ValueError: cursor is not in 0 … len(self), or count is negative.
        """
        if not 0 <= cursor <= self.size or count < 0:
            raise ValueError(f"no {count} indices at cursor {cursor}: the epoch has positions 0 … {self.size}")
        return self._order(self.epoch, cursor, min(cursor + count, self.size))

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch  # an iteration under way stays in its epoch
        for start in range(self.cursor, self.size, BLOCK):
            yield from self._order(epoch, start, min(start + BLOCK, self.size)).tolist()

    def advance(self, count: int) -> None:
        """Record that `count` further samples were consumed.

        Raises:
            ValueError: count is negative or goes past the end of the epoch.
        """
        if not 0 <= count <= self.size - self.cursor:
            raise ValueError(f"cannot advance by {count} at cursor {self.cursor} of {self.size}")
        self.cursor += count

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one: a resumed epoch goes on where it stood.

        Raises:
            ValueError: epoch is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; epochs are counted from 0")
        if epoch != self.epoch:
            self.epoch, self.cursor = epoch, 0

    def state_dict(self) -> dict[str, object]:
        """Return epoch, cursor, and what identifies the order."""
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: The state is of another order (kind, dataset size, seed), or its position does not exist.
        """
        for name, value in self._identity().items():
            if state_dict.get(name) != value:
                raise StateError(
                    f"the state's {name} is {state_dict.get(name)!r}, this sampler's is {value!r}",
                    where=type(self).__name__,
                    mend="resume with the dataset, sampler and seed that the run was begun with",
                )
        epoch, cursor = state_dict.get("epoch"), state_dict.get("cursor")
        if not isinstance(epoch, int) or not isinstance(cursor, int) or epoch < 0 or not 0 <= cursor <= self.size:
            raise StateError(f"no position epoch {epoch!r}, cursor {cursor!r}", where=type(self).__name__)
        self.epoch, self.cursor = epoch, cursor


class SequentialSampler(_EpochSampler):
    """The indices 0 … size-1 in order, every epoch.

    Args:
        size: Number of samples.
    """

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        return torch.arange(start, stop)

    def _identity(self) -> dict[str, object]:
        return {"kind": "sequential", "size": self.size}


class RandomSampler(_EpochSampler):
    """Every index once an epoch, in an order that (seed, epoch) decides.

    The permutation of the current epoch is kept: 8 bytes a sample.

    Args:
        size: Number of samples.
        seed: Hashed with the epoch, so that seed 0 epoch 1 is not seed 1 epoch 0.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(size)
        self.seed = seed
        self._permutation: tuple[int, Tensor] | None = None

    def _order(self, epoch: int, start: int, stop: int) -> Tensor:
        if self._permutation is None or self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch, "order"))
            self._permutation = (epoch, torch.randperm(self.size, generator=generator))
        return self._permutation[1][start:stop].clone()

    def _identity(self) -> dict[str, object]:
        return {"kind": "random", "size": self.size, "seed": self.seed}

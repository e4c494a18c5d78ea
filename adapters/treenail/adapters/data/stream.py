"""Batches of data that can only be iterated, whose number nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from treenail.adapters.seeding import seed_sample, shielded_rng
from treenail.kernel import StateError, mix


class StreamedBatches:
    """Batches of an iterable of unknown length: a `BatchSource` without a `len`.

    A resume draws again what had been consumed of the epoch, and drops it: what an iterable gives can only be reached that
    way. Each batch is drawn under generators seeded by (seed, epoch, number), and the process's own are left as they were, so
    that a resumed epoch goes on exactly, as far as the iterable depends on nothing else.

    Args:
        make: Returns the batches of an epoch, counted from 0: ``lambda epoch: DataLoader(iterable_dataset, batch_size=32)``.
        seed: Seed of the batches' randomness.
    """

    def __init__(self, make: Callable[[int], Iterable[object]], seed: int = 0) -> None:
        self._make = make
        self._seed = seed
        self._epoch = 0
        self._consumed = 0

    def __len__(self) -> int:
        raise TypeError("nobody knows how many batches a stream has")

    def __iter__(self) -> Iterator[object]:
        epoch, drop = self._epoch, self._consumed
        with shielded_rng():
            seed_sample(mix(self._seed, "begin"), epoch, 0)
            iterator = iter(self._make(epoch))
        end = object()
        number = 0
        while True:
            with shielded_rng():
                seed_sample(self._seed, epoch, number)
                batch = next(iterator, end)
            if batch is end:
                break
            if number >= drop:
                yield batch
            number += 1
        if number < drop:
            raise StateError(
                f"{drop} batches of epoch {epoch} had been consumed, and there are {number}",
                where="StreamedBatches",
                mend="resume with the data that the run was begun with",
            )

    @property
    def consumed(self) -> int:
        """How many batches of the current epoch have been consumed."""
        return self._consumed

    def advance(self) -> None:
        """Record that one further batch was consumed."""
        self._consumed += 1

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one."""
        if epoch != self._epoch:
            self._epoch, self._consumed = epoch, 0

    def state_dict(self) -> dict[str, object]:
        """Return the epoch and how many of its batches were consumed."""
        return {"epoch": self._epoch, "consumed": self._consumed, "seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands; the data is read up to there when it is iterated.

        Raises:
            StateError: It is of another seed, or its position does not exist.
        """
        epoch, consumed, seed = (state_dict.get(name) for name in ("epoch", "consumed", "seed"))
        if seed != self._seed:
            raise StateError(f"the state is of seed {seed!r}, not {self._seed}", where="StreamedBatches")
        if not isinstance(epoch, int) or not isinstance(consumed, int) or min(epoch, consumed) < 0:
            raise StateError(f"no position epoch {epoch!r}, batch {consumed!r}", where="StreamedBatches")
        self._epoch, self._consumed = epoch, consumed

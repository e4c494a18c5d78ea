"""The samplers of mmengine: rank and world size are the process group's."""

from __future__ import annotations

from collections.abc import Callable, Sized
from functools import partial

import torch
from torch import Tensor

from treenail.adapters.sampling.compat.ranks import ENDLESS, RankSampler, shuffled_or_not
from treenail.adapters.sampling.epochs import IndexSampler, length_of, whole
from treenail.adapters.sampling.permutation import Permutation
from treenail.adapters.sampling.samplers import Shuffle
from treenail.adapters.sampling.shard import Padding, SampleIndex
from treenail.kernel import StateError, mix


class _OfProcess(RankSampler):
    """What this process draws of an order whose seed may be left to chance: then a state brings its own seed along."""

    def __init__(
        self,
        make: Callable[[int], IndexSampler],
        seed: int | None,
        rank: int | None,
        num_replicas: int | None,
        *,
        padding: Padding,
        marked: bool,
    ) -> None:
        self.seed = common_seed() if seed is None else whole(seed, "seed")
        self._make = make
        self._takes_seed = seed is None
        super().__init__(make(self.seed), rank, num_replicas, padding=padding, marked=marked)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands, whatever the world size it was saved with.

        A sampler constructed with seed None takes the state's seed.

        Raises:
            StateError: The state does not fit the sampler.
        """
        seed = state_dict.get("seed", self.seed)
        if not self._takes_seed or seed == self.seed:
            super().load_state_dict(state_dict)
            return
        if type(seed) is not int:
            raise StateError(f"the state's seed is {seed!r}, which is no int", where=type(self).__name__)
        sampler = self._make(seed)
        sampler.load_state_dict(state_dict)
        self.sampler, self.seed = sampler, seed


class DefaultSampler(_OfProcess):
    """This rank's share of every index once an epoch.

    Args:
        dataset: The dataset, or how many samples it has.
        shuffle: Shuffle the indices, else draw them in order.
        seed: Seed of the order, equal on all ranks. None: drawn from torch's global generator, by rank 0 for all; it goes
            into the state, and a sampler constructed without a seed takes it from there.
        round_up: Give every rank equally many, by repeating as many of the first samples as are missing; otherwise the
            last ranks have one less.
        num_replicas: Number of ranks; torch's process group knows when None, and without one it is 1.
        rank: Which rank this is; as above, and without a process group it is 0.
        order: How it is shuffled: ``"torch"`` gives the indices of the original, ``"hashed"`` takes constant memory and
            hashes seed and epoch together.
        marked: Yield `SampleIndex`, which tells repeated samples, in place of plain ints.
    """

    def __init__(
        self,
        dataset: int | Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        order: Shuffle = "torch",
        marked: bool = False,
    ) -> None:
        super().__init__(
            partial(shuffled_or_not, length_of(dataset), order=order, shuffle=shuffle),
            seed,
            rank,
            num_replicas,
            padding="repeat" if round_up else "none",
            marked=marked,
        )
        self.dataset, self.shuffle, self.round_up = dataset, shuffle, round_up


class InfiniteSampler(_OfProcess):
    """This rank's share of passes over the dataset that follow each other without end.

    There are no epochs: `set_epoch` has no effect, the iterator has no end, and the cursor counts every sample that was ever
    consumed. For those who plan in epochs, `len` is this rank's share of a pass, and `remaining` what is left of the current
    one.

    Args:
        dataset: The dataset, or how many samples it has; at least 1.
        shuffle: Shuffle each pass anew, else draw it in order.
        seed: Seed of the order, equal on all ranks. None: drawn from torch's global generator, by rank 0 for all; it goes
            into the state, and a sampler constructed without a seed takes it from there.
        num_replicas: Number of ranks; torch's process group knows when None, and without one it is 1.
        rank: Which rank this is; as above, and without a process group it is 0.
        order: How it is shuffled: ``"torch"`` gives the indices of the original, whose passes are drawn one after another
            (a resumed sampler draws those before it again: 10 ms for each million samples of each); ``"hashed"`` takes
            constant memory and resumes at once.
        marked: Yield `SampleIndex`, whose epoch is the pass, in place of plain ints.

    Raises:
        ValueError: The dataset is empty.
    """

    def __init__(
        self,
        dataset: int | Sized,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        order: Shuffle = "torch",
        marked: bool = False,
    ) -> None:
        self.dataset, self.shuffle, self.size = dataset, shuffle, length_of(dataset)
        make = partial(Passes, self.size, order=order if shuffle else None)
        super().__init__(make, seed, rank, num_replicas, padding="none", marked=marked)

    def __len__(self) -> int:
        return (self.size + self.world_size - 1) // self.world_size

    @property
    def remaining(self) -> int:
        """How many items this rank will still draw in this pass; ranks that share its last step go into the next one."""
        return (self.size - self.cursor % self.size + self.world_size - 1) // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: passes follow each other by themselves."""

    def draw(self, epoch: int, positions: Tensor) -> list[int]:
        """Return the indices at ascending positions, as all ranks together count them."""
        items = self.read(epoch, positions)
        if not self.marked:
            return items
        places = positions.tolist()
        return [
            SampleIndex(item, place // self.size, position=place) for item, place in zip(items, places, strict=True)
        ]


class Passes(IndexSampler):
    """The indices of a dataset again and again.

    Args:
        size: Number of indices, at least 1.
        seed: Seed of all passes.
        order: How each is shuffled; None: not at all.
    """

    endless = True
    repeats_items = True

    def __init__(self, size: int, seed: int, order: Shuffle | None) -> None:
        if size < 1:
            raise ValueError("the dataset is empty; there is nothing to draw from without end")
        if order not in {None, "hashed", "torch"}:
            raise ValueError(f"order is {order!r}, must be 'hashed' or 'torch'")
        self._size = size
        self._seed = seed
        self._order = order
        self._generator = torch.Generator()
        self._last: tuple[int, Permutation | Tensor] | None = None
        identity: dict[str, object] = {"kind": "passes", "size": size, "order": order}
        super().__init__(ENDLESS, identity if order is None else identity | {"seed": seed})

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the indices at ascending positions."""
        passes = positions // self._size
        places = positions - passes * self._size
        if self._order is None:
            return places
        indices = torch.empty_like(places)
        numbers, counts = torch.unique_consecutive(passes, return_counts=True)
        start = 0
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            order = self._pass(number)
            here = places[start : start + count]
            indices[start : start + count] = order(here) if isinstance(order, Permutation) else order[here]
            start += count
        return indices

    def _pass(self, number: int) -> Permutation | Tensor:
        """Return the order of a pass; the last one used stays at hand."""
        if self._last is None or self._last[0] != number:
            if self._order == "hashed":
                self._last = number, Permutation(self._size, mix(self._seed, number, "pass"))
            else:
                self._last = number, self._drawn(number)
        return self._last[1]

    def _drawn(self, number: int) -> Tensor:
        """Return the permutation that a generator draws after `number` others."""
        done = -1 if self._last is None else self._last[0]
        if number <= done or done < 0:
            self._generator.manual_seed(self._seed)
            done = -1
        for _ in range(done + 1, number):
            torch.randperm(self._size, generator=self._generator, device="cpu")
        return torch.randperm(self._size, generator=self._generator, device="cpu")


def common_seed() -> int:
    """Return a random seed that all ranks have in common, from torch's global generator (rank 0's).

    Every rank draws a number, so that generators that agreed before agree afterwards.
    """
    seeds: list[int] = [int(torch.randint(2**31, ()))]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(seeds, src=0)
    return seeds[0]

"""The laws of a sampler's order; part of `SamplerLaws`."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from itertools import pairwise
from unittest import SkipTest

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import examples
from treenail.kernel import Sampler

EDGES = (0, 1, 2, 3, 4, 7, 8, 9, 13, 31, 32, 33, 251, 1023, 1024, 1025, 4095, 4096, 4097)
LARGE = 1000  # two random orders of so many indices never agree by chance
LIMIT = 1024  # bytes of a state

SIZES = st.sampled_from(EDGES) | st.integers(0, 300)
SEEDS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(0, 1000)
FRACTIONS = st.floats(0, 1)
_batches = st.tuples(st.integers(1, 5), st.integers(1, 9))  # world size, samples of a rank


def order_of(sampler: Sampler) -> list[int]:
    """Return the whole current epoch."""
    return block_of(sampler, 0, len(sampler))


def block_of(sampler: Sampler, cursor: int, count: int) -> list[int]:
    """Return a block as ints."""
    return [int(index) for index in sampler.indices(cursor, count)]


def through_json(state: dict[str, object]) -> dict[str, object]:
    """Return the state written as JSON and read back."""
    try:
        loaded: dict[str, object] = json.loads(json.dumps(state))
    except TypeError as error:
        raise AssertionError(f"the state is not JSON: {error}") from error
    return loaded


class OrderLaws(ABC):
    """An epoch is a permutation that depends on the arguments and the epoch alone.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
    """

    seeded: bool = True

    @abstractmethod
    def make(self, size: int, seed: int) -> Sampler:
        """Return a new sampler of `size` indices; one that is not seeded ignores the seed."""

    def needs_seed(self) -> None:
        """Skip a law that is about seeded samplers only."""
        if not self.seeded:
            raise SkipTest("the sampler is not seeded")

    def at(self, size: int, seed: int, epoch: int, cursor: int = 0) -> Sampler:
        """Return a new sampler at a position."""
        sampler = self.make(size, seed)
        sampler.set_epoch(epoch)
        sampler.advance(cursor)
        return sampler

    def resumed(self, sampler: Sampler, seed: int) -> Sampler:
        """Return a new sampler in the state of another."""
        resumed = self.make(len(sampler), seed)
        resumed.load_state_dict(through_json(sampler.state_dict()))
        return resumed

    def test_an_epoch_has_each_index_once(self) -> None:
        """An epoch's order is a permutation of 0 … size-1, for every size."""
        for size in EDGES:
            for epoch in (0, 1, 5):
                order = order_of(self.at(size, 7, epoch))
                assert sorted(order) == list(range(size)), (
                    f"size {size}, epoch {epoch}: not a permutation: {order[:20]}"
                )

    @given(size=SIZES, seed=SEEDS, epoch=EPOCHS, cuts=st.lists(FRACTIONS, max_size=6))
    @examples(60)
    def test_blocks_join(self, size: int, seed: int, epoch: int, cuts: list[float]) -> None:
        """However a range of positions is cut into blocks, the blocks joined are the range."""
        sampler = self.at(size, seed, epoch)
        whole = order_of(sampler)
        bounds = sorted({0, size, *(int(cut * size) for cut in cuts)})
        for start, stop in pairwise(bounds):
            block = block_of(sampler, start, stop - start)
            assert block == whole[start:stop], f"positions {start} … {stop - 1} differ from those of the whole epoch"

    @given(size=SIZES, seed=SEEDS, at=FRACTIONS, extra=st.integers(0, 10_000))
    @examples(40)
    def test_fewer_come_back_at_the_end(self, size: int, seed: int, at: float, extra: int) -> None:
        """A block that reaches past the end of the epoch holds min(count, size - cursor) indices."""
        sampler, cursor = self.make(size, seed), int(at * size)
        block = block_of(sampler, cursor, size - cursor + extra)
        assert block == order_of(sampler)[cursor:], f"{len(block)} indices past the end, {size - cursor} are left"

    def test_indices_are_int64_vectors(self) -> None:
        """Every block is an int64 tensor of one dimension, empty ones too."""
        for size, cursor, count in ((0, 0, 0), (0, 0, 5), (5, 0, 0), (5, 5, 3), (5, 2, 2), (1025, 0, 1025)):
            block = self.make(size, 0).indices(cursor, count)
            found = f"{block.dtype} of shape {tuple(block.shape)}"
            assert block.dtype == torch.int64, f"indices({cursor}, {count}) of {size} is {found}, not int64"
            assert block.ndim == 1, f"indices({cursor}, {count}) of {size} is {found}, not a vector"

    @given(size=SIZES, seed=SEEDS, others=st.lists(EPOCHS, max_size=4), epoch=EPOCHS, noise=SEEDS)
    @examples(40)
    def test_the_order_is_a_pure_function(
        self, size: int, seed: int, others: list[int], epoch: int, noise: int
    ) -> None:
        """The order depends on the arguments and the epoch alone, not on the object, its past or global generators."""
        fresh, used = self.make(size, seed), self.make(size, seed)
        fresh.set_epoch(epoch)
        expected = order_of(fresh)
        for other in others:
            used.set_epoch(other)
            order_of(used)
        used.set_epoch(epoch)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(noise)
            assert order_of(used) == expected, f"epoch {epoch} differs in another object, with {others} drawn before"

    def test_global_generators_are_left_alone(self) -> None:
        """Drawing neither seeds nor consumes torch's or random's global generator."""
        before = torch.random.get_rng_state(), random.getstate()
        sampler = self.at(100, 3, 1)
        order_of(sampler)
        list(sampler)
        assert torch.equal(before[0], torch.random.get_rng_state()), "torch's global generator was touched"
        assert before[1] == random.getstate(), "random's global generator was touched"

    def test_epochs_differ(self) -> None:
        """Two epochs of a seeded sampler have different orders."""
        self.needs_seed()
        orders = {tuple(order_of(self.at(LARGE, 0, epoch))) for epoch in range(4)}
        assert len(orders) == 4, f"4 epochs have {len(orders)} different orders"

    def test_seeds_differ(self) -> None:
        """Two seeds give different orders of the same epoch."""
        self.needs_seed()
        orders = {tuple(order_of(self.make(LARGE, seed))) for seed in range(4)}
        assert len(orders) == 4, f"4 seeds give {len(orders)} different orders of epoch 0"

    def test_seed_and_epoch_are_not_added(self) -> None:
        """Different pairs of seed and epoch have different orders: (0, 1) is not (1, 0)."""
        self.needs_seed()
        seen: dict[tuple[int, ...], tuple[int, int]] = {}
        for pair in ((seed, epoch) for seed in range(5) for epoch in range(5)):
            order = tuple(order_of(self.at(LARGE, *pair)))
            assert order not in seen, f"(seed, epoch) = {pair} has the order of {seen[order]}"
            seen[order] = pair

    def test_blocks_are_not_aliased(self) -> None:
        """Writing into a returned block changes no later answer."""
        sampler = self.make(50, 0)
        expected = order_of(sampler)
        sampler.indices(0, 50).fill_(-1)
        sampler.indices(10, 20).fill_(-1)
        assert order_of(sampler) == expected, "a returned block is the sampler's own memory: writing into it shows"

"""The laws of a `treenail.kernel.Sampler`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from itertools import cycle

import torch
from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.sampling._inputs import (
    EDGES,
    EPOCHS,
    FRACTIONS,
    LARGE,
    SEEDS,
    assert_counts,
    assert_small_json,
    keys,
)
from treenail.contracts.laws.sampling.states import StateLaws
from treenail.kernel import Sampler

# Where shuffles that are computed, and not stored, have lost an index: block ciphers one bit short, halves of odd widths.
BEYOND_TABLES = (65_535, 65_536, 65_537, 131_073, 262_145)
HUGE = (10**12, 2**40 - 1, 2**40, 2**40 + 1)  # more than any memory holds, more than an int32 or a float32 counts
_SAMPLED = 2000  # neighbouring positions looked at in a huge epoch

_batches = st.tuples(st.integers(1, 5), st.integers(1, 9))  # world size, samples of a rank


class SamplerLaws(StateLaws[Sampler]):
    """What every sampler obeys: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
        hashed: False for an order that depends on the sum of seed and epoch only, as torch's own samplers have it.
        repeats: How often an epoch has each index, one whole pass after another; None for any number of times.
        scales: False for a sampler that stores an order, which an epoch of 10¹² indices rules out.
    """

    repeats: int | None = 1
    scales: bool = True

    @abstractmethod
    def make(self, size: int, seed: int) -> Sampler:
        """Return a new sampler over `size` samples; one that is not seeded ignores the seed."""

    def counts(self, size: int) -> Mapping[int, int] | None:
        """Return how often an epoch has each index; None where it only has indices 0 … size-1."""
        return None if self.repeats is None else dict.fromkeys(range(size), self.repeats)

    def new(self, size: int, seed: int) -> Sampler:
        """Return what the subclass makes."""
        return self.make(size, seed)

    def read(self, sampler: Sampler, cursor: int, count: int) -> list[Hashable]:
        """Return a block as ints."""
        return [int(index) for index in sampler.indices(cursor, count)]

    def test_an_epoch_has_what_it_should(self) -> None:
        """An epoch has each index as often as it should, for every size: a permutation of 0 … size-1, by default."""
        for size in EDGES:
            for epoch in (0, 1, 5):
                order = self.at(size, 7, epoch).indices(0, 10 * size).tolist()
                assert_counts(order, self.counts(size), size, f"epoch {epoch} of {size} samples")

    def test_a_large_epoch_has_each_index_once(self) -> None:
        """An epoch too large for tables of hashes has each index as often as it should, too: none is lost at 2^k+1."""
        for size in BEYOND_TABLES:
            sampler = self.at(size, 3, 1)
            order = sampler.indices(0, len(sampler)).sort().values
            if counts := self.counts(size):
                due = torch.tensor(list(counts)).repeat_interleave(torch.tensor(list(counts.values()))).sort().values
                if torch.equal(order, due):  # quick; else let it be told
                    continue
            assert_counts(order.tolist(), counts, size, f"an epoch of {size} samples")

    def test_indices_are_int64_vectors(self) -> None:
        """Every block is an int64 tensor of one dimension, empty ones too."""
        for size, cursor, count in ((0, 0, 0), (0, 0, 5), (5, 0, 0), (5, 5, 3), (5, 2, 2), (1025, 0, 1025)):
            sampler = self.make(size, 0)
            block = sampler.indices(min(cursor, len(sampler)), count)
            found = f"{block.dtype} of shape {tuple(block.shape)}"
            assert block.dtype == torch.int64, f"indices({cursor}, {count}) of {size} is {found}, not int64"
            assert block.ndim == 1, f"indices({cursor}, {count}) of {size} is {found}, not a vector"

    def test_iteration_yields_ints(self) -> None:
        """Iteration yields Python ints, which every dataset takes as an index."""
        for index in self.make(300, 0):
            assert type(index) is int, f"iteration yields a {type(index).__name__}, not an int"

    def test_blocks_are_not_aliased(self) -> None:
        """Writing into a returned block changes no later answer."""
        sampler = self.make(50, 0)
        expected = self.order(sampler)
        sampler.indices(0, 50).fill_(-1)
        sampler.indices(10, 20).fill_(-1)
        assert self.order(sampler) == expected, "a returned block is the sampler's own memory: writing into it shows"

    def test_passes_differ(self) -> None:
        """No pass over the dataset has the order of another one of the same or another epoch."""
        seen: dict[tuple[Hashable, ...], tuple[int, int]] = {}
        streams = set()
        for epoch in range(4):
            order = self.order(self.at(LARGE, 0, epoch))
            for number in range(self.repeats or 1):
                one = tuple(order[number * LARGE : (number + 1) * LARGE])
                first = seen.setdefault(one, (epoch, number))
                streams.add(self.pass_stream(0, epoch, number))
                same = self.pass_stream(0, *first) == self.pass_stream(0, epoch, number)
                assert same, f"pass {number} of epoch {epoch} has the order of pass {first[1]} of epoch {first[0]}"
        assert len(seen) == len(streams), f"{len(seen)} orders of passes, must be {len(streams)}"

    def pass_stream(self, seed: int, epoch: int, number: int) -> Hashable:
        """Return what decides the order of a pass: equal where it must be equal, different where it must not."""
        return (self.stream(seed, epoch), number) if self.seeded else None

    @given(size=st.integers(0, 120), seed=SEEDS, shapes=st.lists(_batches, min_size=1))
    @examples(20)
    def test_shares_of_ranks_cover_the_epoch(self, size: int, seed: int, shapes: list[tuple[int, int]]) -> None:
        """Strided shares of each global batch make up the epoch, though the world size changes midway."""
        sampler, seen = self.at(size, seed, 1), list[Hashable]()
        expected = self.order(sampler)
        for world, each in cycle(shapes):
            for rank in range(world):
                seen += self.read(self.resumed(sampler, size, seed), sampler.cursor, world * each)[rank::world]
            sampler.advance(min(world * each, len(sampler) - sampler.cursor))
            if sampler.cursor == len(sampler):
                break
        assert sorted(seen, key=str) == sorted(expected, key=str), (
            f"{len(seen)} drawn, {len(set(seen))} different ones of an epoch of {len(expected)}"
        )

    # Epochs larger than any memory

    def huge(self, size: int, seed: int, epoch: int = 0, cursor: int = 0) -> Sampler:
        """Return a sampler of more indices than a memory holds."""
        with accepted(f"a sampler of {size} samples"):
            return self.at(size, seed, epoch, cursor)

    def test_a_huge_epoch_repeats_no_index(self) -> None:
        """Of 10¹² indices, those at any positions looked at are in range, and different where each comes once."""
        for size in HUGE if self.scales else ():
            sampler, length = self.huge(size, 5, 1), len(self.huge(size, 5, 1))
            starts = sorted({0, 2**24 - 9, 2**31 - 9, 2**31 + 2**24 - 9, 2**32, length // 2, length - _SAMPLED})
            blocks = [sampler.indices(start, min(_SAMPLED, length - start)) for start in starts]
            drawn = torch.cat(blocks)
            assert len(drawn) == len(starts) * _SAMPLED, f"{len(drawn)} indices of {len(starts)} blocks of {_SAMPLED}"
            assert 0 <= int(drawn.min()) <= int(drawn.max()) < size, f"indices of {size} samples are out of range"
            different = len(set(drawn.tolist()))
            assert self.repeats is None or different == len(drawn), (
                f"{len(drawn)} positions below {size} have {different} different indices"
            )

    @given(size=st.sampled_from(HUGE), seed=SEEDS, epoch=EPOCHS, part=FRACTIONS, count=st.integers(0, 600))
    @examples(15)
    def test_a_huge_epoch_resumes_anywhere(self, size: int, seed: int, epoch: int, part: float, count: int) -> None:
        """Blocks, iteration and a resume agree at any of 10¹² positions; the state stays small."""
        if not self.scales:
            return
        sampler = self.huge(size, seed, epoch)
        cursor = int(part * (len(sampler) - 1))
        sampler.advance(cursor)
        expected = self.read(sampler, cursor, count)
        cut = count // 3
        joined = self.read(sampler, cursor, cut) + self.read(sampler, min(cursor + cut, len(sampler)), count - cut)
        assert joined == expected, f"two blocks at {cursor} of {size} are not the one block"
        assert_small_json(sampler.state_dict())
        resumed = self.resumed(sampler, size, seed)
        assert (resumed.epoch, resumed.cursor) == (epoch, cursor), f"resumed at {resumed.cursor}, saved at {cursor}"
        assert keys(resumed, count) == expected, f"resumed at {cursor} of {size}, other indices come"

    def test_a_huge_epoch_ends(self) -> None:
        """The last of 10¹² positions is the last one."""
        for size in HUGE if self.scales else ():
            length = len(self.huge(size, 0))
            sampler = self.huge(size, 0, 1, length - 3)
            assert keys(sampler, 10) == self.read(sampler, length - 3, 10), "the end of an epoch differs from its block"
            assert len(keys(sampler, 10)) == 3, f"{len(keys(sampler, 10))} indices come where 3 are left of {length}"
            with refused(f"advance(4) at {length - 3} of {length}", ValueError):
                sampler.advance(4)

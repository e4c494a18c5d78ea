"""The laws of a `treenail.contracts.BatchSampler`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from treenail.contracts import BatchSampler
from treenail.contracts.laws._support import examples, refused
from treenail.contracts.laws.sampling._inputs import EPOCHS, SEEDS, SMALL, assert_counts, key
from treenail.contracts.laws.sampling.states import StateLaws

_SIZES = st.integers(1, 9)


class BatchSamplerLaws(StateLaws[BatchSampler]):
    """What every sampler of batches obeys: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        seeded: False for an order that depends neither on the seed nor on the epoch.
        hashed: False for an order that depends on the sum of seed and epoch only, as torch's own samplers have it.
    """

    @abstractmethod
    def make(self, size: int, batch_size: int, seed: int, drop_last: bool) -> BatchSampler:
        """Return a new sampler of batches.

        Args:
            size: Samples of the dataset.
            batch_size: Samples of a batch; of the largest, where batches differ.
            seed: One that is not seeded ignores it.
            drop_last: Whether to leave out incomplete batches.
        """

    def counts(self, size: int) -> Mapping[int, int] | None:
        """Return how often an epoch has each index, unless drop_last; None where it only has indices 0 … size-1."""
        return dict.fromkeys(range(size), 1)

    def complete(self, batch: list[int], batch_size: int) -> bool:
        """Return whether drop_last keeps a batch; override it where batches have several sizes."""
        return len(batch) == batch_size

    def dropped(self, size: int, batch_size: int) -> int:
        """Return the most samples that drop_last may leave out; override it where there are several incomplete batches."""
        return size % batch_size

    def new(self, size: int, seed: int) -> BatchSampler:
        """Return what the subclass makes."""
        return self.make(size, 3, seed, False)

    def read(self, sampler: BatchSampler, cursor: int, count: int) -> list[Hashable]:
        """Return batches as tuples."""
        return [key(batch) for batch in sampler.batches(cursor, count)]

    def epoch_of(self, size: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[list[int]]:
        """Return all batches of an epoch."""
        sampler = self.make(size, batch_size, seed, drop_last)
        sampler.set_epoch(epoch)
        return sampler.batches(0, len(sampler))

    @given(size=SMALL, batch_size=_SIZES, seed=SEEDS, epoch=EPOCHS)
    @examples(25)
    def test_an_epoch_has_what_it_should(self, size: int, batch_size: int, seed: int, epoch: int) -> None:
        """The batches of an epoch have each index as often as they should: once, by default."""
        batches = self.epoch_of(size, batch_size, seed, epoch, drop_last=False)
        found = [index for batch in batches for index in batch]
        assert_counts(found, self.counts(size), size, f"epoch {epoch} of {size} samples in batches of {batch_size}")

    @given(size=SMALL, batch_size=_SIZES, seed=SEEDS, epoch=EPOCHS, drop_last=st.booleans())
    @examples(25)
    def test_batches_are_lists_of_ints(
        self, size: int, batch_size: int, seed: int, epoch: int, drop_last: bool
    ) -> None:
        """Every batch is a list of 1 … batch_size Python ints, drawn in blocks or one by one."""
        sampler = self.make(size, batch_size, seed, drop_last)
        sampler.set_epoch(epoch)
        for batch in (*sampler.batches(0, len(sampler)), *sampler):
            assert type(batch) is list, f"a batch is a {type(batch).__name__}, not a list"
            assert all(type(index) is int for index in batch), f"the batch {batch} holds something else than ints"
            assert 1 <= len(batch) <= batch_size, f"a batch of {len(batch)}, must have 1 … {batch_size} samples"

    @given(size=SMALL, batch_size=_SIZES, seed=SEEDS, epoch=EPOCHS)
    @examples(25)
    def test_drop_last_leaves_out_incomplete_batches_only(
        self, size: int, batch_size: int, seed: int, epoch: int
    ) -> None:
        """With drop_last, batches are complete, no index comes more often, and no complete batch is lost."""
        batches = self.epoch_of(size, batch_size, seed, epoch, drop_last=True)
        short = [batch for batch in batches if not self.complete(batch, batch_size)]
        assert not short, f"{short[0]} is an incomplete batch of {batch_size}"
        found = [index for batch in batches for index in batch]
        if (counts := self.counts(size)) is not None:
            often = [index for index in found if found.count(index) > counts.get(index, 0)]
            assert not often, f"with drop_last, {often[0]} comes {found.count(often[0])} times"
            lost, most = sum(counts.values()) - len(found), self.dropped(size, batch_size)
            assert lost <= most, f"drop_last leaves out {lost} of {size} samples in batches of {batch_size}, not {most}"

    def test_a_batch_has_samples(self) -> None:
        """A batch size of less than 1 raises ValueError when the sampler is made."""
        for batch_size in (0, -1):
            with refused(f"a batch_size of {batch_size}", ValueError):
                self.make(10, batch_size, 0, False)

    def test_batches_are_not_aliased(self) -> None:
        """Changing a returned batch changes no later answer."""
        sampler = self.new(50, 0)
        expected = self.order(sampler)
        for batch in (*sampler.batches(0, len(sampler)), *sampler):
            batch.clear()
        assert self.order(sampler) == expected, "a returned batch is the sampler's own memory: changing it shows"

    def test_blocks_tell_epochs_apart(self) -> None:
        """Not the same samples are together in every epoch: not only the order of batches changes."""
        groups = [
            {frozenset(batch) for batch in self.epoch_of(200, 5, 0, epoch, drop_last=False)} for epoch in range(3)
        ]
        same = self.stream(0, 0) == self.stream(0, 1)
        assert (groups[0] == groups[1] == groups[2]) == same, "the same samples are together in every epoch"

"""Samplers in torchdata's StatefulDataLoader, whose state brings a sampler back without replaying it."""

from __future__ import annotations

from itertools import chain, islice
from typing import Literal

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.indices import Indices
from treenail.adapters.sampling import BucketBatchSampler, EpochSampler, IndexBatchSampler, RandomSampler, Shard

SIZE = 103
Kind = Literal["indices", "shard", "batches", "batch_shard"]


class Given:
    """A loader with its sampler, as a process makes them that begins or resumes.

    Args:
        kind: What the loader is given.
        workers: Its workers.
        persistent: Whether they stay from epoch to epoch.
    """

    def __init__(self, kind: Kind, workers: int, *, persistent: bool = False) -> None:
        self.sampler: EpochSampler[int] | EpochSampler[list[int]]
        if kind in {"indices", "shard"}:
            indices = self.sampler = RandomSampler(SIZE, seed=6)
            self.loader: StatefulDataLoader[int] = StatefulDataLoader(
                Indices(SIZE),
                batch_size=8,
                sampler=Shard(indices, 1, 2) if kind == "shard" else indices,
                num_workers=workers,
                persistent_workers=persistent,
            )
        else:
            batches: IndexBatchSampler
            batches = self.sampler = BucketBatchSampler(SIZE, [n % 17 for n in range(SIZE)], 4, num_buckets=5, seed=6)
            self.loader = StatefulDataLoader(
                Indices(SIZE),
                batch_sampler=Shard(batches, 1, 2) if kind == "batch_shard" else batches,
                num_workers=workers,
                persistent_workers=persistent,
            )

    def epoch(self, number: int) -> list[list[int]]:
        self.sampler.set_epoch(number)
        return [batch.tolist() for batch in self.loader]


KINDS: list[Kind] = ["indices", "shard", "batches", "batch_shard"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_in_the_middle_of_an_epoch_resumes_there_also_twice(kind: Kind, workers: int) -> None:
    whole = Given(kind, 0)
    epochs = [whole.epoch(number) for number in range(3)]
    assert len(epochs[1]) >= 7

    first = Given(kind, workers)
    assert first.epoch(0) == epochs[0]
    first.sampler.set_epoch(1)
    seen = [batch.tolist() for batch in islice(first.loader, 2)]
    state = first.loader.state_dict()

    second = Given(kind, workers)
    second.loader.load_state_dict(state)
    seen += [batch.tolist() for batch in islice(second.loader, 3)]
    state = second.loader.state_dict()

    third = Given(kind, workers, persistent=workers > 0)
    third.loader.load_state_dict(state)
    third.sampler.set_epoch(1)  # as a loop over epochs does that begins with the one that was resumed
    seen += [batch.tolist() for batch in third.loader]
    assert seen == epochs[1]
    assert third.epoch(2) == epochs[2]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["indices", "batches"])
def test_every_state_of_an_epoch_resumes_with_the_next_batch(kind: Kind, workers: int) -> None:
    whole = Given(kind, 0).epoch(0)
    first = Given(kind, workers)
    states = [first.loader.state_dict() for _ in first.loader]
    assert len(states) == len(whole)
    for consumed in [*range(1, len(whole), 4), len(whole) - 1]:
        later = Given(kind, workers)
        later.loader.load_state_dict(states[consumed - 1])
        assert [batch.tolist() for batch in later.loader] == whole[consumed:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["indices", "batch_shard"])
def test_a_state_at_the_end_of_an_epoch_leads_to_a_whole_next_one(kind: Kind, workers: int) -> None:
    whole = Given(kind, 0)
    epochs = [whole.epoch(number) for number in range(2)]
    first = Given(kind, workers)
    assert first.epoch(0) == epochs[0]
    state = first.loader.state_dict()

    # torchdata hands a state to the sampler no sooner than at iter(): it comes before set_epoch.
    later = Given(kind, workers)
    later.loader.load_state_dict(state)
    iter(later.loader)
    assert later.epoch(1) == epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_that_is_told_what_was_consumed_needs_no_loader_state(workers: int) -> None:
    whole = list(chain(*Given("indices", 0).epoch(3)))
    first = Given("indices", workers)
    first.sampler.set_epoch(3)
    for batch in islice(first.loader, 5):
        first.sampler.advance(len(batch))
    later = Given("indices", 2 - workers)  # torchdata's own state is bound to the number of workers
    later.sampler.load_state_dict(first.sampler.state_dict())
    assert list(chain(*later.epoch(3))) == whole[40:]


def test_both_states_at_once_agree() -> None:
    whole = list(chain(*Given("indices", 0).epoch(0)))
    first = Given("indices", 2)
    for batch in islice(first.loader, 5):
        first.sampler.advance(len(batch))
    later = Given("indices", 2)
    later.sampler.load_state_dict(first.sampler.state_dict())
    later.loader.load_state_dict(first.loader.state_dict())
    assert list(chain(*(batch.tolist() for batch in later.loader))) == whole[40:]

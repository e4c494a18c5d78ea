"""Samplers in torch's own DataLoader."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tests.indices import Indices
from tests.processes import Starter
from treenail.adapters.sampling import (
    BucketBatchSampler,
    IndexSampler,
    RandomSampler,
    SampleIndex,
    SequentialSampler,
    Shard,
    SubsetSampler,
)
from treenail.adapters.seeding import sample_rng

SIZE = 103  # not a multiple of any batch size or world size here
EPOCHS = 3


class Marked(Dataset[tuple[int, int, bool, float, float]]):
    """Samples that say what their index brought, and the randomness that it led to."""

    def __getitem__(self, index: int) -> tuple[int, int, bool, float, float]:
        assert isinstance(index, SampleIndex)
        rng = sample_rng(5, index.epoch, index)
        noise = float(torch.rand((), generator=rng.torch, dtype=torch.float64))
        return int(index), index.epoch, index.padding, noise, rng.random.random()


def buckets(size: int = SIZE) -> BucketBatchSampler:
    lengths = [(index * 37) % 50 + 1 for index in range(size)]
    return BucketBatchSampler(size, lengths, batch_size=4, num_buckets=5, seed=3)


@pytest.mark.parametrize(
    ("kind", "workers", "persistent", "prefetch"),
    [
        ("random", 0, False, None),
        ("random", 1, False, 2),
        ("random", 2, True, 4),
        ("random", 3, True, 1),
        ("random", 3, False, 3),
        ("torch", 0, False, None),
        ("torch", 2, True, 2),
        ("sequential", 2, False, 1),
        ("subset", 2, True, 2),
    ],
)
def test_every_epoch_comes_in_the_samplers_order(
    kind: str, workers: int, persistent: bool, prefetch: int | None
) -> None:
    samplers: dict[str, Callable[[], IndexSampler]] = {
        "random": lambda: RandomSampler(SIZE, seed=1),
        "torch": lambda: RandomSampler(SIZE, seed=1, shuffle="torch"),
        "sequential": lambda: SequentialSampler(SIZE),
        "subset": lambda: SubsetSampler(SIZE, range(0, SIZE, 2), seed=2),
    }
    sampler, lone = samplers[kind](), samplers[kind]()
    loader = DataLoader(
        Indices(SIZE),
        batch_size=8,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=persistent,
        prefetch_factor=prefetch,
    )
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        lone.set_epoch(epoch)
        batches = [batch.tolist() for batch in loader]
        expected = lone.indices(0, len(lone)).tolist()
        assert list(chain(*batches)) == expected
        assert [len(batch) for batch in batches[:-1]] == [8] * (len(loader) - 1)
        assert sorted(expected) == list(range(0, SIZE, 2) if kind == "subset" else range(SIZE))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_batch_sampler_decides_the_batches(workers: int, sharded: bool) -> None:
    sampler, lone = buckets(), buckets()
    given = Shard(sampler, 0, 1) if sharded else sampler
    loader = DataLoader(Indices(SIZE), batch_sampler=given, num_workers=workers, persistent_workers=workers > 0)
    assert len(loader) == len(lone)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        lone.set_epoch(epoch)
        batches = [batch.tolist() for batch in loader]
        assert batches == lone.batches(0, len(lone))
        assert sorted(chain(*batches)) == list(range(SIZE))


def test_the_torch_order_is_the_one_of_distributed_sampler() -> None:
    for rank in range(4):
        peer: DistributedSampler[int] = DistributedSampler(Indices(SIZE), num_replicas=4, rank=rank, seed=9)
        ours = Shard(RandomSampler(SIZE, seed=9, shuffle="torch"), rank, 4)
        for epoch in range(EPOCHS):
            peer.set_epoch(epoch)
            ours.set_epoch(epoch)
            drawn = [
                [batch.tolist() for batch in DataLoader(Indices(SIZE), batch_size=8, sampler=sampler)]
                for sampler in (peer, ours)
            ]
            assert drawn[0] == drawn[1]


def consume(
    state: dict[str, object] | None, steps: int, kind: str, rank: int, world_size: int, workers: int
) -> dict[str, object]:
    """Draw so many batches from where a state stands, across epochs; only what is drawn here counts as consumed."""
    shard: Shard[int] | Shard[list[int]]
    if kind == "buckets":
        shard, size = Shard(buckets(), rank, world_size), 1
        loader = DataLoader(Indices(SIZE), batch_sampler=shard, num_workers=workers)
    else:
        shard, size = Shard(RandomSampler(SIZE, seed=4), rank, world_size), 8
        loader = DataLoader(Indices(SIZE), batch_size=8, sampler=shard, num_workers=workers)
    if state is not None:
        shard.load_state_dict(state)
    seen: list[list[int]] = []
    for epoch in count(shard.epoch if shard.remaining else shard.epoch + 1):
        shard.set_epoch(epoch)
        for batch in islice(loader, steps - len(seen)):
            seen.append(batch.tolist())
            shard.advance(size)
        if len(seen) == steps:
            break
    return {"seen": seen, "state": shard.state_dict()}


def consume_as_rank(_directory: Path, state: dict[str, object] | None, steps: int, kind: str, workers: int) -> object:
    return consume(state, steps, kind, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), workers)


@pytest.mark.parametrize(("kind", "world_size"), [("random", 2), ("buckets", 2), ("random", 1)])
def test_a_new_process_goes_on_with_the_very_next_sample(
    kind: str, world_size: int, tmp_path: Path, starter: Starter
) -> None:
    whole = [consume(None, 40, kind, rank, world_size, 0) for rank in range(world_size)]
    state: dict[str, object] | None = None
    seen: list[list[object]] = [[] for _ in range(world_size)]
    for number, (steps, workers) in enumerate([(5, 2), (17, 0), (18, 3)]):
        states = []
        answers = starter.launch(consume_as_rank, tmp_path / str(number), world_size, state, steps, kind, workers)
        for rank, answer in enumerate(answers):
            assert isinstance(answer, dict)
            seen[rank] += answer["seen"]
            assert number == 0 or answer["state"] != state
            states.append(answer["state"])
        state = states[-1]
        assert states == [state] * world_size
        assert len(json.dumps(state)) < 1024
    assert seen == [one["seen"] for one in whole]
    assert [state] * world_size == [one["state"] for one in whole]


@pytest.mark.parametrize("worlds", [(1, 3), (4, 2), (2, 5)])
def test_another_number_of_ranks_draws_each_remaining_sample_once(worlds: tuple[int, int]) -> None:
    def step(shards: list[Shard[int]], count: int) -> list[int]:
        loaders = [DataLoader(Indices(SIZE), batch_size=4, sampler=shard, num_workers=0) for shard in shards]
        drawn: list[int] = []
        for batches in islice(zip(*loaders, strict=False), count):
            drawn += chain(*(batch.tolist() for batch in batches))
            for shard in shards:
                shard.advance(4)
        return drawn

    before = [Shard(RandomSampler(SIZE, seed=8), rank, worlds[0]) for rank in range(worlds[0])]
    drawn = step(before, 3)
    assert len({json.dumps(shard.state_dict()) for shard in before}) == 1
    after = [Shard(RandomSampler(SIZE, seed=8), rank, worlds[1], padding="none") for rank in range(worlds[1])]
    for shard in after:
        shard.load_state_dict(before[0].state_dict())
    rest = [index for shard in after for batch in DataLoader(Indices(SIZE), sampler=shard) for index in batch.tolist()]
    assert sorted(drawn + rest) == list(range(SIZE))
    assert len(drawn) == 12 * worlds[0]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_marked_index_brings_epoch_and_padding_to_the_dataset(workers: int) -> None:
    samples: dict[tuple[int, int], list[tuple[bool, float, float]]] = {}
    for rank in range(4):
        shard = Shard(RandomSampler(SIZE, seed=1), rank, 4, marked=True)
        loader = DataLoader(
            Marked(), batch_size=8, sampler=shard, num_workers=workers, persistent_workers=workers > 0, collate_fn=list
        )
        for epoch in range(2):
            shard.set_epoch(epoch)
            for index, told, padding, noise, other in chain(*loader):
                assert told == epoch
                samples.setdefault((epoch, index), []).append((padding, noise, other))
    for epoch in range(2):
        # 104 samples on four ranks, one of which repeats the epoch's first sample.
        drawn = {index: values for (number, index), values in samples.items() if number == epoch}
        assert sorted(drawn) == list(range(SIZE))
        padded = [index for index, values in drawn.items() if len(values) > 1]
        lone = RandomSampler(SIZE, seed=1)
        lone.set_epoch(epoch)
        assert padded == lone.indices(0, 1).tolist()
        for values in drawn.values():
            assert [padding for padding, *_ in values] == [False, True][: len(values)]
            assert len({rest for _, *numbers in values for rest in [tuple(numbers)]}) == 1
    expected = float(torch.rand((), generator=sample_rng(5, 1, 7).torch, dtype=torch.float64))
    assert samples[1, 7][0][1:] == (expected, sample_rng(5, 1, 7).random.random())
    assert len({noise for values in samples.values() for _, noise, _ in values}) == 2 * SIZE

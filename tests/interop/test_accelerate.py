"""Samplers in loaders that accelerate prepared."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from tests.indices import Indices
from tests.processes import Starter
from treenail.adapters.sampling import BucketBatchSampler, EpochSampler, IndexBatchSampler, RandomSampler, Shard

# What accelerate and the first optimizer would import in each.
IMPORTED_IN_NEW_PROCESSES = ("torchdata.stateful_dataloader", "torch._dynamo")
EPOCHS = 3
Batches = list[tuple[int, list[int]]]


def buckets(size: int) -> BucketBatchSampler:
    return BucketBatchSampler(size, [index % 13 for index in range(size)], batch_size=8, num_buckets=4, seed=5)


def train(
    directory: Path, size: int, kind: str, workers: int, save_at: list[tuple[int, int]], resume: str | None
) -> Batches:
    """Train all epochs, or what is left of them; return the epoch and samples of each batch."""
    accelerator = Accelerator(cpu=True)
    sampler: EpochSampler[int] | EpochSampler[list[int]]
    shard: Shard[int] | Shard[list[int]]
    if kind == "indices":
        indices = sampler = RandomSampler(size, seed=5)
        loader = DataLoader(Indices(size), batch_size=8, sampler=indices, num_workers=workers)
        shard, consumed = Shard(indices), 8
    else:
        batches: IndexBatchSampler
        batches = sampler = buckets(size)
        loader = DataLoader(Indices(size), batch_sampler=batches, num_workers=workers)
        shard, consumed = Shard(batches), 1
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(sampler)
    if resume is not None:
        accelerator.load_state(str(directory.parent / resume))
    seen: Batches = []
    first = sampler.epoch if shard.remaining else sampler.epoch + 1
    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        loader.set_epoch(epoch)
        for batch in loader:
            seen.append((epoch, batch.tolist()))
            loss = model(batch.float().unsqueeze(1)).mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            shard.advance(consumed)
            if (epoch, len([one for one, _ in seen if one == epoch])) in save_at:
                accelerator.save_state(str(directory.parent / f"{epoch}-{len(seen)}"))
    return seen


def runs(
    starter: Starter,
    tmp_path: Path,
    world_size: int,
    size: int,
    kind: str,
    workers: int,
    save_at: list[tuple[int, int]],
    resume: str,
) -> tuple[list[Batches], list[Batches]]:
    whole = starter.launch(train, tmp_path / "whole", world_size, size, kind, workers, save_at, None)
    later = starter.launch(train, tmp_path / "later", world_size, size, kind, 2 - workers, [], resume)
    return parsed(whole), parsed(later)


def parsed(answers: list[object]) -> list[Batches]:
    """Return what ranks answered, with JSON's lists as tuples again."""
    return [[(epoch, list(batch)) for epoch, batch in rank] for rank in answers]  # type: ignore[attr-defined]  # JSON


@pytest.mark.parametrize(("epoch", "step"), [(1, 5), (1, 13)])
def test_a_run_resumes_with_the_very_next_batch_in_any_epoch(
    epoch: int, step: int, tmp_path: Path, starter: Starter
) -> None:
    workers = 2 * (step == 5)
    number = 13 * epoch + step
    (whole,), (later,) = runs(starter, tmp_path, 1, 103, "indices", workers, [(epoch, step)], f"{epoch}-{number}")
    sampler = RandomSampler(103, seed=5)
    for current in range(EPOCHS):
        sampler.set_epoch(current)
        drawn = [batch for one, batch in whole if one == current]
        assert list(chain(*drawn)) == sampler.indices(0, 103).tolist()
    assert later == whole[number:]


def test_a_batch_sampler_keeps_its_batches_and_resumes(tmp_path: Path, starter: Starter) -> None:
    length = len(buckets(103))
    (whole,), (later,) = runs(starter, tmp_path, 1, 103, "buckets", 2, [(1, 5)], f"1-{length + 5}")
    sampler = buckets(103)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        assert [batch for one, batch in whole if one == epoch] == sampler.batches(0, length)
    assert later == whole[length + 5 :]


def test_two_processes_take_turns_and_resume(tmp_path: Path, starter: Starter) -> None:
    whole, later = runs(starter, tmp_path, 2, 96, "indices", 1, [(1, 2)], "1-8")
    sampler = RandomSampler(96, seed=5)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        ranks = [[batch for one, batch in rank if one == epoch] for rank in whole]
        assert len(ranks[0]) == 6
        turns = chain(*zip(*ranks, strict=True))
        assert list(chain(*turns)) == sampler.indices(0, 96).tolist()
    assert later == [rank[8:] for rank in whole]


@pytest.mark.parametrize("kind", ["indices", "buckets"])
def test_two_processes_pad_an_uneven_epoch_and_miss_nothing(kind: str, tmp_path: Path, starter: Starter) -> None:
    length = 7 if kind == "indices" else -(-len(buckets(103)) // 2)
    whole, later = runs(starter, tmp_path, 2, 103, kind, 1, [(1, 2)], f"1-{length + 2}")
    orders = []
    for epoch in range(EPOCHS):
        ranks = [[batch for one, batch in rank if one == epoch] for rank in whole]
        assert [len(rank) for rank in ranks] == [length, length]
        count = Counter(chain(*chain(*ranks)))
        assert set(count) == set(range(103))
        assert max(count.values()) <= 2
        assert count.total() <= 103 + 9  # accelerate fills up with samples or a batch of the beginning
        orders.append([batch for pair in zip(*ranks, strict=True) for batch in pair])
    assert len({str(order) for order in orders}) == EPOCHS
    # The same batches, but for those that accelerate fills up: with what its iterator gave first, here after the resume.
    for rank, rest in zip(whole, later, strict=True):
        assert rest[: length - 3] == rank[length + 2 : 2 * length - 1]
        assert rest[length - 2 : -1] == rank[2 * length : -1]
    resumed = {index for rank in later for epoch, batch in rank if epoch == 1 for index in batch}
    before = {index for rank in whole for _, batch in rank[length : length + 2] for index in batch}
    assert resumed | before == set(range(103))

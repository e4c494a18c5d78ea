"""`treenail.adapters.data.Loader` over shards and batch samplers."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.indices import Indices
from tests.processes import Starter
from treenail.adapters.data import Loader
from treenail.adapters.sampling import BucketBatchSampler, RandomSampler, Shard

SIZE = 103


class Noisy:
    """Samples of which half is drawn from torch's global generator."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack((torch.tensor(float(index)), torch.rand(())))


def loader_of(kind: str, rank: int = 0, world_size: int = 1, workers: int = 0) -> Loader:
    if kind == "buckets":
        batches = BucketBatchSampler(SIZE, [index % 13 for index in range(SIZE)], 4, num_buckets=5, seed=7)
        return Loader(Indices(SIZE), Shard(batches, rank, world_size), batch_size=None, num_workers=workers)
    indices = Shard(RandomSampler(SIZE, seed=7), rank, world_size)
    return Loader(Indices(SIZE), indices, batch_size=4, num_workers=workers)


def drawn(batches: object) -> list[list[int]]:
    assert hasattr(batches, "__iter__")
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("kind", ["indices", "buckets"])
def test_len_and_consumed_follow_advance_and_a_state_goes_on(kind: str, world_size: int, workers: int) -> None:
    for rank in range(world_size):
        lone = loader_of(kind, rank, world_size)
        epochs = []
        for epoch in range(3):
            lone.set_epoch(epoch)
            epochs.append(drawn(lone))

        loader = loader_of(kind, rank, world_size, workers)
        assert [len(loader)] * 3 == [len(batches) for batches in epochs]
        seen = []
        loader.set_epoch(1)
        for number, batch in enumerate(islice(loader, 4)):
            assert isinstance(batch, Tensor)
            assert loader.consumed == number
            seen.append(batch.tolist())
            loader.advance()
        assert loader.consumed == 4
        state = loader.state_dict()
        loader.close()

        later = loader_of(kind, rank, world_size, workers)
        later.load_state_dict(json.loads(json.dumps(state)))
        assert later.consumed == 4
        assert len(later) == len(loader)
        for batch in islice(later, 2):  # a second interruption in the same epoch
            assert isinstance(batch, Tensor)
            seen.append(batch.tolist())
            later.advance()
        state = later.state_dict()
        later.close()

        last = loader_of(kind, rank, world_size, workers)
        last.load_state_dict(state)
        last.set_epoch(1)
        for batch in last:
            assert isinstance(batch, Tensor)
            seen.append(batch.tolist())
            last.advance()
        assert seen == epochs[1]
        assert last.consumed == len(last)
        assert drawn(last) == []
        last.set_epoch(2)
        assert last.consumed == 0
        assert drawn(last) == epochs[2]
        last.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["indices", "buckets"])
@pytest.mark.parametrize("worlds", [(1, 2), (4, 3), (2, 1)])
def test_another_world_size_goes_on_with_what_all_ranks_left(kind: str, worlds: tuple[int, int], workers: int) -> None:
    before = [loader_of(kind, rank, worlds[0], workers) for rank in range(worlds[0])]
    seen: list[int] = []
    for batches in islice(zip(*before, strict=True), 3):
        seen += chain(*drawn(batches))
        for loader in before:
            loader.advance()
    state, *others = [loader.state_dict() for loader in before]
    assert all(other == state for other in others)
    after = [loader_of(kind, rank, worlds[1], workers) for rank in range(worlds[1])]
    rest: list[list[list[int]]] = []
    for loader in after:
        loader.load_state_dict(state)
        rest.append(drawn(loader))
    # The ranks together go on in the order of the epoch; its first items make their shares equal.
    shares = rest if kind == "buckets" else [list(chain(*batches)) for batches in rest]
    turns = list(chain(*zip(*shares, strict=True)))
    whole = drawn(loader_of(kind)) if kind == "buckets" else list(chain(*drawn(loader_of(kind))))
    behind = (3 if kind == "buckets" else 12) * worlds[0]
    left = len(whole) - behind
    assert turns == whole[behind:] + whole[: -left % worlds[1]]
    assert sorted(seen) == sorted(chain(*whole[:behind]) if kind == "buckets" else whole[:behind])
    for loader in (*before, *after):
        loader.close()


def sharded(_directory: Path, rank: int, workers: int, skip: int) -> list[list[list[float]]]:
    loader = Loader(Noisy(), Shard(RandomSampler(SIZE, seed=1), rank, 2), batch_size=8, num_workers=workers, seed=3)
    loader.set_epoch(2)
    for _ in range(skip):
        loader.advance()
    return [batch.tolist() for batch in loader if isinstance(batch, Tensor)]


@pytest.mark.parametrize("rank", [0, 1])
def test_random_samples_are_the_same_in_any_process_after_any_resume(
    rank: int, tmp_path: Path, starter: Starter
) -> None:
    whole = sharded(tmp_path, rank, 0, 0)
    assert len(whole) == 7
    for workers, skip in ((2, 0), (1, 3), (0, 5)):
        (part,) = starter.launch(sharded, tmp_path / f"{workers}", 1, rank, workers, skip)
        assert part == whole[skip:]
    assert len({noise for batch in whole for _, noise in batch}) == 52

"""Randomness of samples and of loader workers."""

from __future__ import annotations

import random
from itertools import islice, product

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from treenail.adapters.data import Loader
from treenail.adapters.sampling import RandomSampler, SampleIndex, Shard
from treenail.adapters.seeding import SampleRng, WorkerInit, sample_rng, seed_process, seed_sample, shielded_rng

SIZE = 40


def draw(rng: SampleRng) -> tuple[float, float, float]:
    return (
        float(torch.rand((), generator=rng.torch, dtype=torch.float64)),
        rng.random.random(),
        float(rng.numpy.random()),
    )


class Augmented(Dataset[list[float]]):
    """Samples with an augmentation by `sample_rng`."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> list[float]:
        assert isinstance(index, SampleIndex)
        return [int(index), index.epoch, *draw(sample_rng(3, index.epoch, index))]


class Global(Dataset[list[float]]):
    """Samples with an augmentation by the libraries' global generators."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> list[float]:
        return [int(index), float(torch.rand(())), random.random(), float(np.random.random())]


def augmented(workers: int, batch_size: int, rank: int = 0, world_size: int = 1) -> dict[tuple[int, int], list[float]]:
    shard = Shard(RandomSampler(SIZE, seed=1), rank, world_size, marked=True)
    loader = DataLoader(
        Augmented(),
        batch_size=batch_size,
        sampler=shard,
        num_workers=workers,
        collate_fn=list,
        persistent_workers=workers > 0,
    )
    samples: dict[tuple[int, int], list[float]] = {}
    for epoch in range(2):
        shard.set_epoch(epoch)
        for batch in loader:
            samples |= {(int(index), int(told)): values for index, told, *values in batch}
    return samples


def test_a_sample_is_the_same_whatever_loads_it() -> None:
    alone = augmented(0, 4)
    assert len(alone) == 2 * SIZE
    assert augmented(1, 4) == alone
    assert augmented(3, 7) == alone
    assert augmented(2, 4, 0, 2) | augmented(0, 8, 1, 2) == alone


def test_every_seed_epoch_and_index_has_numbers_of_its_own() -> None:
    places = list(product(range(8), repeat=3))
    numbers = [draw(sample_rng(*place)) for place in places]
    for library in zip(*numbers, strict=True):
        assert len(set(library)) == len(places)
    # No sum or product of the three decides, and what they decide is not correlated along any of them.
    assert draw(sample_rng(1, 2, 3)) == numbers[places.index((1, 2, 3))]
    cube = torch.tensor(numbers).view(8, 8, 8, 3) - 0.5
    for axis in range(3):
        neighbours = cube.narrow(axis, 0, 7) * cube.narrow(axis, 1, 7)
        assert neighbours.mean((0, 1, 2)).abs().max() < 5 * (1 / 12) / (7 * 64) ** 0.5
    assert cube.mean((0, 1, 2)).abs().max() < 5 * (1 / 12) ** 0.5 / 512**0.5


def test_generators_go_on_and_leave_the_global_ones_alone() -> None:
    seed_process(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # numpy's legacy tuple
    rng = sample_rng(1, 2, 3)
    first, second = draw(rng), draw(rng)
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert draw(sample_rng(1, 2, SampleIndex(3, epoch=7, padding=True))) == first
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]  # as above


def test_seed_sample_seeds_every_library_and_a_marked_index_is_the_same_sample() -> None:
    with shielded_rng():
        drawn = []
        for seed, epoch, index in ((1, 2, 3), (1, 2, SampleIndex(3, epoch=2)), (2, 1, 3), (1, 3, 2), (3, 2, 1)):
            seed_sample(seed, epoch, index)
            drawn.append(Global()[0])
    assert drawn[0] == drawn[1]
    for library in zip(*(values[1:] for values in drawn[1:]), strict=True):
        assert len(set(library)) == 4


def test_libraries_draw_different_numbers_from_one_seed() -> None:
    def bytes_of_torch(generator: torch.Generator) -> list[int]:
        return torch.randint(256, (64,), generator=generator).tolist()

    def equal(one: list[int], other: list[int]) -> int:
        return sum(a == b for a, b in zip(one, other, strict=True))

    with shielded_rng():
        for index in range(20):
            seed_sample(1, 2, index)
            drawn = bytes_of_torch(torch.default_generator), np.random.randint(0, 256, 64).tolist()
            rng = sample_rng(1, 2, index)
            private = bytes_of_torch(rng.torch), rng.numpy.integers(0, 256, 64).tolist()
            python = [random.getrandbits(32) % 256 for _ in range(64)]
            assert equal(*drawn) < 6
            assert equal(*private) < 6
            assert equal(drawn[0], python) < 6


@pytest.mark.parametrize("workers", [0, 2])
def test_marks_do_not_change_what_a_loader_loads(workers: int) -> None:
    def load(*, marked: bool) -> list[object]:
        shard = Shard(RandomSampler(SIZE, seed=1), 0, 1, marked=marked)
        loader = Loader(Global(), shard, batch_size=8, num_workers=workers, seed=4, collate=list)
        batches = list(loader)
        loader.close()
        return batches

    assert load(marked=True) == load(marked=False)


def test_worker_init_seeds_every_library_by_seed_rank_and_worker() -> None:
    def load(init: WorkerInit) -> list[list[float]]:
        loader = DataLoader(
            Global(), batch_size=1, num_workers=2, worker_init_fn=init, collate_fn=lambda batch: batch[0]
        )
        return [values[1:] for values in islice(loader, 4)]

    torch.manual_seed(0)
    first = load(WorkerInit(5))
    torch.manual_seed(1)  # torch's own worker seeds come from here
    assert load(WorkerInit(5)) == first
    others = [load(WorkerInit(6)), load(WorkerInit(5, rank=1))]
    for library in zip(*(values for part in (first, *others) for values in part), strict=True):
        assert len(set(library)) == 12


def test_worker_init_is_what_seed_process_makes_of_its_hash() -> None:
    with shielded_rng():
        WorkerInit(5, rank=2)(1)
        drawn = Global()[0]
        WorkerInit(5, rank=1)(2)
        assert Global()[0] != drawn
        WorkerInit(5, rank=2)(1)
        assert Global()[0] == drawn

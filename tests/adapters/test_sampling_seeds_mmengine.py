"""The samplers of mmengine: their indices, their arguments, and none of their faults."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from tests.indices import Indices, through_json
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DistributedSampler

from treenail.adapters.sampling import SampleIndex
from treenail.adapters.sampling.compat import DefaultSampler, InfiniteSampler, ResumableDistributedSampler
from treenail.contracts import SamplerShard
from treenail.kernel import StateError

SIZES = (0, 1, 2, 3, 5, 10, 11, 23, 97)


def test_a_default_sampler_draws_the_indices_of_mmengine() -> None:
    for size in SIZES:
        for seed, epoch in ((0, 0), (3, 2)):
            sampler = DefaultSampler(range(size), seed=seed)
            sampler.set_epoch(epoch)
            generator = torch.Generator().manual_seed(seed + epoch)
            assert list(sampler) == torch.randperm(size, generator=generator).tolist()
    assert list(DefaultSampler(range(4), False)) == [0, 1, 2, 3]
    assert sorted(DefaultSampler(range(50), seed=1, order="hashed")) == list(range(50))


def test_a_sampler_without_a_seed_takes_it_from_the_state() -> None:
    torch.manual_seed(1)
    first = DefaultSampler(range(50))
    first.advance(20)
    torch.manual_seed(2)
    second = DefaultSampler(range(50))
    assert first.seed != second.seed
    second.load_state_dict(through_json(first.state_dict()))
    assert second.seed == first.seed
    assert list(second) == list(first)
    second.set_epoch(1)
    first.set_epoch(1)
    assert list(second) == list(first)
    assert second.state_dict() == first.state_dict()


def test_a_seed_that_was_given_is_kept_and_a_bad_state_changes_nothing() -> None:
    with pytest.raises(StateError, match="the state's seed is 3, this sampler's is 4"):
        DefaultSampler(range(5), seed=4).load_state_dict(DefaultSampler(range(5), seed=3).state_dict())
    sampler = DefaultSampler(range(5))
    seed, drawn = sampler.seed, list(sampler)
    for wrong in (
        {**sampler.state_dict(), "seed": "3"},
        {**sampler.state_dict(), "seed": None},
        DefaultSampler(range(6), seed=3).state_dict(),
        {**DefaultSampler(range(5), seed=3).state_dict(), "cursor": 6},
    ):
        with pytest.raises(StateError):
            sampler.load_state_dict(wrong)
        assert (sampler.seed, list(sampler)) == (seed, drawn)


def test_without_shuffling_no_seed_matters() -> None:
    sampler = DefaultSampler(range(5), shuffle=False)
    sampler.advance(2)
    resumed = DefaultSampler(range(5), shuffle=False, seed=9)
    resumed.load_state_dict(through_json(sampler.state_dict()))
    assert list(resumed) == [2, 3, 4]


def mmengines_stream(size: int, seed: int, shuffle: bool) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(size, generator=generator).tolist() if shuffle else range(size)


@pytest.mark.parametrize("size", [1, 2, 7, 300])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_infinite_sampler_draws_the_indices_of_mmengine_and_resumes_anywhere(size: int, shuffle: bool) -> None:
    expected = list(islice(mmengines_stream(size, 4, shuffle), 3000))
    sampler = InfiniteSampler(range(size), shuffle, 4)
    assert list(islice(sampler, 3000)) == expected
    for consumed in (0, 1, size, 2 * size + 1, 1000):
        stopped = InfiniteSampler(range(size), shuffle, 4)
        stopped.set_epoch(3)  # has no effect
        stopped.advance(consumed)
        resumed = InfiniteSampler(range(size), shuffle, 4 if shuffle else 5)
        resumed.load_state_dict(through_json(stopped.state_dict()))
        assert list(islice(resumed, 500)) == expected[consumed : consumed + 500]
        assert stopped.cursor == consumed
    assert sampler.indices(5, 9).tolist() == expected[5:14]
    assert sampler.size == size


def test_an_infinite_sampler_may_go_back_and_its_passes_cover_the_dataset() -> None:
    for order in ("torch", "hashed"):
        sampler = InfiniteSampler(range(10), True, 1, order="torch" if order == "torch" else "hashed", marked=True)
        drawn = list(islice(sampler, 100))
        assert sampler.indices(0, 20).tolist() == drawn[:20]
        passes = [drawn[start : start + 10] for start in range(0, 100, 10)]
        assert all(sorted(each) == list(range(10)) for each in passes)
        assert len({tuple(each) for each in passes}) == 10
        assert [index.epoch for index in drawn if isinstance(index, SampleIndex)] == [each // 10 for each in range(100)]


def test_an_infinite_sampler_without_a_seed_takes_it_from_the_state() -> None:
    first, second = InfiniteSampler(range(9)), InfiniteSampler(range(9))
    first.advance(13)
    second.load_state_dict(through_json(first.state_dict()))
    assert list(islice(second, 30)) == list(islice(first, 30))


def test_there_is_nothing_endless_in_an_empty_dataset() -> None:
    with pytest.raises(ValueError, match="the dataset is empty"):
        InfiniteSampler(range(0))
    with pytest.raises(ValueError, match="order is 'numpy'"):
        InfiniteSampler(range(3), order="numpy")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="shuffle is 'numpy'"):
        DefaultSampler(range(3), order="numpy")  # type: ignore[arg-type]  # as above


def draw_in_a_group(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.manual_seed(rank)
    samplers: dict[str, SamplerShard[int]] = {
        "rounded": DefaultSampler(range(11)),
        "uneven": DefaultSampler(range(11), round_up=False),
        "given": DefaultSampler(range(11), seed=6),
        "endless": InfiniteSampler(range(11), seed=6),
        "folds": ResumableDistributedSampler(range(11), seed=6),
    }
    drawn = {name: [int(index) for index in islice(sampler, 40)] for name, sampler in samplers.items()}
    states = {name: sampler.state_dict() for name, sampler in samplers.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps([drawn, states]))
    torch.distributed.destroy_process_group()


def test_ranks_of_a_process_group_draw_one_order_though_no_seed_was_given(tmp_path: Path) -> None:
    spawn(draw_in_a_group, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]  # torch's
    (first, states), (second, others) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert states == others
    order = torch.randperm(11, generator=torch.Generator().manual_seed(states["rounded"]["seed"])).tolist()
    assert [first["rounded"], second["rounded"]] == [order[::2], [*order[1::2], order[0]]]
    assert sorted(first["uneven"] + second["uneven"]) == list(range(11))
    assert [len(first["uneven"]), len(second["uneven"])] == [6, 5]
    assert [first["given"], second["given"]] == [
        list(DistributedSampler(Indices(11), 2, rank, seed=6)) for rank in range(2)
    ]
    assert first["folds"] == first["given"]
    stream = list(islice(mmengines_stream(11, 6, True), 80))
    assert [first["endless"], second["endless"]] == [stream[::2], stream[1::2]]

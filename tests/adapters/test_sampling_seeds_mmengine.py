"""The samplers of mmengine: their indices, their arguments, and none of their faults."""

import copy
import json
import pickle
from collections.abc import Iterator, Sized
from itertools import islice
from math import ceil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indices import Indices, through_json
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader, DistributedSampler

from treenail.adapters.data import Loader
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.sampling import SampleIndex, Shuffle
from treenail.adapters.sampling.compat import DefaultSampler, InfiniteSampler, ResumableDistributedSampler
from treenail.contracts import SamplerShard, StepOutput, TrainWork
from treenail.kernel import Engine, Hook, StateError

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


def go_on(sampler: InfiniteSampler, count: int) -> None:
    """Record that so many items were consumed, over as many passes as that takes."""
    while count:
        step = min(count, sampler.remaining)
        sampler.advance(step)
        count -= step


@pytest.mark.parametrize("size", [1, 2, 7, 300])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_infinite_sampler_draws_the_indices_of_mmengine_and_resumes_anywhere(size: int, shuffle: bool) -> None:
    expected = list(islice(mmengines_stream(size, 4, shuffle), 3000))
    sampler = InfiniteSampler(range(size), shuffle, 4)
    assert list(islice(sampler, 3000)) == expected
    for consumed in (0, 1, size, 2 * size + 1, 1000):
        stopped = InfiniteSampler(range(size), shuffle, 4)
        stopped.set_epoch(3)  # has no effect
        go_on(stopped, consumed)
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
    go_on(first, 13)
    second.load_state_dict(through_json(first.state_dict()))
    assert list(islice(second, 30)) == list(islice(first, 30))


@given(
    size=st.integers(1, 40),
    order=st.sampled_from(get_args(Shuffle)),
    shuffle=st.booleans(),
    stages=st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(0, 9), max_size=4)), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_a_stream_goes_on_in_worlds_of_any_size(
    size: int, order: Shuffle, shuffle: bool, stages: list[tuple[int, list[int]]]
) -> None:
    def rank_of(world: int, rank: int) -> InfiniteSampler:
        return InfiniteSampler(size, shuffle, 4, num_replicas=world, rank=rank, order=order, marked=True)

    stream = list(islice(rank_of(1, 0), 1200))
    state = rank_of(1, 0).state_dict()
    consumed = 0
    for world, counts in stages:
        ranks = [rank_of(world, rank) for rank in range(world)]
        for sampler in ranks:
            sampler.load_state_dict(through_json(state))
        for count in counts:
            [left] = {sampler.remaining for sampler in ranks}
            # A pass ends with the step in which its last item comes, and what that step has beyond it is the next one's.
            assert left == -(-(size - consumed % size) // world)
            assert {len(sampler) for sampler in ranks} == {-(-size // world)}
            for rank, sampler in enumerate(ranks):
                drawn = [index for index in islice(sampler, 9) if isinstance(index, SampleIndex)]
                assert drawn == stream[consumed + rank : consumed + rank + 9 * world : world]
                places = range(consumed + rank, consumed + rank + 9 * world, world)
                assert [(index.epoch, index.position) for index in drawn] == [
                    (place // size, place) for place in places
                ]
                sampler.advance(count)
            consumed += count * world
            assert {sampler.cursor for sampler in ranks} == {consumed}
        state = ranks[-1].state_dict()


def test_the_length_of_an_infinite_sampler_is_that_of_a_pass() -> None:
    shares = [InfiniteSampler(10, seed=1, num_replicas=4, rank=rank) for rank in range(4)]
    assert [len(sampler) for sampler in shares] == [sampler.remaining for sampler in shares] == [3] * 4
    assert len(DataLoader(Indices(10), 4, sampler=InfiniteSampler(10, seed=1))) == 3
    for count in (-1, 1.0, True):
        with pytest.raises(ValueError, match=r"count is|cannot advance"):
            shares[0].advance(count)  # type: ignore[arg-type]  # the point of the test


class Stopping(Hook):
    """Asks for a stop after a step."""

    def __init__(self, last: int) -> None:
        self.last = last

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step + 1 == self.last:
            engine.request_stop("enough")


class Samples:
    """Samples whose input is their index."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([float(index)]), torch.tensor([0.0])


@pytest.mark.parametrize("size", [12, 11, 9])
@pytest.mark.parametrize("world", [1, 2])
def test_passes_are_the_epochs_of_a_training_that_stops_and_goes_on_within_one(size: int, world: int) -> None:
    seen: list[list[int]] = []

    class Recorded(SupervisedStep):
        def __call__(self, batch: object) -> StepOutput:
            assert isinstance(batch, list)  # of inputs and targets
            seen.append([int(number) for number in batch[0].flatten()])
            return super().__call__(batch)

    def train(stop: int, state: dict[str, object] | None = None) -> tuple[Engine, Loader]:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        loader = Loader(Samples(size), InfiniteSampler(size, seed=4, num_replicas=world, rank=world - 1), batch_size=4)
        loop = EpochLoop(TrainWork(Recorded(model, nn.MSELoss(), optimizer), loader), max_epochs=3)
        engine = Engine({"batches": loader, "loop": loop})
        engine.attach(Stopping(stop), "stopping")
        if state is not None:
            engine.load_state_dict(state)
        engine.run(loop)
        return engine, loader

    whole, loader = train(10**6)
    stream = list(islice(mmengines_stream(size, 4, True), 3 * size + 2 * world))
    mine = stream[world - 1 :: world][: sum(map(len, seen))]
    assert [index for batch in seen for index in batch] == mine  # none is lost between passes, and none comes twice
    assert whole.epoch == 3
    assert len(loader) == ceil(ceil(size / world) / 4)
    assert loader.state_dict()["cursor"] == len(mine) * world
    assert 3 * size <= len(mine) * world < 3 * size + world
    expected, total = seen, len(seen)
    for stop in range(1, total):
        seen = []
        state = train(stop)[0].state_dict()
        before = seen
        seen = []
        train(10**6, state)
        assert before + seen == expected, f"stopped after {stop} of {total} steps"


class Grown:
    """A dataset that only knows its length; a module's class, so that it can be pickled."""

    def __len__(self) -> int:
        return 11


def test_samplers_can_be_pickled_and_copied() -> None:
    datasets: list[Sized] = [range(11), Grown()]
    for dataset in datasets:
        for sampler in (
            DefaultSampler(dataset),
            DefaultSampler(dataset, shuffle=False, seed=3),
            InfiniteSampler(dataset),
            InfiniteSampler(dataset, seed=3, order="hashed"),
        ):
            list(islice(sampler, 30))  # orders at hand travel, too
            sampler.advance(4)
            for copied in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
                assert list(islice(copied, 40)) == list(islice(sampler, 40))
                assert copied.state_dict() == sampler.state_dict()


@pytest.mark.parametrize("kind", [DefaultSampler, InfiniteSampler])
def test_a_seed_from_a_state_leaves_all_else(kind: type[DefaultSampler | InfiniteSampler]) -> None:
    first = kind(11, num_replicas=3, rank=2, seed=5, marked=True)
    first.advance(2)
    second = kind(11, num_replicas=3, rank=2, marked=True)
    second.load_state_dict(through_json(first.state_dict()))
    assert list(islice(second, 20)) == list(islice(first, 20))
    assert (second.rank, second.world_size, second.padding, second.seed) == (2, 3, first.padding, 5)
    assert second.state_dict() == first.state_dict()


def test_numbers_of_numpy_are_numbers_and_others_are_refused() -> None:
    for kind in (DefaultSampler, InfiniteSampler):
        sampler = kind(np.int64(11), True, np.int64(3))  # type: ignore[arg-type]  # the point of the test
        plain = kind(11, True, 3)
        sampler.advance(np.int32(2))  # type: ignore[arg-type]  # as above
        plain.advance(2)
        assert through_json(sampler.state_dict()) == plain.state_dict()
        assert list(islice(sampler, 20)) == list(islice(plain, 20))
        for wrong in (1.0, True, "1"):
            with pytest.raises(ValueError, match="seed is"):
                kind(11, False, wrong)  # type: ignore[arg-type]  # as above


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

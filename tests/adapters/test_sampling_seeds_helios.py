"""The samplers of helios: their indices, their arguments, and none of their faults."""

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from tests.indices import Indices, through_json
from torch.utils.data import DataLoader, DistributedSampler

from treenail.adapters.data import Loader
from treenail.adapters.registries import RegisteredTwiceError, UnregisteredError
from treenail.adapters.sampling import SampleIndex
from treenail.adapters.sampling.compat import (
    SAMPLER_REGISTRY,
    ResumableDistributedSampler,
    ResumableRandomSampler,
    ResumableSampler,
    ResumableSamplerType,
    ResumableSequentialSampler,
    create_sampler,
)
from treenail.kernel import BuildError, Sampler, SpecError, StateError


class Backwards(ResumableSampler):
    """A sampler of a user, by the contract of the base."""

    def __init__(self, size: int, batch_size: int) -> None:
        super().__init__(batch_size)
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size - 1 - self.start_iter * self.batch_size, -1, -1))


Resumable = ResumableRandomSampler | ResumableSequentialSampler | ResumableDistributedSampler
SIZES = (0, 1, 2, 3, 5, 10, 11, 23, 97)
RANKS = [(rank, world) for world in (1, 2, 4) for rank in range(world)]


def torchs(size: int, rank: int, world: int, epoch: int, shuffle: bool, seed: int, drop_last: bool) -> list[int]:
    sampler: DistributedSampler[int] = DistributedSampler(Indices(size), world, rank, shuffle, seed, drop_last)
    sampler.set_epoch(epoch)
    return list(sampler)


# helios: order


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_indices_are_those_of_torchs_distributed_sampler(size: int, drop_last: bool, shuffle: bool) -> None:
    for rank, world in RANKS:
        for seed, epoch in ((0, 0), (0, 1), (7, 0), (7, 3)):
            ours = ResumableDistributedSampler(range(size), world, rank, shuffle, seed, drop_last)
            ours.set_epoch(epoch)
            if drop_last and size < world:  # torch's own fails here, or not, by what the negative length happens to do
                assert list(ours) == []
                continue
            expected = torchs(size, rank, world, epoch, shuffle, seed, drop_last)
            assert list(ours) == expected
            assert len(ours) == ours.num_samples == len(expected)
            assert ours.total_size == len(expected) * world


def test_the_vectors_of_helios() -> None:
    def drawn(size: int, drop_last: bool) -> list[list[int]]:
        return [list(ResumableDistributedSampler(range(size), 4, rank, False, 0, drop_last)) for rank in range(4)]

    assert drawn(10, False) == [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    assert drawn(10, True) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert drawn(1, False) == [[0]] * 4
    assert drawn(3, True) == [[]] * 4


def test_a_random_sampler_draws_torchs_permutation_and_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state(), random.getstate()
    for seed, epoch in ((0, 0), (3, 0), (3, 2)):
        sampler = ResumableRandomSampler(range(100), seed)
        sampler.set_epoch(epoch)
        generator = torch.Generator().manual_seed(epoch + seed)
        assert list(sampler) == torch.randperm(100, generator=generator).tolist()
        assert len(sampler) == 100
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert list(ResumableSequentialSampler(range(7))) == list(range(7))


def test_hashed_orders_do_not_add_seed_and_epoch() -> None:
    def drawn(seed: int, epoch: int, order: str) -> list[int]:
        sampler = ResumableRandomSampler(100, seed, order="hashed" if order == "hashed" else "torch")
        sampler.set_epoch(epoch)
        return list(sampler)

    assert drawn(0, 1, "torch") == drawn(1, 0, "torch")
    assert drawn(0, 1, "hashed") != drawn(1, 0, "hashed")
    assert sorted(drawn(0, 1, "hashed")) == list(range(100))


# helios: resuming


def samplers(batch_size: int, drop_last: bool, rank: int, world: int) -> list[Callable[[], Resumable]]:
    data = range(23)
    distributed: list[Callable[[], Resumable]] = [
        lambda: ResumableDistributedSampler(data, world, rank, seed=5, drop_last=drop_last, batch_size=batch_size),
        lambda: ResumableDistributedSampler(data, world, rank, False, drop_last=drop_last, batch_size=batch_size),
    ]
    if world > 1:
        return distributed
    return [
        *distributed,
        lambda: ResumableRandomSampler(data, 5, batch_size),
        lambda: ResumableSequentialSampler(data, batch_size),
    ]


def epoch_of(sampler: Resumable, batch_size: int, *, drop_last: bool = False, workers: int = 0) -> list[list[int]]:
    loader = DataLoader(
        Indices(23),
        batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
    )
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("how", ["start_iter", "state"])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_run_stopped_after_any_batch_goes_on_as_if_it_had_not_been(
    how: str, drop_last: bool, batch_size: int
) -> None:
    for rank, world in ((0, 1), (1, 2), (0, 4), (3, 4)):
        for make in samplers(batch_size, drop_last, rank, world):
            whole = make()
            expected = []
            for epoch in range(5):
                whole.set_epoch(epoch)
                expected.append(epoch_of(whole, batch_size))
            for epoch in range(3):
                for done in range(len(expected[epoch]) + 1):
                    sampler = make()
                    if how == "start_iter":
                        sampler.set_epoch(epoch)
                        sampler.start_iter = done
                    else:
                        stopped = make()
                        stopped.set_epoch(epoch)
                        for batch in expected[epoch][:done]:
                            stopped.advance(len(batch))
                        sampler.load_state_dict(through_json(stopped.state_dict()))
                    assert (sampler.epoch, sampler.start_iter) == (epoch, done)
                    for later in range(epoch, epoch + 3):
                        sampler.set_epoch(later)
                        rest = expected[later][done if later == epoch else 0 :]
                        assert epoch_of(sampler, batch_size) == rest, f"epoch {epoch}, batch {done}, then {later}"


@pytest.mark.parametrize("drop_last", [False, True])
def test_workers_that_load_ahead_change_nothing(drop_last: bool) -> None:
    sampler = ResumableDistributedSampler(range(23), 2, 1, seed=5, drop_last=drop_last, batch_size=3)
    sampler.set_epoch(1)
    whole = epoch_of(sampler, 3, drop_last=drop_last)
    for done in (0, 1, 3, len(whole)):
        sampler.start_iter = done
        assert epoch_of(sampler, 3, drop_last=drop_last, workers=2) == whole[done:]


def test_a_loader_moves_a_sampler_of_helios_as_its_own() -> None:
    for make in samplers(3, False, 1, 2) + samplers(3, False, 0, 1):
        whole, half = (Loader(range(23), make(), batch_size=3) for _ in range(2))
        expected = [batch.tolist() for batch in whole]  # type: ignore[attr-defined]  # default_collate makes tensors
        for _ in range(2):
            half.advance()
        resumed = Loader(range(23), make(), batch_size=3)
        resumed.load_state_dict(through_json(half.state_dict()))
        assert (resumed.consumed, len(resumed)) == (2, len(expected))
        assert [batch.tolist() for batch in resumed] == expected[2:]  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize("order", ["torch", "hashed"])
def test_another_world_size_sees_the_rest_of_the_epoch_once(order: str) -> None:
    def world_of(size: int, state: dict[str, object]) -> list[ResumableDistributedSampler]:
        world = [
            ResumableDistributedSampler(
                range(101),
                size,
                rank,
                seed=2,
                batch_size=2,
                order="torch" if order == "torch" else "hashed",
                marked=True,
            )
            for rank in range(size)
        ]
        for sampler in world:
            if state:
                sampler.load_state_dict(through_json(state))
        return world

    state: dict[str, object] = {}
    seen: list[int] = []
    for size, batches in ((4, 3), (2, 5), (3, 2), (1, 7), (5, 100)):
        world = world_of(size, state)
        for sampler in world:
            drawn = list(islice(sampler, 2 * batches))
            assert all(isinstance(index, SampleIndex) for index in drawn)
            seen += [index for index in drawn if isinstance(index, SampleIndex) and not index.padding]
            sampler.advance(min(2 * batches, len(drawn)))
        state = world[0].state_dict()
        assert all(sampler.state_dict() == state for sampler in world)
    assert sorted(seen) == list(range(101))


def test_blocks_of_a_rank_are_what_it_draws() -> None:
    for rank in range(3):
        sampler = ResumableDistributedSampler(range(11), 3, rank, seed=1)
        drawn = list(sampler)
        for done in range(4):
            assert sampler.indices(done * 3, 2).tolist() == drawn[done : done + 2]
        for cursor, count in ((-1, 1), (12, 0), (0, -1)):
            with pytest.raises(ValueError, match="nothing to draw"):
                sampler.indices(cursor, count)


# helios: each fault of the original


def test_fault_helios_start_iter_is_cleared_by_the_next_epoch() -> None:
    sampler = ResumableRandomSampler(range(10), batch_size=2)
    sampler.start_iter = 3
    sampler.set_epoch(0)  # the same epoch goes on
    assert (sampler.start_iter, len(list(sampler))) == (3, 4)
    sampler.set_epoch(1)
    assert (sampler.start_iter, len(list(sampler))) == (0, 10)


@pytest.mark.parametrize("start_first", [False, True])
@pytest.mark.parametrize("epoch", [0, 3])
def test_start_iter_may_be_assigned_before_the_epoch_or_after(epoch: int, start_first: bool) -> None:
    for make in samplers(3, False, 1, 2) + samplers(3, False, 0, 1) + [lambda: Backwards(23, 3)]:
        whole = make()
        whole.set_epoch(epoch)
        expected = list(whole)
        sampler = make()
        if start_first:  # as the Trainer of helios resumes
            sampler.start_iter = 2
            sampler.set_epoch(epoch)
        else:
            sampler.set_epoch(epoch)
            sampler.start_iter = 2
        assert (sampler.epoch, sampler.start_iter) == (epoch, 2)
        assert list(sampler) == expected[6:]
        sampler.set_epoch(epoch + 1)
        assert (sampler.start_iter, len(list(sampler))) == (0, len(expected))


@pytest.mark.parametrize("settle", ["set_epoch", "draw", "advance", "load"])
def test_an_assigned_start_iter_is_good_for_one_epoch_only(settle: str) -> None:
    for make in samplers(3, False, 1, 2) + samplers(3, False, 0, 1):
        sampler = make()
        sampler.start_iter = 1
        if settle == "set_epoch":
            sampler.set_epoch(2)
        elif settle == "draw":
            next(iter(sampler))
        elif settle == "advance":
            sampler.advance(3)
        else:
            sampler.load_state_dict(through_json(sampler.state_dict()))
        assert sampler.start_iter == (2 if settle == "advance" else 1)
        sampler.set_epoch(3)
        assert (sampler.start_iter, sampler.remaining) == (0, len(sampler))


def test_an_assignment_that_is_refused_leaves_the_one_before() -> None:
    sampler = ResumableRandomSampler(range(10), batch_size=2)
    sampler.start_iter = 3
    for refuses in (sampler.set_epoch, sampler.advance):
        with pytest.raises(ValueError, match="-1"):
            refuses(-1)
    sampler.set_epoch(5)
    assert (sampler.epoch, sampler.start_iter) == (5, 3)


def test_samplers_can_be_pickled_and_copied() -> None:
    for make in samplers(3, False, 1, 2) + samplers(3, False, 0, 1):
        sampler = make()
        sampler.set_epoch(1)
        sampler.start_iter = 2
        for copied in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
            assert list(copied) == list(sampler)
            assert copied.state_dict() == sampler.state_dict()


def test_numbers_of_numpy_are_numbers_and_others_are_refused() -> None:
    number: Any = np.int64  # Any: numpy's are no int for mypy, which is the point of the test
    sampler = ResumableDistributedSampler(number(23), number(2), number(1), seed=number(5), batch_size=number(3))
    plain = ResumableDistributedSampler(23, 2, 1, seed=5, batch_size=3)
    sampler.set_epoch(number(2))
    sampler.start_iter = number(1)
    plain.set_epoch(2)
    plain.start_iter = 1
    assert through_json(sampler.state_dict()) == plain.state_dict()
    assert list(sampler) == list(plain)
    own = Backwards(7, number(2))
    own.set_epoch(number(1))
    own.start_iter = number(2)
    assert through_json(own.state_dict()) == {"epoch": 1, "start_iter": 2, "batch_size": 2}
    wrong: Any  # Any: as above
    for wrong in (1.0, True, "1", None):
        with pytest.raises(ValueError, match="seed is"):
            ResumableRandomSampler(5, wrong)
        for each in (plain, own):
            with pytest.raises(ValueError, match="epoch is"):
                each.set_epoch(wrong)
    for shuffle in (False, True):
        with pytest.raises(ValueError, match="seed is"):
            ResumableDistributedSampler(5, shuffle=shuffle, seed=wrong)


def test_fault_helios_a_batch_that_does_not_exist_is_refused() -> None:
    sampler = ResumableDistributedSampler(range(10), 4, 2, batch_size=2)  # 3 samples a rank
    for wrong in (-1, 3, True, 1.0, None, "1"):
        with pytest.raises(ValueError, match="start_iter is"):
            sampler.start_iter = wrong  # type: ignore[assignment]  # the point of the test
    assert sampler.start_iter == 0
    sampler.start_iter = 2
    assert list(sampler) == []


def test_fault_helios_the_resume_offset_counts_batches_not_samples() -> None:
    sampler = ResumableDistributedSampler(range(12), 1, 0, shuffle=False, batch_size=4)
    sampler.start_iter = 1
    assert list(sampler) == list(range(4, 12))


def test_fault_helios_a_checkpoint_on_the_last_batch_leaves_no_epoch_empty() -> None:
    sampler = ResumableRandomSampler(range(12), batch_size=2)
    sampler.start_iter = 6
    resumed = ResumableRandomSampler(range(12), batch_size=2)
    resumed.load_state_dict(through_json(sampler.state_dict()))
    lengths = []
    for epoch in range(4):
        resumed.set_epoch(epoch)
        lengths.append(len(list(resumed)))
    assert lengths == [0, 12, 12, 12]


def test_fault_helios_a_resumed_epoch_has_the_order_of_its_own_epoch() -> None:
    stopped = ResumableRandomSampler(
        range(12), batch_size=2
    )  # after 4 batches of epoch 0, as the trainer of helios saves
    stopped.advance(8)
    resumed = ResumableRandomSampler(range(12), batch_size=2)
    resumed.load_state_dict(through_json(stopped.state_dict()))
    resumed.set_epoch(0)
    assert list(resumed) == [3, 1, 11, 6]


def test_fault_helios_the_length_left_is_known_after_a_resume() -> None:
    sampler = ResumableRandomSampler(range(12), batch_size=2)
    sampler.start_iter = 4
    assert (len(sampler), sampler.remaining, len(list(sampler))) == (12, 4, 4)


def test_fault_helios_a_batch_size_is_checked_where_it_is_given() -> None:
    for wrong in (0, -2, True, 1.5):
        with pytest.raises(ValueError, match="batch_size is"):
            ResumableRandomSampler(range(3), 0, wrong)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(ValueError, match="batch_size is"):
            ResumableSampler(wrong)  # type: ignore[arg-type]  # as above


def test_fault_helios_no_process_group_is_needed() -> None:
    sampler = ResumableDistributedSampler(range(3), shuffle=False)
    assert (sampler.rank, sampler.num_replicas, list(sampler)) == (0, 1, [0, 1, 2])
    with pytest.raises(ValueError, match="rank is 4, must be 0 … 3"):
        ResumableDistributedSampler(range(3), 4, 4)


def test_fault_helios_a_state_of_another_seed_or_dataset_is_refused() -> None:
    state = ResumableRandomSampler(range(10), 3).state_dict()
    for other in (
        ResumableRandomSampler(range(10), 4),
        ResumableRandomSampler(range(11), 3),
        ResumableRandomSampler(range(10), 3, order="hashed"),
        ResumableSequentialSampler(range(10)),
    ):
        with pytest.raises(StateError, match="resume with the dataset, sampler and seed"):
            other.load_state_dict(state)


# helios: the registry


def test_the_registry_has_the_three_samplers_and_makes_them_by_name() -> None:
    assert list(SAMPLER_REGISTRY.keys()) == [
        "ResumableRandomSampler",
        "ResumableSequentialSampler",
        "ResumableDistributedSampler",
    ]
    sampler = create_sampler("ResumableRandomSampler", range(5), seed=3, batch_size=2)
    assert isinstance(sampler, ResumableSamplerType)
    assert isinstance(sampler, ResumableSampler)
    assert isinstance(sampler, torch.utils.data.Sampler)
    assert isinstance(sampler, Sampler)
    assert isinstance(create_sampler("ResumableSequentialSampler", range(5)), ResumableSampler)
    assert isinstance(Backwards(5, 2), ResumableSamplerType)
    assert not isinstance(sampler, Backwards | DistributedSampler)
    assert list(sampler) == list(ResumableRandomSampler(range(5), 3))
    distributed = create_sampler("ResumableDistributedSampler", range(5), 2, 1)
    assert isinstance(distributed, ResumableSamplerType)
    assert isinstance(distributed, DistributedSampler)
    with pytest.raises(UnregisteredError, match="unknown sampler 'ResumableRandom'"):
        create_sampler("ResumableRandom")
    with pytest.raises(SpecError, match="sed"):
        create_sampler("ResumableRandomSampler", range(5), sed=3)
    with pytest.raises(BuildError, match="batch_size is 0"):
        create_sampler("ResumableRandomSampler", range(5), batch_size=0)
    with pytest.raises(RegisteredTwiceError):
        SAMPLER_REGISTRY.register(ResumableRandomSampler)


def test_a_sampler_of_ones_own_resumes_through_the_base() -> None:
    sampler = Backwards(7, 2)
    sampler.set_epoch(4)
    sampler.start_iter = 2
    resumed = Backwards(7, 2)
    resumed.load_state_dict(through_json(sampler.state_dict()))
    loader = DataLoader(Indices(7), 2, sampler=resumed)
    assert [batch.tolist() for batch in loader] == [[2, 1], [0]]
    resumed.set_epoch(5)
    assert list(resumed) == [6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(StateError, match="batches of 2 samples, here they have 3"):
        Backwards(7, 3).load_state_dict(sampler.state_dict())
    with pytest.raises(StateError, match="no position epoch -1"):
        resumed.load_state_dict({"epoch": -1, "start_iter": 0, "batch_size": 2})
    with pytest.raises(ValueError, match="epoch is -1"):
        resumed.set_epoch(-1)

"""The samplers of SCEPTER that draw indices: their arguments, and none of their faults."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indices import Indices, through_json
from torch.utils.data import DataLoader, DistributedSampler

from treenail.adapters import ADAPTERS
from treenail.adapters.data import Loader
from treenail.adapters.sampling import (
    BucketBatchSampler,
    RandomSampler,
    SampleIndex,
    SequentialSampler,
    Shard,
    Shuffle,
)
from treenail.adapters.sampling.compat import (
    DefaultSampler,
    EvalDistributedSampler,
    InfiniteSampler,
    MixtureOfSamplers,
    MultiFoldDistributedSampler,
    ResumableDistributedSampler,
)
from treenail.contracts import BatchSampler, SamplerShard
from treenail.kernel import Adapter, Sampler, StateError

# Several folds


def folds(size: int, count: int, world: int, **options: bool | int) -> list[list[int]]:
    return [list(MultiFoldDistributedSampler(range(size), count, world, rank, **options)) for rank in range(world)]  # type: ignore[arg-type]  # shuffle is a bool, seed an int


def test_the_vectors_of_several_folds() -> None:
    two = folds(10, 2, 4, shuffle=False)
    assert (two[0], two[3]) == ([0, 4, 8, 2, 6], [3, 7, 1, 5, 9])
    assert folds(10, 1, 4, shuffle=False)[2] == [2, 6, 0]
    assert folds(10, 0, 4) == folds(10, 0, 4, shuffle=False) == [[]] * 4


def test_one_fold_is_torchs_distributed_sampler() -> None:
    for size in (1, 3, 10, 23):
        for world in (1, 2, 4):
            for rank in range(world):
                theirs: DistributedSampler[int] = DistributedSampler(Indices(size), world, rank, seed=3)
                ours = MultiFoldDistributedSampler(range(size), 1, world, rank, seed=3)
                for epoch in range(3):
                    theirs.set_epoch(epoch)
                    ours.set_epoch(epoch)
                    assert list(ours) == list(theirs)


def test_fault_scepter_no_fold_is_the_fold_of_another_epoch() -> None:
    seen = set()
    for epoch in range(4):
        sampler = MultiFoldDistributedSampler(range(50), 3, seed=1)
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        for fold in range(3):
            part = drawn[fold * 50 : fold * 50 + 50]
            assert sorted(part) == list(range(50))
            seen.add(tuple(part))
    assert len(seen) == 12


def test_fault_scepter_experiments_have_seeds() -> None:
    assert folds(50, 2, 1, seed=1) != folds(50, 2, 1, seed=2)


def test_fault_scepter_more_padding_than_samples() -> None:
    assert folds(1, 1, 4) == [[0]] * 4
    assert [len(share) for share in folds(2, 1, 5)] == [1] * 5
    assert folds(2, 2, 5, drop_last=True) == [[]] * 5
    assert folds(0, 2, 3) == [[]] * 3


def test_fault_scepter_a_rank_is_checked_and_no_process_group_needed() -> None:
    with pytest.raises(ValueError, match="rank is 2, must be 0 … 1"):
        MultiFoldDistributedSampler(range(5), 1, 2, 2)
    with pytest.raises(ValueError, match="num_folds is -1"):
        MultiFoldDistributedSampler(range(5), -1)
    assert list(MultiFoldDistributedSampler(range(3), 2, shuffle=False)) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("shuffle", [False, True])
def test_folds_resume_at_every_position_and_in_another_world(shuffle: bool) -> None:
    whole = MultiFoldDistributedSampler(range(7), 3, shuffle=shuffle, seed=2)
    expected = list(whole)
    for consumed in range(22):
        stopped = MultiFoldDistributedSampler(range(7), 3, shuffle=shuffle, seed=2)
        stopped.advance(consumed)
        ranks = [MultiFoldDistributedSampler(range(7), 3, 3, rank, shuffle, seed=2, marked=True) for rank in range(3)]
        for sampler in ranks:
            sampler.load_state_dict(through_json(stopped.state_dict()))
        rest: list[int] = []
        for step in zip(*ranks, strict=True):
            rest += [index for index in step if isinstance(index, SampleIndex) and not index.padding]
        assert rest == expected[consumed:]
    with pytest.raises(StateError):
        MultiFoldDistributedSampler(range(7), 2, shuffle=shuffle, seed=2).load_state_dict(whole.state_dict())


# Evaluation


def blocks(size: int, world: int, padding: bool = False) -> list[list[int]]:
    return [list(EvalDistributedSampler(range(size), world, rank, padding)) for rank in range(world)]


def test_the_vectors_of_evaluation() -> None:
    assert blocks(10, 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert blocks(10, 4, True)[3] == [9, 0, 1]
    assert [len(block) for block in blocks(5, 4)] == [2, 2, 1, 0]
    assert blocks(1, 3, True) == [[0]] * 3
    assert blocks(0, 2, True) == blocks(0, 2) == [[], []]


@pytest.mark.parametrize("size", [0, 1, 2, 5, 10, 23])
@pytest.mark.parametrize("world", [1, 2, 4, 7])
def test_fault_scepter_evaluation_is_split_and_lengths_are_exact(size: int, world: int) -> None:
    ranks = [EvalDistributedSampler(range(size), world, rank) for rank in range(world)]
    drawn = [list(sampler) for sampler in ranks]
    assert [index for block in drawn for index in block] == list(range(size))
    assert [len(sampler) for sampler in ranks] == [sampler.remaining for sampler in ranks] == [len(d) for d in drawn]
    padded = [EvalDistributedSampler(range(size), world, rank, True) for rank in range(world)]
    assert {len(sampler) for sampler in padded} == {-(-size // world)}
    kept = [index for sampler in padded for index in sampler if isinstance(index, SampleIndex) and not index.padding]
    assert kept == list(range(size))
    assert all(sampler.indices(0, 100).tolist() == list(sampler) for sampler in padded + ranks)


def test_all_epochs_of_an_evaluation_are_the_same() -> None:
    sampler = EvalDistributedSampler(range(10), 4, 1)
    assert isinstance(sampler, Sampler)
    assert isinstance(sampler, SamplerShard)
    sampler.advance(2)
    sampler.set_epoch(0)
    assert list(sampler) == [5]
    sampler.set_epoch(7)
    assert (list(sampler), sampler.cursor) == ([3, 4, 5], 0)
    with pytest.raises(ValueError, match="epoch is -1"):
        sampler.set_epoch(-1)


@given(
    size=st.integers(0, 60),
    padding=st.booleans(),
    worlds=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=12),
)
@settings(max_examples=80, deadline=None)
def test_an_evaluation_goes_on_in_other_worlds_and_sees_the_rest_once(
    size: int, padding: bool, worlds: list[tuple[int, int]]
) -> None:
    state: dict[str, object] = {}
    seen: list[int] = []

    def real(indices: Iterator[int]) -> list[int]:
        return [int(index) for index in indices if not (isinstance(index, SampleIndex) and index.padding)]

    for world, count in worlds:
        ranks = [EvalDistributedSampler(range(size), world, rank, padding) for rank in range(world)]
        for sampler in ranks:
            if state:
                sampler.load_state_dict(through_json(state))
        assert sorted(seen + [i for sampler in ranks for i in real(iter(sampler))]) == list(range(size))
        most = max(sampler.remaining for sampler in ranks)
        for sampler in ranks:
            assert len(list(sampler)) == sampler.remaining
            seen += real(islice(iter(sampler), count))
            sampler.advance(min(count, most))
        state = ranks[0].state_dict()
        assert all(sampler.state_dict() == state for sampler in ranks)


def test_what_is_no_state_of_this_evaluation_is_refused() -> None:
    sampler = EvalDistributedSampler(range(10), 4, 0)
    sampler.advance(1)
    good = sampler.state_dict()
    for wrong, message in (
        ({**good, "size": 11}, "the state's size is 11, this sampler's is 10"),
        ({**good, "kind": "random"}, "the state's kind is 'random'"),
        ({**good, "epoch": -1}, "no position epoch -1"),
        ({**good, "stages": [[4, 4]]}, "no position"),
        ({**good, "stages": [[0, 1]]}, "no position"),
        ({**good, "stages": [[4, 1], [2, 4]]}, "no position"),
        ({**good, "stages": [[10**15, 1]]}, "no position"),
        ({**good, "stages": [4, 1]}, "no position"),
        ({**good, "stages": None}, "no position"),
    ):
        with pytest.raises(StateError, match=message):
            sampler.load_state_dict(wrong)
        assert sampler.state_dict() == good
    for count in (-1, -5):
        with pytest.raises(ValueError, match="cannot advance"):
            sampler.advance(count)
    sampler.advance(9)
    with pytest.raises(ValueError, match="0 are left"):
        sampler.advance(1)
    with pytest.raises(ValueError, match="nothing to draw"):
        sampler.indices(4, 1)


def test_a_world_that_changes_too_often_is_refused_and_the_state_stays_small() -> None:
    def after(state: dict[str, object], change: int) -> dict[str, object]:
        sampler = EvalDistributedSampler(range(10**6), 1000 + change % 2, 0)
        sampler.load_state_dict(state)
        sampler.advance(3)
        return through_json(sampler.state_dict())

    state = EvalDistributedSampler(range(10**6), 2, 0).state_dict()
    for change in range(24):
        state = after(state, change)
    with pytest.raises(
        StateError, match="has changed 24 times within this epoch, 23 are possible; go on with 1001 ranks"
    ):
        after(state, 24)
    after(state, 25)  # that is 1001 ranks


def test_an_evaluation_goes_through_loaders() -> None:
    for workers in (0, 2):
        loader = DataLoader(Indices(10), 2, sampler=EvalDistributedSampler(range(10), 4, 1), num_workers=workers)
        assert [batch.tolist() for batch in loader] == [[3, 4], [5]]
    ours = Loader(range(10), EvalDistributedSampler(range(10), 4, 3, True), batch_size=2)
    ours.advance()
    assert (ours.consumed, len(ours)) == (1, 2)
    assert [batch.tolist() for batch in ours] == [[1]]  # type: ignore[attr-defined]  # default_collate makes tensors


# Mixtures


def test_a_mixture_has_the_exact_proportions_and_every_sample_of_a_sampler() -> None:
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(300, 1), SequentialSampler(100)], [0.75, 0.25])
    # Marked by what they are: the first sampler's indices are shuffled, and equal indices of the second come in order.
    drawn = list(mixture)
    assert len(drawn) == len(mixture) == 400
    assert Counter(drawn) == Counter([*range(300), *range(100)])


def test_ranks_choose_differently_unless_the_order_is_kept() -> None:
    def drawn(rank: int, keep_order: bool, seed: int = 8888) -> list[bool]:
        sources = [SequentialSampler(100), SequentialSampler(100)]
        mixture: MixtureOfSamplers[int] = MixtureOfSamplers(sources, [0.5, 0.5], rank, seed, keep_order=keep_order)
        counts: Counter[int] = Counter()
        kinds = []
        for index in mixture:
            counts[index] += 1
            kinds.append(counts[index] == 2)
        return kinds

    assert drawn(0, False) == drawn(0, False)
    assert drawn(0, False) != drawn(1, False)
    assert drawn(0, True) == drawn(1, True)
    assert drawn(0, True) != drawn(0, True, 1)
    # Ranks and seeds are not added.
    assert drawn(1, False, 0) != drawn(0, False, 1)


def mixtures() -> list[MixtureOfSamplers[int]]:
    return [
        MixtureOfSamplers([RandomSampler(30, 1), RandomSampler(7, 2)], [0.5, 0.5]),
        MixtureOfSamplers([RandomSampler(30, 1), RandomSampler(7, 2)], [0.5, 0.5], exhausted="stop"),
        MixtureOfSamplers([RandomSampler(30, 1), RandomSampler(7, 2)], [0.5, 0.5], exhausted="renormalize"),
        MixtureOfSamplers([RandomSampler(30, 1), RandomSampler(7, 2)], [0.9, 0.1], num_samples=55),
        MixtureOfSamplers([InfiniteSampler(30, seed=1), RandomSampler(7, 2)], [0.5, 0.5]),
        MixtureOfSamplers([DefaultSampler(30, seed=1), ResumableDistributedSampler(9, 3, 1)], [0.5, 0.5], rank=1),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_mixture_resumes_at_every_position_of_every_epoch(number: int) -> None:
    whole = mixtures()[number]
    expected = []
    for epoch in range(4):
        whole.set_epoch(epoch)
        expected.append(list(whole))
    assert len({tuple(epoch) for epoch in expected}) == 4
    for epoch in (0, 2):
        for consumed in range(len(whole) + 1):
            stopped = mixtures()[number]
            stopped.set_epoch(epoch)
            stopped.advance(consumed)
            resumed = mixtures()[number]
            resumed.load_state_dict(through_json(stopped.state_dict()))
            assert list(resumed) == expected[epoch][consumed:]
            resumed.set_epoch(epoch + 1)
            assert list(resumed) == expected[epoch + 1]


def test_what_happens_when_a_sampler_is_exhausted() -> None:
    lengths = [len(mixture) for mixture in mixtures()]
    assert lengths == [37, 14, 37, 55, 7, 33]
    renormalized = list(mixtures()[2])
    assert Counter(renormalized) == Counter([*range(30), *range(7)])


def test_a_mixture_goes_on_in_its_samplers_from_epoch_to_epoch() -> None:
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(10, 3), RandomSampler(30, 3)], [0.5, 0.5])
    counts: Counter[int] = Counter()
    for epoch in range(3):
        mixture.set_epoch(epoch)
        counts.update(mixture)
    # 60 draws of each: 6 passes over the first, 2 over the second.
    assert {counts[index] for index in range(10)} == {8}
    assert {counts[index] for index in range(10, 30)} == {2}


def test_a_mixture_of_what_ranks_draw_has_the_share_of_each_rank() -> None:
    drawn: list[int] = []
    for rank in range(3):
        shares = [ResumableDistributedSampler(9, 3, rank), ResumableDistributedSampler(30, 3, rank, seed=1)]
        mixture: MixtureOfSamplers[int] = MixtureOfSamplers(shares, [0.5, 0.5], rank, exhausted="renormalize")
        drawn += mixture
    assert Counter(drawn) == Counter([*range(9), *range(30)])


def test_each_pass_of_a_mixture_is_another_epoch_of_its_sampler() -> None:
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(10, 3)], [1.0], num_samples=30)
    drawn, source = list(mixture), RandomSampler(10, 3)
    for number in range(3):
        source.set_epoch(number)
        assert drawn[number * 10 : number * 10 + 10] == list(source)


def test_a_mixture_of_endless_samplers_has_no_end_and_resumes_at_once() -> None:
    for options in ("restart", "stop"):
        sources = [InfiniteSampler(range(size), seed=1, order="hashed") for size in (10, 20)]
        mixture: MixtureOfSamplers[int] = MixtureOfSamplers(
            sources, [0.25, 0.75], exhausted="stop" if options == "stop" else "restart"
        )
        drawn = list(islice(mixture, 5000))
        mixture.set_epoch(4)  # has no effect
        mixture.advance(4321)
        assert list(islice(mixture, 679)) == drawn[4321:]
        mixture.advance(10**15)
        assert len(list(islice(mixture, 10))) == 10
    assert 0.24 < sum(index < 10 for index in drawn) / 5000 - 0.75 / 2 < 0.26


def test_a_mixture_takes_batch_samplers_and_is_sharded_with_one_order() -> None:
    def mixture() -> MixtureOfSamplers[list[int]]:
        sources = [BucketBatchSampler(40, [1] * 40, size, num_buckets=1) for size in (4, 8)]
        assert all(isinstance(source, BatchSampler) for source in sources)
        return MixtureOfSamplers(sources, [0.6, 0.4], keep_order=True)

    whole = list(mixture())
    assert {len(batch) for batch in whole} == {4, 8}
    shares = [list(Shard(mixture(), rank, 3, padding="none")) for rank in range(3)]
    assert [shares[number % 3][number // 3] for number in range(len(whole))] == whole


def test_fault_scepter_what_is_wrong_is_said_by_the_constructor() -> None:
    two = [RandomSampler(5), RandomSampler(6)]
    for probabilities, message in (
        ([0.5, 0.4], "sums to 0.9, must be 1"),
        ([1.0], "2 samplers and 1 probabilities"),
        ([1.5, -0.5], r"probabilities\[0\] is 1.5, must be 0 … 1"),
        ([float("nan"), 0.5], r"probabilities\[0\] is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            MixtureOfSamplers(two, probabilities)
    with pytest.raises(ValueError, match="0 samplers"):
        MixtureOfSamplers([], [])
    with pytest.raises(ValueError, match="but 0 samples"):
        MixtureOfSamplers([RandomSampler(0), RandomSampler(6)], [0.5, 0.5])
    with pytest.raises(ValueError, match="one of them has none"):
        MixtureOfSamplers[int]([InfiniteSampler(4), RandomSampler(6)], [0.5, 0.5], exhausted="renormalize")
    with pytest.raises(ValueError, match="exhausted is 'never'"):
        MixtureOfSamplers(two, [0.5, 0.5], exhausted="never")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="rank is -1"):
        MixtureOfSamplers(two, [0.5, 0.5], -1)


def test_fault_scepter_a_mixture_can_be_listed_again_and_moves_none_of_its_samplers() -> None:
    source = RandomSampler(5)
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([source, RandomSampler(6)], [0.5, 0.5])
    assert list(mixture) == list(mixture)
    assert (source.epoch, source.cursor) == (0, 0)
    source.advance(3)  # nor does it matter to the mixture
    assert list(mixture) == list(MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.5, 0.5]))


def test_long_samplers_have_an_end() -> None:
    long = [RandomSampler(2**45, 1), SequentialSampler(2**45)]
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers(long, [0.5, 0.5])
    assert len(mixture) == 2**46
    mixture.set_epoch(1)
    assert mixture.epoch == 1
    once: MixtureOfSamplers[int] = MixtureOfSamplers(long, [0.5, 0.5], exhausted="renormalize")
    assert len(once) == 2**46
    short: MixtureOfSamplers[int] = MixtureOfSamplers(
        [MixtureOfSamplers([InfiniteSampler(30, seed=1)], [1.0]), RandomSampler(7)], [0.5, 0.5]
    )
    assert len(short) == 7  # a mixture without an end is a sampler without one


def test_a_share_of_an_endless_sampler_has_no_end_in_any_world() -> None:
    orders: dict[int, Shuffle] = {1: "torch", 3: "torch", 10**6: "hashed"}  # torch's draws whatever all ranks draw
    for world, order in orders.items():
        shares = [InfiniteSampler(30, seed=1, num_replicas=world, rank=world - 1, order=order)]
        mixture: MixtureOfSamplers[int] = MixtureOfSamplers(shares, [1.0])
        assert list(islice(mixture, 200)) == list(islice(shares[0], 200))
        mixture.set_epoch(3)
        assert mixture.epoch == 0


def test_the_padding_of_a_share_is_the_mixtures() -> None:
    def mixture(drop_last: bool, world: int = 3, rank: int = 2) -> MixtureOfSamplers[int]:
        share = ResumableDistributedSampler(10, world, rank, drop_last=drop_last)
        shares: list[Sampler | Shard[int]] = [share, RandomSampler(6)]
        return MixtureOfSamplers(shares, [0.5, 0.5], rank, num_samples=20)

    state = mixture(False).state_dict()
    for other in (mixture(True), mixture(False, 4)):
        with pytest.raises(StateError, match="the state's samplers is"):
            other.load_state_dict(state)
    assert mixture(False, rank=0).state_dict() == state  # all ranks have the same state


def test_where_its_samplers_stand_does_not_matter_to_a_mixture() -> None:
    def mixture(consumed: int) -> MixtureOfSamplers[int]:
        block = EvalDistributedSampler(10, 2, 1)
        if consumed:  # some of it in another world
            block.load_state_dict({**block.identity, "epoch": 0, "stages": [[3, 1]]})
        sources: list[Sampler | Shard[int]] = [block, ResumableDistributedSampler(9, 2, 1), RandomSampler(5)]
        for source in sources if consumed else ():
            source.advance(consumed)
        return MixtureOfSamplers(sources, [0.4, 0.3, 0.3], num_samples=40)

    expected = list(mixture(0))
    assert list(mixture(2)) == expected
    assert {5, 6, 7, 8, 9} <= set(expected)  # the block
    resumed = mixture(2)
    stopped = mixture(0)
    stopped.advance(11)
    resumed.load_state_dict(through_json(stopped.state_dict()))
    assert list(resumed) == expected[11:]
    with pytest.raises(StateError, match="the state's samplers is"):
        MixtureOfSamplers([EvalDistributedSampler(11, 2, 1)], [1.0]).load_state_dict(
            MixtureOfSamplers([EvalDistributedSampler(10, 2, 1)], [1.0]).state_dict()
        )


def test_numbers_of_numpy_are_numbers_and_others_are_refused() -> None:
    number: Any = np.int64(3)  # Any: numpy's are no int for mypy, which is the point of the test
    make: Callable[[Any], object]  # Any: as above
    wrong: Any
    sampler = MultiFoldDistributedSampler(10, number, number, number - 2, seed=number)
    assert through_json(sampler.state_dict()) == MultiFoldDistributedSampler(10, 3, 3, 1, seed=3).state_dict()
    mixture: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(5)], [1.0], number, number, num_samples=number)
    plain: MixtureOfSamplers[int] = MixtureOfSamplers([RandomSampler(5)], [1.0], 3, 3, num_samples=3)
    assert through_json(mixture.state_dict()) == plain.state_dict()
    block = EvalDistributedSampler(number + 7, number, number - 2)
    block.set_epoch(number)
    block.advance(number - 1)
    assert through_json(block.state_dict()) == {"epoch": 3, "kind": "blocks", "size": 10, "stages": [[3, 2]]}
    for wrong in (1.0, True, "1"):
        for make in (
            lambda value: MultiFoldDistributedSampler(10, value),
            lambda value: MultiFoldDistributedSampler(10, seed=value),
            lambda value: MultiFoldDistributedSampler(10, shuffle=False, seed=value),
            lambda value: MixtureOfSamplers([RandomSampler(5)], [1.0], value),
            lambda value: MixtureOfSamplers([RandomSampler(5)], [1.0], seed=value),
            lambda value: MixtureOfSamplers([RandomSampler(5)], [1.0], num_samples=value),
            block.advance,
            block.set_epoch,
            lambda value: block.indices(value, 1),
        ):
            with pytest.raises(ValueError, match="must be a whole number"):
                make(wrong)


def test_configs_name_none_of_the_samplers_that_take_no_dataset() -> None:
    names = {adapter.name for adapter in ADAPTERS if isinstance(adapter, Adapter)}
    assert names.isdisjoint({"MixtureOfSamplers", "MultiLevelBatchSampler"})
    assert {"DefaultSampler", "InfiniteSampler", "EvalDistributedSampler"} <= names


def test_a_state_of_other_samplers_is_refused() -> None:
    state = MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.5, 0.5]).state_dict()
    others: list[MixtureOfSamplers[int]] = [
        MixtureOfSamplers([RandomSampler(5), RandomSampler(7)], [0.5, 0.5]),
        MixtureOfSamplers([RandomSampler(5), RandomSampler(6, 1)], [0.5, 0.5]),
        MixtureOfSamplers([RandomSampler(6), RandomSampler(5)], [0.5, 0.5]),
        MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.4, 0.6]),
        MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.5, 0.5], seed=1),
        MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.5, 0.5], exhausted="stop"),
        MixtureOfSamplers([RandomSampler(5), RandomSampler(6)], [0.5, 0.5], keep_order=True),
    ]
    for other in others:
        with pytest.raises(StateError, match="resume with the dataset, sampler and seed"):
            other.load_state_dict(state)

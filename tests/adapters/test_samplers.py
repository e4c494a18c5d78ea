"""What each sampler promises beyond the laws, by example."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset
from torch.utils.data import RandomSampler as TorchSampler

from treenail.adapters.sampling import (
    AspectRatioBatchSampler,
    BucketBatchSampler,
    ChainSampler,
    ClassBalancedSampler,
    EpochSampler,
    MixtureSampler,
    RandomSampler,
    SequentialSampler,
    Shard,
    SubsetSampler,
    TokenBatchSampler,
    WeightedSampler,
)
from treenail.adapters.sampling.drawing import Drawing
from treenail.kernel import StateError

LENGTHS = [1 + number * 37 % 211 for number in range(1000)]


def epoch_of(sampler: EpochSampler[int], epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


# Repeats and subsets


def test_each_pass_of_an_epoch_has_an_order_of_its_own() -> None:
    sampler = RandomSampler(100, seed=3, repeats=3)
    passes = {tuple(epoch_of(sampler, epoch)[start : start + 100]) for epoch in range(3) for start in (0, 100, 200)}
    assert len(passes) == 9
    assert all(sorted(order) == list(range(100)) for order in passes)


def test_a_subset_is_drawn_once_in_its_order_or_shuffled() -> None:
    chosen = [5, 3, 9, 3]
    assert list(SubsetSampler(10, chosen, shuffle=False)) == chosen
    shuffled = [epoch_of(SubsetSampler(10, chosen, seed=1), epoch) for epoch in range(20)]
    assert all(sorted(order) == [3, 3, 5, 9] for order in shuffled)
    assert len(set(map(tuple, shuffled))) > 3


# Weights


def test_weights_are_proportions() -> None:
    drawn = Counter(WeightedSampler(5, [0, 1, 2, 0, 1], num_samples=40_000, seed=2))
    assert set(drawn) == {1, 2, 4}
    # Four standard deviations of a binomial of 40,000 draws with p = 1/2 and 1/4.
    assert abs(drawn[2] - 20_000) < 400
    assert abs(drawn[1] - 10_000) < 350


def test_without_replacement_each_draw_is_in_proportion_to_what_is_left() -> None:
    sampler = WeightedSampler(5, [0, 1, 2, 0, 1], replacement=False)
    orders = Counter(tuple(epoch_of(sampler, epoch)) for epoch in range(6000))
    expected = {
        (2, 1, 4): 1 / 4,
        (2, 4, 1): 1 / 4,
        (1, 2, 4): 1 / 6,
        (4, 2, 1): 1 / 6,
        (1, 4, 2): 1 / 12,
        (4, 1, 2): 1 / 12,
    }
    assert set(orders) == set(expected)
    statistic = sum((orders[order] - 6000 * share) ** 2 / (6000 * share) for order, share in expected.items())
    assert statistic < 25.7  # chi-square of 5 degrees of freedom exceeds it once in 10,000


def test_the_largest_weight_does_not_lose_the_smallest() -> None:
    drawn = set(WeightedSampler(3, [1e-300, 1e300, 1e-300], num_samples=1000))
    assert drawn == {1}
    assert set(WeightedSampler(3, [0.0, 0.0, 5e-324], num_samples=1000)) == {2}


# Proportions


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    data=st.data(),
    epochs=st.integers(1, 3),
)
def test_a_mixture_holds_its_proportions_exactly(sizes: list[int], data: st.DataObject, epochs: int) -> None:
    weights = data.draw(st.lists(st.integers(1, 20), min_size=len(sizes), max_size=len(sizes)))
    sampler = MixtureSampler(sum(sizes), weights, sizes=sizes, seed=5)
    edges = torch.tensor([0, *sizes]).cumsum(0)
    seen = torch.zeros(sum(sizes), dtype=torch.int64)
    for epoch in range(epochs):
        order = torch.tensor(epoch_of(sampler, epoch))
        counts = torch.bincount(torch.searchsorted(edges[1:], order, right=True), minlength=len(sizes))
        for count, weight in zip(counts.tolist(), weights, strict=True):
            assert abs(count - len(sampler) * weight / sum(weights)) <= 1
        seen += torch.bincount(order, minlength=sum(sizes))
    for start, stop in zip(edges.tolist(), edges[1:].tolist(), strict=False):
        part = seen[start:stop]
        assert part.max() - part.min() <= 1, "a sample of a part was drawn more often than another"


def test_a_mixture_holds_its_proportions_within_an_epoch() -> None:
    order = torch.tensor(list(MixtureSampler(100_000, [0.7, 0.2, 0.1], sizes=[60_000, 30_000, 10_000])))
    for stop in range(2048, 100_000, 2048):
        share = float((order[:stop] < 60_000).double().mean())
        assert abs(share - 0.7) * stop < 100, f"{share:.3f} of the first {stop} are of the part of weight 0.7"


def test_a_mixture_stops_with_its_first_part_or_goes_on_without_it() -> None:
    def counts(order: list[int]) -> list[int]:
        return [sum(low <= index < high for index in order) for low, high in ((0, 600), (600, 900), (900, 1000))]

    stopped = list(MixtureSampler(1000, [0.7, 0.2, 0.1], sizes=[600, 300, 100], exhausted="stop"))
    assert counts(stopped) == [600, 171, 86]
    assert len(set(stopped)) == len(stopped)
    everything = MixtureSampler(1000, [0.7, 0.2, 0.1], sizes=[600, 300, 100], exhausted="renormalize")
    assert sorted(everything) == list(range(1000))
    assert counts(list(everything)[:857]) == [600, 171, 86]
    assert counts(list(everything)[857:]) == [0, 129, 14]


def test_a_mixture_knows_the_parts_of_a_concatenated_dataset() -> None:
    parts = ConcatDataset[tuple[Tensor, ...]]([TensorDataset(torch.zeros(size, 1)) for size in (3, 5)])
    assert list(MixtureSampler(parts, [1, 0], shuffle=False)) == [0, 1, 2]
    assert list(ChainSampler(parts, shuffle=False)) == list(range(8))


def test_parts_in_a_chain_follow_each_other() -> None:
    order = list(ChainSampler(60, [10, 0, 50], seed=2))
    assert sorted(order[:10]) == list(range(10))
    assert sorted(order[10:]) == list(range(10, 60))
    assert order != sorted(order)


def test_classes_are_equally_often_and_so_are_their_samples() -> None:
    labels = [3] * 90 + [-7] * 10
    sampler = ClassBalancedSampler(100, labels)
    drawn = Counter(index for epoch in range(9) for index in epoch_of(sampler, epoch))
    assert sum(drawn[index] for index in range(90)) == sum(drawn[index] for index in range(90, 100)) == 450
    assert {drawn[index] for index in range(90)} == {5}
    assert {drawn[index] for index in range(90, 100)} == {45}


def test_classes_are_balanced_as_far_as_asked() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    shares = [
        sum(index >= 900 for index in ClassBalancedSampler(1000, labels, balance=balance)) for balance in (0, 0.5, 1)
    ]
    assert shares == [100, 250, 500]  # proportional to 100, 10 and 1 against 900, 30 and 1


# Buckets


def test_batches_hold_samples_of_similar_length() -> None:
    batches = list(BucketBatchSampler(1000, LENGTHS, 16, seed=1))
    assert sorted(index for batch in batches for index in batch) == list(range(1000))
    spread = [max(LENGTHS[index] for index in batch) - min(LENGTHS[index] for index in batch) for batch in batches]
    assert max(spread) <= 8  # 211 lengths in 32 buckets
    assert [LENGTHS[batch[0]] for batch in batches] != sorted(LENGTHS[batch[0]] for batch in batches)


def test_batches_between_boundaries_and_without_the_last() -> None:
    kept = list(BucketBatchSampler(1000, LENGTHS, 16, boundaries=[50, 100], drop_last=True))
    assert {len(batch) for batch in kept} == {16}
    for batch in kept:
        assert len({(LENGTHS[index] >= 50) + (LENGTHS[index] >= 100) for index in batch}) == 1
    other = BucketBatchSampler(1000, LENGTHS, 16, boundaries=[50, 100], drop_last=True)
    other.set_epoch(1)
    assert {index for batch in kept for index in batch} != {index for batch in other for index in batch}


def test_no_batch_exceeds_its_tokens() -> None:
    sampler = TokenBatchSampler(1000, LENGTHS, max_tokens=1000, batch_size=30, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(1000))
    assert max(len(batch) * max(LENGTHS[index] for index in batch) for batch in batches) <= 1000
    assert max(map(len, batches)) == 30
    padded = sum(len(batch) * max(LENGTHS[index] for index in batch) for batch in batches)
    assert padded < 1.05 * sum(LENGTHS), "more than 5 % of what is loaded is padding"


def test_images_of_one_batch_have_one_orientation() -> None:
    ratios = torch.rand(100, generator=torch.Generator().manual_seed(0)) * 2
    for batch in AspectRatioBatchSampler(100, ratios, 8):
        assert len({bool(ratios[index] >= 1) for index in batch}) == 1


def test_ranks_draw_whole_batches_in_turn() -> None:
    sampler = TokenBatchSampler(1000, LENGTHS, max_tokens=1000)
    everything = list(sampler)
    shares = [list(Shard(TokenBatchSampler(1000, LENGTHS, max_tokens=1000), rank, 3)) for rank in range(3)]
    together = [batch for step in zip(*shares, strict=True) for batch in step]
    assert together[: len(everything)] == everything
    assert together[len(everything) :] == everything[: len(together) - len(everything)]


def test_large_budgets_and_weights_are_harmless() -> None:
    assert len(list(TokenBatchSampler(1000, [1] * 1000, max_tokens=10**12))) == 32
    assert len(list(BucketBatchSampler(10, list(range(10)), 10**9))) == 1
    assert set(WeightedSampler(4, [1e308] * 4, num_samples=200)) == {0, 1, 2, 3}
    assert list(WeightedSampler(4, [0, 1e-320, 0, 1.0], replacement=False)) == [3, 1]


def test_small_datasets_have_fewer_buckets() -> None:
    assert [len(batch) for batch in BucketBatchSampler(1258, LENGTHS + LENGTHS[:258], 64)].count(64) >= 15


# Devices

MAKERS: dict[str, Callable[[], EpochSampler[int] | EpochSampler[list[int]]]] = {
    "random": lambda: RandomSampler(5000, seed=1, repeats=2),
    "torch": lambda: RandomSampler(100, seed=1, shuffle="torch"),
    "sequential": lambda: SequentialSampler(10),
    "subset": lambda: SubsetSampler(10, [1, 2, 3]),
    "with replacement": lambda: WeightedSampler(1000, LENGTHS),
    "without replacement": lambda: WeightedSampler(1000, LENGTHS, replacement=False),
    "mixture": lambda: MixtureSampler(1000, [1, 2], sizes=[300, 700]),
    "balanced": lambda: ClassBalancedSampler(1000, LENGTHS),
    "chain": lambda: ChainSampler(1000, [10, 990]),
    "bucket": lambda: BucketBatchSampler(1000, LENGTHS, 8),
    "token": lambda: TokenBatchSampler(1000, LENGTHS, 1000),
    "aspect ratio": lambda: AspectRatioBatchSampler(1000, LENGTHS, 8, boundaries=[50]),
}


@pytest.mark.parametrize("name", MAKERS)
def test_torchs_default_device_does_not_matter(name: str) -> None:
    def drawn() -> list[object]:
        sampler = MAKERS[name]()
        return [list(sampler), list(Shard(sampler, 1, 3)), sampler.state_dict()]

    expected = drawn()
    with torch.device("meta"):  # as after torch.set_default_device: new tensors are there unless said otherwise
        assert drawn() == expected


# Numbers of other kinds


def test_numpys_and_torchs_whole_numbers_are_numbers() -> None:
    sampler = RandomSampler(np.int64(10), seed=np.uint32(3))  # type: ignore[arg-type]  # numpy's integers are no ints to mypy
    sampler.set_epoch(np.int8(2))  # type: ignore[arg-type]
    sampler.advance(torch.tensor(4))  # type: ignore[arg-type]
    plain = RandomSampler(10, seed=3)
    plain.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert list(plain) == list(sampler)
    assert (plain.epoch, plain.cursor) == (2, 4)
    mixed = MixtureSampler(np.int64(5), np.array([1, 3]), sizes=np.array([2, 3]), seed=np.int64(1))  # type: ignore[arg-type]
    assert (
        json.loads(json.dumps(mixed.state_dict())) == MixtureSampler(5, [1.0, 3.0], sizes=[2, 3], seed=1).state_dict()
    )


@pytest.mark.parametrize("number", [1.0, True, None, "1", torch.tensor([1, 2]), np.float64(1)])
def test_what_is_no_whole_number_is_refused(number: object) -> None:
    sampler = RandomSampler(10)
    for refused in (
        lambda: RandomSampler(10, seed=number),  # type: ignore[arg-type]  # that is the mistake
        lambda: sampler.set_epoch(number),  # type: ignore[arg-type]
        lambda: sampler.advance(number),  # type: ignore[arg-type]
        lambda: Shard(sampler, 0, 2).advance(number),  # type: ignore[arg-type]
        lambda: BucketBatchSampler(3, [1, 2, 3], number),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="must be"):
            refused()
    assert (sampler.epoch, sampler.cursor) == (0, 0)


def test_columns_of_pandas_kind_are_taken_by_their_values() -> None:
    class Column:
        """A filtered column: its labels are not 0 … n-1."""

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.array([0.0, 1.0, 0.0])

        def __len__(self) -> int:
            return 3

        def __getitem__(self, label: int) -> float:
            raise KeyError(label)

    assert list(WeightedSampler(3, Column())) == [1, 1, 1]  # type: ignore[arg-type]  # no Sequence to mypy


# States that do not fit


def test_states_of_other_orders_are_refused() -> None:
    lengths = [4, 3, 2, 1, 8, 7, 6, 5]
    families: list[list[EpochSampler[int] | EpochSampler[list[int]]]] = [
        [RandomSampler(8), RandomSampler(8, shuffle="torch"), RandomSampler(4, repeats=2), RandomSampler(8, seed=1)],
        [SubsetSampler(9, [1, 2]), SubsetSampler(9, [2, 1]), SubsetSampler(9, [1, 2], shuffle=False)],
        [
            WeightedSampler(8, lengths),
            WeightedSampler(8, lengths[::-1]),
            WeightedSampler(8, lengths, replacement=False),
        ],
        [
            BucketBatchSampler(8, lengths, 2, num_buckets=2),
            BucketBatchSampler(8, lengths, 2, boundaries=[4.5]),
            BucketBatchSampler(8, lengths, 2, num_buckets=2, shuffle=False),
            BucketBatchSampler(8, lengths[::-1], 2, num_buckets=2),
        ],
        [
            MixtureSampler(8, [1, 2], sizes=[4, 4]),
            MixtureSampler(8, [2, 1], sizes=[4, 4]),
            MixtureSampler(8, [1, 2], sizes=[3, 5]),
            MixtureSampler(8, [1, 2], sizes=[4, 4], shuffle=False),
        ],
        [ChainSampler(8, [4, 4]), ChainSampler(8, [3, 5]), ChainSampler(8, [4, 4], shuffle=False)],
    ]
    for family in families:
        for one in family:
            for other in family:
                if one is not other:
                    with pytest.raises(StateError):
                        one.load_state_dict(other.state_dict())


def test_the_iterator_of_another_world_is_refused_and_brings_the_sampler_along() -> None:
    drawing = iter(Shard(RandomSampler(20), 1, 3))
    for _ in range(4):
        next(drawing)
    assert isinstance(drawing, Drawing)
    state = drawing.state_dict()
    shard = Shard(RandomSampler(20), 1, 3)
    again = iter(shard)
    assert isinstance(again, Drawing)
    again.load_state_dict(state)
    assert shard.cursor == 12
    assert list(again) == list(drawing)
    elsewhere = iter(Shard(RandomSampler(20), 1, 4))
    assert isinstance(elsewhere, Drawing)
    with pytest.raises(StateError, match="in a world of 3, here it is 4"):
        elsewhere.load_state_dict(state)


# Threads


@pytest.mark.parametrize("name", ["random", "mixture", "balanced", "bucket", "without replacement"])
def test_threads_draw_different_epochs_of_one_sampler(name: str) -> None:
    sampler = MAKERS[name]()
    positions = torch.arange(len(sampler)).split(40)  # type: ignore[no-untyped-call]  # torch does not type it
    expected = [[sampler.draw(epoch, each) for each in positions] for epoch in (0, 1)]

    def draws(epoch: int) -> bool:
        return all(
            sampler.draw(epoch, each) == drawn
            for _ in range(5)
            for each, drawn in zip(positions, expected[epoch], strict=True)
        )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert all(threads.map(draws, [0, 1]))
    finally:
        sys.setswitchinterval(interval)


# What samplers know of the samples


class Corpus:
    def __init__(self) -> None:
        self.lengths = [3, 1, 2]

    @property
    def weights(self) -> list[float]:
        return [0.0, 1.0, 0.0]

    def __len__(self) -> int:
        return 3


def test_an_attribute_of_the_dataset_gives_the_numbers() -> None:
    assert list(WeightedSampler(Corpus(), "weights")) == [1, 1, 1]
    assert list(BucketBatchSampler(Corpus(), "lengths", 1, shuffle=False)) == [[1], [2], [0]]


MISUSE: dict[str, tuple[Callable[[], object], str]] = {
    "negative size": (lambda: RandomSampler(-1), "the size is -1"),
    "unknown shuffle": (lambda: RandomSampler(3, shuffle="fisher"), "must be 'hashed' or 'torch'"),  # type: ignore[arg-type]  # that is the mistake
    "no pass": (lambda: RandomSampler(3, repeats=0), "repeats is 0"),
    "a mask as indices": (lambda: SubsetSampler(3, [True, False, True]), "for a mask, write its indices"),
    "half an index": (lambda: SubsetSampler(3, [0.5]), "which is not a whole number"),  # type: ignore[list-item]  # that is the mistake
    "too large": (lambda: RandomSampler(2**61), "must be 0 … 2**60"),
    "a share of a share": (lambda: Shard(Shard(RandomSampler(3))), "is one rank's share already"),  # type: ignore[call-overload]  # that is the mistake
    "torch's sampler": (lambda: Shard(TorchSampler(range(3))), "no sampler of Treenail's"),  # type: ignore[call-overload]  # that is the mistake
    "a private attribute": (lambda: WeightedSampler(Corpus(), "__sizeof__"), "no such attribute"),
    "a method": (lambda: WeightedSampler([1, 2], "clear"), "which is a method of list"),
    "index outside": (lambda: SubsetSampler(3, [0, 3]), "the subset has index 3; the dataset has 0 … 2"),
    "nested subset": (lambda: SubsetSampler(3, [[0]]), "must be a list of whole numbers"),  # type: ignore[list-item]  # that is the mistake
    "too few weights": (lambda: WeightedSampler(3, [1, 2]), "weights has 2 numbers, must have 3"),
    "negative weight": (lambda: WeightedSampler(3, [1, -2, 3]), "weights[1] is -2"),
    "weight that is no number": (lambda: WeightedSampler(3, [1, float("nan"), 3]), "weights[1] is nan"),
    "texts as weights": (lambda: WeightedSampler(2, ["a", "b"]), "weights must be a list of finite numbers"),  # type: ignore[list-item]  # that is the mistake
    "no weight at all": (lambda: WeightedSampler(2, [0, 0]), "0 have a weight"),
    "more than there are": (lambda: WeightedSampler(2, [1, 0], 2, replacement=False), "1 have a weight"),
    "misspelt attribute": (lambda: WeightedSampler(Corpus(), "weihgts"), "did you mean 'weights'"),
    "attribute of a number": (lambda: WeightedSampler(3, "weights"), "int has no such attribute"),
    "half a label": (lambda: ClassBalancedSampler(2, [0, 0.5]), "labels[1] is 0.5, which is not a whole number"),  # type: ignore[list-item]  # that is the mistake
    "nothing to balance": (lambda: ClassBalancedSampler(0, [], num_samples=4), "the dataset is empty"),
    "balance beyond 1": (lambda: ClassBalancedSampler(2, [0, 1], balance=2), "must be 0 … 1"),
    "parts unknown": (lambda: MixtureSampler(4, [1, 2]), "sizes is needed"),
    "parts of another size": (lambda: MixtureSampler(4, [1, 2], sizes=[2, 3]), "sums to 5; the dataset has 4"),
    "a weight too few": (lambda: MixtureSampler(4, [1], sizes=[1, 3]), "there are 2 sources and 1 weights"),
    "all weights nought": (lambda: MixtureSampler(4, [0, 0], sizes=[1, 3]), "all weights are 0"),
    "empty part with weight": (lambda: MixtureSampler(3, [1, 1], sizes=[3, 0]), "give it the weight 0"),
    "unknown policy": (lambda: MixtureSampler(3, [1], sizes=[3], exhausted="wait"), "must be one of 'restart'"),  # type: ignore[arg-type]  # that is the mistake
    "length where a part ends": (
        lambda: MixtureSampler(3, [1], sizes=[3], exhausted="stop", num_samples=9),
        "it is for",
    ),
    "no batch size": (lambda: BucketBatchSampler(2, [5, 9]), "batch_size is None, must be a whole number"),
    "no bucket": (lambda: BucketBatchSampler(2, [5, 9], 1, num_buckets=0), "num_buckets is 0"),
    "boundaries out of order": (
        lambda: BucketBatchSampler(2, [5, 9], 1, boundaries=[3, 1]),
        "each must be above the one before",
    ),
    "a sample beyond the budget": (
        lambda: TokenBatchSampler(2, [5, 9], 8),
        "sample 1 has 9 tokens, more than max_tokens=8",
    ),
    "no such rank": (lambda: Shard(RandomSampler(3), 2, 2), "rank is 2, must be 0 … 1"),
    "unknown padding": (
        lambda: Shard(RandomSampler(3), 0, 2, padding="wrap"),  # type: ignore[call-overload]  # that is the mistake
        "must be 'repeat', 'drop' or 'none'",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_with_what_is_wrong(name: str) -> None:
    make, message = MISUSE[name]
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightedSampler(0, []),
        lambda: ClassBalancedSampler(0, []),
        lambda: ChainSampler(0, []),
        lambda: SubsetSampler(0, []),
        lambda: BucketBatchSampler(0, [], 4),
        lambda: TokenBatchSampler(0, [], 4),
    ],
)
def test_an_empty_dataset_has_empty_epochs(make: Callable[[], EpochSampler[int]]) -> None:
    sampler = make()
    assert len(sampler) == 0
    assert list(sampler) == []
    assert list(Shard(sampler, 1, 3)) == []

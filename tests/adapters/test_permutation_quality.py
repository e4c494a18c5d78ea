"""Computed orders cannot be told from `torch.randperm`'s by a battery of statistics, which weak shuffles fail.

A statistic gives a p-value: uniform in [0, 1] for random orders. The battery asks for more than 1e-6 of each; a run has
about 440 of them, so that a right shuffle would fail for one in 2,000 choices of keys. The keys are fixed. With
TREENAIL_CAMPAIGN=10 in the environment it draws ten times as many orders, under other keys.
"""

import math
import os
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from treenail.adapters.sampling import Permutation, RandomSampler
from treenail.adapters.sampling import permutation as module
from treenail.kernel import mix

CAMPAIGN = int(os.environ.get("TREENAIL_CAMPAIGN", "1"))
LEAST = 1e-6
FAILED = 1e-12  # what a weak shuffle must come below, so that no choice of keys explains it

Draw = Callable[[int, int], Tensor]  # (size, number) → int64[size]


def computed(size: int, number: int) -> Tensor:
    return Permutation(size, mix(CAMPAIGN, size, number))(torch.arange(size))


def control(size: int, number: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(CAMPAIGN, size, number)))


def epoch_after_epoch(size: int, number: int) -> Tensor:
    """Where each index went from one epoch to the next: a random order as well, if epochs have nothing in common."""
    sampler, orders = RandomSampler(size, seed=CAMPAIGN), []
    for epoch in (number, number + 1):
        sampler.set_epoch(epoch)
        orders.append(sampler.indices(0, size))
    return orders[1][orders[0].argsort()]


def seed_after_seed(size: int, number: int) -> Tensor:
    orders = [RandomSampler(size, seed=number + more).indices(0, size) for more in (0, 1)]
    return orders[1][orders[0].argsort()]


def affine(size: int, number: int) -> Tensor:
    """A linear congruential shuffle: i → a·i + b modulo the size."""
    factor = mix(number, "factor") % size
    while math.gcd(factor, size) > 1:
        factor += 1
    return (torch.arange(size) * factor + mix(number, "shift") % size) % size


def chi_square(statistic: float, freedom: int) -> float:
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def pearson(counts: Tensor, expected: Tensor) -> float:
    assert expected.min() > 0
    return float(((counts - expected).square() / expected).sum())


def widths(values: int, bins: int) -> Tensor:
    """How many of 0 … values-1 each bin `value * bins // values` holds: not equally many, where bins do not divide."""
    return torch.bincount(torch.arange(values) * bins // values, minlength=bins).double()


def of_values(values: Tensor, many: int, bins: int) -> float:
    """Whether each of 0 … many-1 comes equally often."""
    counts = torch.bincount((values * bins // many).flatten(), minlength=bins).double()
    return chi_square(pearson(counts, widths(many, bins) * (values.numel() / many)), bins - 1)


def of_positions(orders: Tensor, bins: int) -> float:
    """Whether each index comes equally often at each position."""
    count, size = orders.shape
    width = widths(size, bins)
    cells = torch.arange(size) * bins // size * bins + orders * bins // size
    counts = torch.bincount(cells.flatten(), minlength=bins**2).double().view(bins, bins)
    # An order fills each row and column of the table exactly, which makes its chi-square larger by n / (n - 1).
    statistic = pearson(counts, count * width * width[:, None] / size) * (size - 1) / size
    return chi_square(statistic, (bins - 1) ** 2)


def of_pairs(orders: Tensor, lag: int, bins: int) -> float:
    """Whether the index at a position tells which one comes `lag` positions later."""
    count, size = orders.shape
    width, binned = widths(size, bins), orders * bins // size
    cells = binned * bins + binned.roll(-lag, dims=1)
    counts = torch.bincount(cells.flatten(), minlength=bins**2).double().view(bins, bins)
    expected = count * width[:, None] * (width - torch.eye(bins, dtype=torch.float64)) / (size - 1)
    return chi_square(pearson(counts, expected), (bins - 1) ** 2)


def of_differences(orders: Tensor, lag: int, bins: int) -> float:
    """Whether all differences of two indices, modulo the size, come equally often; 0 cannot."""
    size = orders.shape[1]
    return of_values((orders.roll(-lag, dims=1) - orders) % size - 1, size - 1, bins)


def of_rectangles(orders: Tensor, stride: int, bins: int) -> float:
    """Whether p[i] - p[i+1] - p[i+s] + p[i+s+1] takes all values: 0 after one round of a network whose rows are s long."""
    size = orders.shape[1]
    steps = orders[:, :-1] - orders[:, 1:]
    return of_values((steps[:, :-stride] - steps[:, stride:]) % size, size, bins)


def of_fixed_points(orders: Tensor) -> float:
    """Whether none, one, two or more indices stand at their own position as often as in random orders (none: 1/e)."""
    count, size = orders.shape
    fixed = (orders == torch.arange(size)).sum(1).clamp(max=3)
    chances = [
        sum((-1) ** j / math.factorial(j) for j in range(min(size - k, 20) + 1)) / math.factorial(k) for k in range(3)
    ]
    expected = torch.tensor([*chances, 1 - sum(chances)], dtype=torch.float64) * count
    return chi_square(pearson(torch.bincount(fixed, minlength=4).double(), expected), 3)


def cycles(orders: Tensor) -> Tensor:
    """How many cycles each order has: the smallest index of each, found by doubling steps; int64[count]."""
    own = torch.arange(orders.shape[1]).expand_as(orders)
    smallest, step = own, orders
    for _ in range(orders.shape[1].bit_length()):
        smallest, step = torch.minimum(smallest, smallest.gather(1, step)), step.gather(1, step)
    return (smallest == own).sum(1)


def of_cycles(number: Tensor, size: int) -> float:
    """Whether there are H(n) cycles on average; their variance is H(n) - H₂(n)."""
    inverse = 1 / torch.arange(1, size + 1, dtype=torch.float64)
    deviation = math.sqrt(float(inverse.sum() - inverse.square().sum()) / len(number))
    return math.erfc(abs(float(number.double().mean() - inverse.sum())) / deviation / math.sqrt(2))


def of_parity(number: Tensor, size: int) -> float:
    """Whether as many orders are odd as even."""
    odd = torch.bincount((size - number) % 2, minlength=2).double()
    return chi_square(pearson(odd, torch.full_like(odd, len(number) / 2)), 1)


def battery(draw: Draw, size: int, count: int) -> dict[str, float]:
    """Return the p-value of each statistic."""
    orders = torch.stack([draw(size, number) for number in range(count * CAMPAIGN)])
    stride = 1 << module._split(size)
    results = {"positions": of_positions(orders, min(size, 32)), "rectangles": of_rectangles(orders, stride, 32)}
    for lag in (1, 2, stride, 2 * stride, size // 2):
        results[f"pairs {lag} apart"] = of_pairs(orders, lag, 16)
        results[f"differences {lag} apart"] = of_differences(orders, lag, 32)
    if count >= 100:
        number = cycles(orders)
        results["fixed points"] = of_fixed_points(orders)
        results["cycles"] = of_cycles(number, size)
        results["parity"] = of_parity(number, size)
    return results


SIZES = {64: 2000, 100: 2000, 1000: 400, 4095: 200, 4096: 200, 4097: 300, 5000: 300, 8192: 200, 70001: 12, 10**6: 1}
LONG = {size: count for size, count in SIZES.items() if size > module.EXACT}


def failures(results: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in results.items() if not value > LEAST}


@pytest.mark.parametrize(("size", "count"), SIZES.items())
@pytest.mark.parametrize("draw", [computed, control])
def test_an_order_passes_what_randperm_passes(draw: Draw, size: int, count: int) -> None:
    assert failures(battery(draw, size, count)) == {}


@pytest.mark.parametrize("draw", [epoch_after_epoch, seed_after_seed])
@pytest.mark.parametrize("size", [100, 5000])
def test_epochs_and_seeds_have_nothing_in_common(draw: Draw, size: int) -> None:
    assert failures(battery(draw, size, SIZES[size])) == {}


@pytest.mark.parametrize(("size", "count"), LONG.items())
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_battery_finds_a_network_with_too_few_rounds(
    monkeypatch: pytest.MonkeyPatch, size: int, count: int, rounds: int
) -> None:
    monkeypatch.setattr(module, "_ROUNDS", rounds)
    assert min(battery(computed, size, count).values()) < FAILED


def test_the_battery_finds_that_three_rounds_are_too_few_for_4097(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 3)
    assert min(battery(computed, 4097, 1000).values()) < FAILED


def test_fixed_points_show_why_short_orders_do_not_come_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT", 16)
    assert of_fixed_points(torch.stack([computed(20, number) for number in range(2000)])) < FAILED


@pytest.mark.parametrize("size", [100, 4097, 8192])
def test_the_battery_finds_a_linear_congruential_shuffle(size: int) -> None:
    assert min(battery(affine, size, SIZES[size]).values()) < FAILED


@pytest.mark.parametrize("draw", [computed, control])
def test_each_index_comes_equally_often_at_each_position_of_a_short_order(draw: Draw) -> None:
    found = {}
    for size in range(2, 41):
        orders = torch.stack([draw(size, number) for number in range(200 * CAMPAIGN)])
        found[size] = of_positions(orders, size)
    assert {size: value for size, value in found.items() if not value > LEAST} == {}


def of_whole_orders(draw: Draw, size: int) -> float:
    """Whether each of the size! orders comes equally often."""
    every = {order: number for number, order in enumerate(permutations(range(size)))}
    drawn = [every[tuple(draw(size, number).tolist())] for number in range(20 * len(every) * CAMPAIGN)]
    return of_values(torch.tensor(drawn), len(every), len(every))


@pytest.mark.parametrize("draw", [computed, control])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_order_of_a_few_indices_is_equally_likely(draw: Draw, size: int) -> None:
    assert of_whole_orders(draw, size) > LEAST


def test_a_linear_congruential_shuffle_does_not_reach_every_order() -> None:
    assert of_whole_orders(affine, 5) < FAILED


def test_seed_0_epoch_1_is_not_seed_1_epoch_0() -> None:
    first, second = RandomSampler(1000, seed=0), RandomSampler(1000, seed=1)
    first.set_epoch(1)
    assert int((first.indices(0, 1000) == second.indices(0, 1000)).sum()) < 10

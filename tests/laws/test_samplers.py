"""The samplers of Treenail obey the laws of samplers."""

from collections.abc import Mapping

from treenail.adapters.sampling import (
    ChainSampler,
    ClassBalancedSampler,
    Exhausted,
    MixtureSampler,
    RandomSampler,
    SequentialSampler,
    SubsetSampler,
    WeightedSampler,
)
from treenail.contracts.laws import SamplerLaws
from treenail.kernel import Sampler


def mixture(size: int, seed: int, weights: list[float], exhausted: Exhausted) -> Sampler:
    """Return a mixture of two parts; it refuses to draw from an empty part."""
    sizes = [size // 2, size - size // 2]
    drawable = [weight if size else 0 for weight, size in zip(weights, sizes, strict=True)]
    return MixtureSampler(size, drawable, sizes=sizes, exhausted=exhausted, seed=seed)


class TestRandomSampler(SamplerLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return RandomSampler(size, seed)


class TestRandomSamplerInTorchsOrder(SamplerLaws):
    hashed = False
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return RandomSampler(size, seed, shuffle="torch")


class TestRepeatedRandomSampler(SamplerLaws):
    repeats = 3

    def make(self, size: int, seed: int) -> Sampler:
        return RandomSampler(size, seed, repeats=3)


class TestSequentialSampler(SamplerLaws):
    seeded = False

    def make(self, size: int, seed: int) -> Sampler:
        return SequentialSampler(size)


class TestSubsetSampler(SamplerLaws):
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return SubsetSampler(size, range(size), seed=seed)


class TestSubsetSamplerInOrder(SamplerLaws):
    seeded = False
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return SubsetSampler(size, range(size), shuffle=False)


class TestWeightedSampler(SamplerLaws):
    repeats = None
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return WeightedSampler(size, [1 + number % 3 for number in range(size)], seed=seed)


class TestWeightedSamplerWithoutReplacement(SamplerLaws):
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return WeightedSampler(size, [1 + number % 3 for number in range(size)], replacement=False, seed=seed)


class TestClassBalancedSampler(SamplerLaws):
    repeats = None
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return ClassBalancedSampler(size, [int(number % 10 > 7) for number in range(size)], seed=seed)


class TestMixtureSampler(SamplerLaws):
    repeats = None

    def make(self, size: int, seed: int) -> Sampler:
        return mixture(size, seed, [3, 1], "restart")


class TestMixtureSamplerOfEverySampleOnce(SamplerLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return mixture(size, seed, [3, 1], "renormalize")


class TestMixtureSamplerThatStops(SamplerLaws):
    repeats = None

    def make(self, size: int, seed: int) -> Sampler:
        return mixture(size, seed, [1, 1], "stop")


class TestChainSampler(SamplerLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return ChainSampler(size, [size // 3, size - size // 3], seed=seed)


class TestHalfAsSubset(SamplerLaws):
    """A subset has other indices than 0 … n-1."""

    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return SubsetSampler(2 * size, range(1, 2 * size, 2), seed=seed)

    def counts(self, size: int) -> Mapping[int, int]:
        return dict.fromkeys(range(1, 2 * size, 2), 1)

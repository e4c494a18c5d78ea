"""The samplers of Treenail obey the laws of samplers."""

from treenail.adapters.sampling import RandomSampler, SequentialSampler
from treenail.contracts.laws import SamplerLaws
from treenail.kernel import Sampler


class TestRandomSampler(SamplerLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return RandomSampler(size, seed)


class TestSequentialSampler(SamplerLaws):
    seeded = False

    def make(self, size: int, seed: int) -> Sampler:
        return SequentialSampler(size)

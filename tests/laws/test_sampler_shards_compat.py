"""The samplers under the names of helios, mmengine and SCEPTER obey the laws of what a rank draws."""

from collections.abc import Hashable, Mapping

from treenail.adapters.sampling import Padding
from treenail.adapters.sampling.compat import (
    DefaultSampler,
    MultiFoldDistributedSampler,
    ResumableDistributedSampler,
    ResumableRandomSampler,
    ResumableSequentialSampler,
)
from treenail.contracts import SamplerShard
from treenail.contracts.laws import SamplerLaws, ShardLaws
from treenail.kernel import Sampler


def drops(padding: Padding) -> bool:
    """Return drop_last; there is no third padding."""
    if padding not in {"repeat", "drop", "none"}:
        raise ValueError(f"padding is {padding!r}")
    return padding == "drop"


class TestResumableDistributedSampler(ShardLaws):
    marked = True
    paddings = ("repeat", "drop")

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        drop_last = drops(padding)
        return ResumableDistributedSampler(size, world_size, rank, seed=seed, drop_last=drop_last, marked=True)

    def stream(self, seed: int, epoch: int) -> Hashable:
        return seed + epoch  # torch's order, by default


class TestMultiFoldDistributedSampler(ShardLaws):
    marked = True
    paddings = ("repeat", "drop")

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        drop_last = drops(padding)
        return MultiFoldDistributedSampler(size, 2, world_size, rank, seed=seed, drop_last=drop_last, marked=True)

    def counts(self, size: int) -> Mapping[int, int]:
        return dict.fromkeys(range(size), 2)


class TestDefaultSampler(ShardLaws):
    marked = True
    paddings = ("repeat", "none")

    def make(self, size: int, seed: int, rank: int, world_size: int, padding: Padding) -> SamplerShard[object]:
        if padding not in {"repeat", "none"}:
            assert padding != "drop", "the laws keep to `paddings`"
            raise ValueError(f"padding is {padding!r}")
        return DefaultSampler(
            size, seed=seed, round_up=padding == "repeat", num_replicas=world_size, rank=rank, marked=True
        )

    def stream(self, seed: int, epoch: int) -> Hashable:
        return seed + epoch  # torch's order, by default


class AloneLaws(SamplerLaws):
    """Those of samplers, for a share that takes no rank: less the ones by which `advance` refuses to go past the end.

    A share's stops there, by the laws of shares, which the samplers above show of the same method.
    """

    test_advance_refuses_what_does_not_exist = None  # type: ignore[assignment]  # not for these
    test_any_sequence_of_actions = None  # type: ignore[assignment]  # it goes past the end, too
    test_a_huge_epoch_ends = None  # type: ignore[assignment]  # as above


class TestResumableRandomSampler(AloneLaws):
    hashed = False
    scales = False

    def make(self, size: int, seed: int) -> Sampler:
        return ResumableRandomSampler(size, seed, 3)


class TestHashedResumableRandomSampler(AloneLaws):
    def make(self, size: int, seed: int) -> Sampler:
        return ResumableRandomSampler(size, seed, 3, order="hashed")


class TestResumableSequentialSampler(AloneLaws):
    seeded = False

    def make(self, size: int, seed: int) -> Sampler:
        return ResumableSequentialSampler(size, 3)

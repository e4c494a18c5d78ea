"""The samplers under the names of helios and SCEPTER obey the laws of what a rank draws."""

from collections.abc import Hashable, Mapping

from treenail.adapters.sampling import Padding
from treenail.adapters.sampling.compat import MultiFoldDistributedSampler, ResumableDistributedSampler
from treenail.contracts import SamplerShard
from treenail.contracts.laws import ShardLaws


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

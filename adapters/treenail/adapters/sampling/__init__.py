"""Resumable orders of the indices of a dataset."""

from treenail.adapters.sampling.epochs import BatchSampler, EpochSampler, IndexSampler
from treenail.adapters.sampling.permutation import Permutation
from treenail.adapters.sampling.samplers import RandomSampler, SequentialSampler, Shuffle, SubsetSampler
from treenail.adapters.sampling.shard import Padding, SampleIndex, Shard, process_rank

__all__ = [
    "BatchSampler",
    "EpochSampler",
    "IndexSampler",
    "Padding",
    "Permutation",
    "RandomSampler",
    "SampleIndex",
    "SequentialSampler",
    "Shard",
    "Shuffle",
    "SubsetSampler",
    "process_rank",
]

"""Resumable orders of the indices of a dataset."""

from treenail.adapters.sampling.buckets import AspectRatioBatchSampler, BucketBatchSampler, TokenBatchSampler
from treenail.adapters.sampling.epochs import EpochSampler, IndexBatchSampler, IndexSampler
from treenail.adapters.sampling.mixture import ChainSampler, ClassBalancedSampler, MixtureSampler
from treenail.adapters.sampling.permutation import Permutation
from treenail.adapters.sampling.proportions import Exhausted, Proportions
from treenail.adapters.sampling.samplers import RandomSampler, SequentialSampler, Shuffle, SubsetSampler
from treenail.adapters.sampling.shard import Padding, SampleIndex, Shard, process_rank
from treenail.adapters.sampling.weighted import WeightedSampler

__all__ = [
    "AspectRatioBatchSampler",
    "BucketBatchSampler",
    "ChainSampler",
    "ClassBalancedSampler",
    "EpochSampler",
    "Exhausted",
    "IndexBatchSampler",
    "IndexSampler",
    "MixtureSampler",
    "Padding",
    "Permutation",
    "Proportions",
    "RandomSampler",
    "SampleIndex",
    "SequentialSampler",
    "Shard",
    "Shuffle",
    "SubsetSampler",
    "TokenBatchSampler",
    "WeightedSampler",
    "process_rank",
]

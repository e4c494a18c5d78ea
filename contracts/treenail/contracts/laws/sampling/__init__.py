"""The laws of samplers of indices, of samplers of batches, and of what one rank draws of either.

The environment variable TREENAIL_LAW_EXAMPLES raises the number of examples that each of these laws looks at.
"""

from treenail.contracts.laws.sampling.batches import BatchSamplerLaws
from treenail.contracts.laws.sampling.indices import SamplerLaws
from treenail.contracts.laws.sampling.shards import ShardLaws

__all__ = ["BatchSamplerLaws", "SamplerLaws", "ShardLaws"]

"""The samplers of helios, mmengine and SCEPTER, under their names and with their arguments, resumable and elastic.

Their indices are those of the originals wherever the originals keep their own promises. ``order="hashed"`` takes constant
memory instead, and hashes seed and epoch together.
"""

from treenail.adapters.sampling.compat.evaluation import EvalDistributedSampler
from treenail.adapters.sampling.compat.helios import (
    SAMPLER_REGISTRY,
    ResumableDistributedSampler,
    ResumableRandomSampler,
    ResumableSampler,
    ResumableSamplerType,
    ResumableSequentialSampler,
    create_sampler,
)
from treenail.adapters.sampling.compat.mmengine import DefaultSampler, InfiniteSampler
from treenail.adapters.sampling.compat.multilevel import DrawMode, MultiLevelBatchSampler, Record
from treenail.adapters.sampling.compat.records import build_index, init_1level_llfs
from treenail.adapters.sampling.compat.scepter import MixtureOfSamplers, MultiFoldDistributedSampler

__all__ = [
    "SAMPLER_REGISTRY",
    "DefaultSampler",
    "DrawMode",
    "EvalDistributedSampler",
    "InfiniteSampler",
    "MixtureOfSamplers",
    "MultiFoldDistributedSampler",
    "MultiLevelBatchSampler",
    "Record",
    "ResumableDistributedSampler",
    "ResumableRandomSampler",
    "ResumableSampler",
    "ResumableSamplerType",
    "ResumableSequentialSampler",
    "build_index",
    "create_sampler",
    "init_1level_llfs",
]

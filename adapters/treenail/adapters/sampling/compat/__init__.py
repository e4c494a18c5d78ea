"""The samplers of helios, mmengine and SCEPTER, under their names and with their arguments, resumable and elastic.

Those of helios and mmengine, and SCEPTER's `EvalDistributedSampler` and a first fold of `MultiFoldDistributedSampler`, draw the
indices of the originals wherever those keep their own promises; ``order="hashed"`` takes constant memory instead, and hashes
seed and epoch together. `MixtureOfSamplers` and `MultiLevelBatchSampler` have the arguments of the originals and draw by their
rules, but in orders of their own: the originals' generators cannot be resumed without drawing everything again.

These two take no dataset and are built in Python; configs take the others by name.
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

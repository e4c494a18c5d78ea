"""What crosses a seam: the config of a run, the checkpoint manifest, what loops work on; and the laws of the ports."""

from treenail.contracts.checkpoint import FORMAT_VERSION, FileEntry, Manifest
from treenail.contracts.run import (
    DEVICE_TYPES,
    Checkpoints,
    CustomImports,
    Data,
    Dataset,
    Distributed,
    Evaluation,
    Loss,
    ParallelModule,
    Run,
    Samples,
    Schedule,
)
from treenail.contracts.sampling import BatchSampler, SamplerShard
from treenail.contracts.step import EvaluationLoop, StepOutput, TrainWork

__all__ = [
    "DEVICE_TYPES",
    "FORMAT_VERSION",
    "BatchSampler",
    "Checkpoints",
    "CustomImports",
    "Data",
    "Dataset",
    "Distributed",
    "Evaluation",
    "EvaluationLoop",
    "FileEntry",
    "Loss",
    "Manifest",
    "ParallelModule",
    "Run",
    "SamplerShard",
    "Samples",
    "Schedule",
    "StepOutput",
    "TrainWork",
]

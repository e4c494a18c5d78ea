"""What crosses a seam: the config of a run, the checkpoint manifest, what loops work on; and the laws of the ports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treenail.contracts.averaging import Averager
    from treenail.contracts.checkpoint import FORMAT_VERSION, FileEntry, Manifest
    from treenail.contracts.files import (
        CopiesFiles,
        CreatesFiles,
        HasDirectories,
        HasIdentity,
        HasLocalPaths,
        ListsEntries,
        ReadsMany,
        ScansFiles,
        SignsUrls,
        SplitsUris,
        StreamsFiles,
        TellsDirectories,
    )
    from treenail.contracts.run import (
        DEVICE_TYPES,
        Cache,
        Checkpoints,
        CustomImports,
        Data,
        Dataset,
        Distributed,
        Evaluation,
        Files,
        Loss,
        ParallelModule,
        Run,
        Samples,
        Schedule,
    )
    from treenail.contracts.sampling import BatchSampler, SamplerShard
    from treenail.contracts.step import EvaluationLoop, StepOutput, TrainWork

_LIGHTEST_FIRST = "files", "checkpoint", "sampling", "averaging", "step", "run"

__all__ = [
    "DEVICE_TYPES",
    "FORMAT_VERSION",
    "Averager",
    "BatchSampler",
    "Cache",
    "Checkpoints",
    "CopiesFiles",
    "CreatesFiles",
    "CustomImports",
    "Data",
    "Dataset",
    "Distributed",
    "Evaluation",
    "EvaluationLoop",
    "FileEntry",
    "Files",
    "HasDirectories",
    "HasIdentity",
    "HasLocalPaths",
    "ListsEntries",
    "Loss",
    "Manifest",
    "ParallelModule",
    "ReadsMany",
    "Run",
    "SamplerShard",
    "Samples",
    "ScansFiles",
    "Schedule",
    "SignsUrls",
    "SplitsUris",
    "StepOutput",
    "StreamsFiles",
    "TellsDirectories",
    "TrainWork",
]


def __getattr__(name: str) -> object:
    """Import what is asked for, so that whoever needs files only does not wait for torch (PEP 562)."""
    if name in __all__:
        for module in _LIGHTEST_FIRST:
            contents = vars(import_module(f"treenail.contracts.{module}"))
            if name in contents:
                return contents[name]
    raise AttributeError(f"module 'treenail.contracts' has no attribute '{name}'")

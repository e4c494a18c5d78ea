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
    from treenail.contracts.parameters import ParameterGroup, ParameterGroups
    from treenail.contracts.run import (
        DEVICE_TYPES,
        Cache,
        Checkpoints,
        Compile,
        CustomImports,
        Data,
        Dataset,
        Distributed,
        Evaluation,
        Files,
        Limits,
        LoadFrom,
        Loss,
        ParallelModule,
        Prediction,
        Recompute,
        Run,
        Samples,
        ScaleLr,
        Schedule,
    )
    from treenail.contracts.sampling import BatchSampler, SamplerShard
    from treenail.contracts.step import (
        EvaluationLoop,
        HasTestStep,
        HasValStep,
        MeasuresSamples,
        PredictHook,
        StepOutput,
        TakesPredictions,
        TrainsItself,
        TrainWork,
    )
    from treenail.contracts.updates import LossSum, Outcome, Skipped, Stepped, Updater

_LIGHTEST_FIRST = "files", "checkpoint", "sampling", "parameters", "averaging", "updates", "step", "run"

__all__ = [
    "DEVICE_TYPES",
    "FORMAT_VERSION",
    "Averager",
    "BatchSampler",
    "Cache",
    "Checkpoints",
    "Compile",
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
    "HasTestStep",
    "HasValStep",
    "Limits",
    "ListsEntries",
    "LoadFrom",
    "Loss",
    "LossSum",
    "Manifest",
    "MeasuresSamples",
    "Outcome",
    "ParallelModule",
    "ParameterGroup",
    "ParameterGroups",
    "PredictHook",
    "Prediction",
    "ReadsMany",
    "Recompute",
    "Run",
    "SamplerShard",
    "Samples",
    "ScaleLr",
    "ScansFiles",
    "Schedule",
    "SignsUrls",
    "Skipped",
    "SplitsUris",
    "StepOutput",
    "Stepped",
    "StreamsFiles",
    "TakesPredictions",
    "TellsDirectories",
    "TrainWork",
    "TrainsItself",
    "Updater",
]


def __getattr__(name: str) -> object:
    """Import what is asked for, so that whoever needs files only does not wait for torch (PEP 562)."""
    if name in __all__:
        for module in _LIGHTEST_FIRST:
            contents = vars(import_module(f"treenail.contracts.{module}"))
            if name in contents:
                return contents[name]
    raise AttributeError(f"module 'treenail.contracts' has no attribute '{name}'")

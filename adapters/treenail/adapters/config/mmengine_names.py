"""What fields of mmengine's configs are called in a config of ours, for messages about fields that it does not take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

_BY_EPOCH: Final = (
    "write 'loop': {type: EpochBasedTrainLoop, max_epochs: …} or {type: IterBasedTrainLoop, max_iters: …}"
)
_LOADER: Final = "write '{0}': {{dataset: …, batch_size: …}}, where batch_size is of all ranks together"
_METRICS: Final = "write the metrics in '{0}': {{…, metrics: [{{type: …}}]}}"
_LOOPS: Final = "leave it out: '{0}' says on what, the loop's val_interval when"
_SCHEDULES: Final = (
    "write 'schedules': [{scheduler: {type: …}}]; the types of mmengine are mmengine.CosineAnnealingLR …"
)
_HOOKS: Final = "write 'hooks': {logger: {type: LoggerHook, interval: …}}, which has default and other hooks by name"

RUN_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "train_dataloader": _LOADER.format("train"),
        "val_dataloader": _LOADER.format("val"),
        "test_dataloader": _LOADER.format("test"),
        "data": "write 'train', 'val' and 'test', each {dataset: …, batch_size: …}",
        "train_cfg": _BY_EPOCH,
        "runner": _BY_EPOCH,
        "total_epochs": _BY_EPOCH,
        "val_cfg": _LOOPS.format("val"),
        "test_cfg": _LOOPS.format("test"),
        "val_evaluator": _METRICS.format("val"),
        "test_evaluator": _METRICS.format("test"),
        "evaluation": _METRICS.format("val") + ", and the interval as val_interval of the loop",
        "optim_wrapper": "write its optimizer as 'optimizer', paramwise_cfg as 'parameters': {type: parameter_groups, …}, "
        "the rest as 'updates': {type: OptimWrapper, …}",
        "optimizer_config": "write grad_clip as clip_grad of 'updates': {type: OptimWrapper, …}",
        "fp16": "write 'updates': {type: AmpOptimWrapper}",
        "param_scheduler": _SCHEDULES,
        "lr_config": _SCHEDULES,
        "momentum_config": _SCHEDULES,
        "auto_scale_lr": "write 'scale_lr': {base_batch_size: …}, or leave it out for enable: false",
        "default_hooks": _HOOKS,
        "custom_hooks": f"{_HOOKS}; priorities stand in 'priorities': {{NAME: LOW}}",
        "checkpoint_config": "write 'hooks': {checkpoint: {type: CheckpointHook, interval: …}}",
        "log_config": "write 'hooks': {logger: {type: LoggerHook, interval: …}}, and curves in 'vis'",
        "log_processor": "write it in 'hooks': {logger: {type: LoggerHook, log_processor: {…}}}",
        "log_level": "write it in 'hooks': {logger: {type: LoggerHook, log_level: …}}",
        "visualizer": "write its backends in 'vis': {NAME: {type: …}}",
        "vis_backends": "write 'vis': {NAME: {type: …}}",
        "data_preprocessor": "give it to the 'model', which takes it as an argument",
        "randomness": "write 'seed': …, 'deterministic': …, and diff_rank_seed in 'distributed'",
        "env_cfg": "write dist_cfg's backend in 'distributed': {backend: …}, and 'cudnn_benchmark': true; the rest has no place",
        "dist_params": "write 'distributed': {backend: …}",
        "launcher": "write 'distributed': {launcher: …}; auto, the default, recognises it",
        "model_wrapper_cfg": "write 'distributed': {parallel: {type: …}}",
        "find_unused_parameters": "write it in 'distributed': {parallel: {type: MMDistributedDataParallel, …}}",
        "resume": "give it to the command: treenail train --resume, or --auto-resume",
        "resume_from": "give it to the command: treenail train --work-dir DIR --resume",
        "work_dir": "give it to the command: treenail train --work-dir DIR",
        "experiment_name": "the name of the work directory is that of the experiment: treenail train --work-dir DIR",
        "default_scope": "leave it out: a name of a scope is written whole, scope:name, and 'custom_imports' makes it known",
        "workflow": "leave it out: what is trained is 'train', what is validated 'val'",
        "runner_type": "leave it out: there is one way to run a config, whose 'loop' may be anyone's",
    }
)
"""By names of mmengine's and MMCV's for a run: what is written here, with the names of our fields in quotes."""

_SAMPLES_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "collate_fn": "write 'collate': stack, list, or {type: module:function}",
        "samples_per_gpu": "write 'batch_size', which is of all ranks together",
        "workers_per_gpu": "write 'num_workers'",
        "persistent_workers": "leave it out: workers go on from epoch to epoch",
        "pin_memory": "leave it out: batches for a GPU are pinned",
    }
)
_OF_RUN: Final = ("Run",)
_OF_SAMPLES: Final = ("Data", "Evaluation", "Prediction")


def mmengine_hint(of: str, name: str, path: Sequence[str | int]) -> str | None:
    """Return what a field of mmengine's is called here; None where it is none.

    Args:
        of: Name of the record or component that does not take the field.
        name: The field's name.
        path: Path of the record or component in the config.
    """
    if of in _OF_RUN and not path:
        return RUN_HINTS.get(name)
    if of in _OF_SAMPLES:
        return _SAMPLES_HINTS.get(name)
    if name == "priority" and len(path) == 2 and path[0] == "hooks":
        return f"write it beside the hooks, in priorities: {{{path[1]}: …}}"
    return None

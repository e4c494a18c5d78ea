"""Builds the components of a run from its config, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import torch
import torch.distributed as dist
from torch import nn

from treenail.adapters.comm import SingleProcess
from treenail.adapters.config import Document, recorded
from treenail.adapters.data import Indexed, Loader, collate_lists
from treenail.adapters.hooks import Schedules
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EvalLoop, EvalSets
from treenail.adapters.models import BaseDataPreprocessor, BaseModel, BaseModule, trained_through
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict, OwnStep, SupervisedStep
from treenail.adapters.parallel import bare, compiled, data_parallel, data_share, recompute, separate_data_parallel
from treenail.adapters.runtime.outputs import evaluated_into
from treenail.adapters.runtime.ranks import RankRng
from treenail.adapters.runtime.updates import build_groups, build_optimizer, build_updater
from treenail.adapters.sampling import RandomSampler, SequentialSampler, Shard
from treenail.adapters.seeding import seed_process, shielded_rng
from treenail.adapters.weights import load_from
from treenail.contracts import (
    BatchSampler,
    Evaluation,
    EvaluationLoop,
    LoadFrom,
    Loss,
    MeasuresSamples,
    Run,
    SamplerShard,
    Samples,
    StepOutput,
    TrainsItself,
    TrainWork,
    Updater,
)
from treenail.kernel import Communicator, ConfigError, Loop, Sampler, Spec, Stateful, VisBackend, mix


class Assembly(NamedTuple):
    """The built components of a run.

    Args:
        model: On its device, without what makes it parallel.
        device: Where the model is.
        parts: What a checkpoint holds, by name.
        loop: The training loop.
        test: The test loop, if the config has a test.
        vis: Where curves go, by name.
        config: The config as plain data, without secrets.
        validation: What the training loop validates with.
        sanity: Builds a validation of a few batches only, if the config asks for one and has a validation; its files go below
            a directory that it is given.
    """

    model: nn.Module
    device: torch.device
    parts: dict[str, Stateful]
    loop: Loop
    test: EvalLoop | EvalSets | None
    vis: dict[str, VisBackend]
    config: object
    validation: EvaluationLoop | None = None
    sanity: Callable[[Path], EvaluationLoop] | None = None


def assemble(
    run: Run,
    work_dir: Path,
    document: Document | None = None,
    communicator: Communicator | None = None,
    *,
    goes_on: bool = False,
) -> Assembly:
    """Build a run for training.

    Args:
        run: The config.
        work_dir: Below it each vis backend gets a directory.
        document: The config that the run comes from, if there is one.
        communicator: The ranks of the run, those of torch's process group; one when None.
        goes_on: Its parts take the states of a checkpoint, so that weights to begin with are not looked at.

    Raises:
        BuildError: A component's constructor raised.
        ConfigError: The device does not exist here, or the parts do not fit each other.
        CheckpointError: The weights to begin with cannot be used.
    """
    communicator = communicator or SingleProcess()
    device = prepare_process(run)
    seed_process(run.seed)
    model = _model(run, device, begins=not goes_on)
    if run.load_from is not None and not goes_on:
        _begin_with(run.load_from, model, communicator)
    loss = run.loss.build() if run.loss is not None else None
    if isinstance(loss, nn.Module):
        loss.to(device)
    groups = build_groups(run, model, loss)
    called = _parallel(run, model, communicator)
    model = bare(called)
    ranks = _data_ranks(called, communicator)
    optimizer = build_optimizer(run, model, loss, groups)
    updater = build_updater(run, optimizer, ranks)
    averages = run.averaging.build(model) if run.averaging else None
    averaged = _second(run, model, device, communicator) if averages else None
    batches = load(run.train, run.seed, "train", device, ranks, limit=run.limits.train_batches)
    _refuse_cut_passes(run, batches)
    work = TrainWork(
        step=_step(run, called, loss, updater, device, lambda: batches.share, ranks),
        batches=batches,
        validation=evaluation(run, run.val, "val", model, loss, device, ranks, averaged)
        if run.val is not None
        else None,
    )
    loop = run.loop.build(work)
    epoch_length = getattr(loop, "epoch_length", None) or len(batches)
    schedules = Schedules.built(run.schedules, optimizer, epoch_length=epoch_length)
    named = run.vis.items() if communicator.rank == 0 else ()
    vis = {name: each.build(work_dir / name) for name, each in named if each is not None}
    parts: dict[str, Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "updates": updater,
        "schedules": schedules,
        "batches": batches,
        "loop": loop,
        "rng": RankRng(communicator, ranks.rank if run.distributed.diff_rank_seed else 0),
    }
    if isinstance(loss, nn.Module):
        parts["loss"] = loss
    if averages is not None:
        parts["averages"] = averages
    test = evaluation(run, run.test, "test", model, loss, device, ranks, averaged) if run.test is not None else None
    if run.distributed.diff_rank_seed and ranks.rank > 0:  # all that is equal on all ranks has been built
        seed_process(mix(run.seed, "rank", ranks.rank))
    sanity: Callable[[Path], EvaluationLoop] | None = None
    if run.val and run.limits.sanity_batches:
        limits = msgspec.structs.replace(run.limits, val_batches=run.limits.sanity_batches)
        few = msgspec.structs.replace(run, limits=limits)
        sets = run.val

        def sanity(directory: Path) -> EvaluationLoop:
            few_sets = evaluated_into(sets, directory)
            return evaluation(few, few_sets, "val", model, loss, device, ranks, averaged)

    return Assembly(model, device, parts, loop, test, vis, recorded(run, document), work.validation, sanity)


def _refuse_cut_passes(run: Run, batches: Loader) -> None:
    most, steps = run.limits.train_batches, run.limits.max_steps
    if most is not None and batches.endless and (steps is None or steps > most):
        raise ConfigError(
            f"passes of {type(batches.sampler).__name__} follow each other without end, so that no second epoch would begin "
            "at their beginning",
            where="limits.train_batches",
            mend="leave it out, and give the loop an epoch_length; or take another sampler",
        )


def _begin_with(weights: LoadFrom, model: nn.Module, communicator: Communicator) -> None:
    report = load_from(model, weights)
    if communicator.rank == 0:
        logger = terminal_logger()
        (logger.info if report.complete else logger.warning)(str(report))


def _model(run: Run, device: torch.device, *, begins: bool = False) -> nn.Module:
    model = run.model.build()
    if begins and isinstance(model, BaseModule) and not model.is_init:
        model.init_weights()
    model.to(device)
    if run.recompute is None:
        return model
    try:
        return recompute(model, classes=run.recompute.classes, modules=run.recompute.modules)
    except ValueError as error:
        raise ConfigError(str(error), where="recompute") from None


def _step(
    run: Run,
    called: nn.Module,
    loss: Loss | None,
    updater: Updater | OptimWrapperDict,
    device: torch.device,
    share: Callable[[], tuple[int, int] | None],
    ranks: Communicator,
) -> Callable[[object], StepOutput]:
    """Return the training step: of a model and a loss, or the model's own where there is no loss."""
    if loss is not None:
        if isinstance(updater, OptimWrapperDict):
            raise ConfigError(
                "there are a loss and several optimizers",
                where="optimizer",
                mend="name one optimizer; or leave out the loss, and let the model's train_step say what each does",
            )
        model = bare(called)
        if isinstance(model, BaseModel) and type(model.data_preprocessor) is not BaseDataPreprocessor:
            raise ConfigError(
                f"a {type(model).__name__} computes its own losses, and a loss besides would be of inputs that did not go "
                "through its data_preprocessor",
                where="loss",
                mend="leave it out; or put the preprocessor in front of a plain model by treenail.adapters.models:Preprocessed",
            )
        measured = data_parallel(loss) if isinstance(loss, nn.Module) else loss
        checks = run.detect_anomalous_params
        return SupervisedStep(called, measured, updater, device, share, ranks, detect_anomalous_params=checks)
    if not isinstance(called, TrainsItself):
        wrapped = isinstance(bare(called), TrainsItself)
        raise ConfigError(
            f"there is no loss, and a {type(called).__name__} has no train_step",
            where="distributed.parallel" if wrapped else "loss",
            mend="use parallel: {type: separate_data_parallel}, which leaves the model what it is"
            if wrapped
            else "add loss: {type: …}, or give the model a method train_step(data, optim_wrapper)",
        )
    if run.detect_anomalous_params:
        raise ConfigError(
            "a train_step has no loss to look at", where="detect_anomalous_params", mend="call parameters_outside in it"
        )
    if run.compile is not None:
        raise ConfigError(
            "a train_step is not compiled, only what is called is", where="compile", mend="compile parts in the model"
        )
    if not isinstance(updater, OptimWrapper | OptimWrapperDict):
        raise ConfigError(f"a train_step takes an OptimWrapper, no {type(updater).__name__}", where="updates")
    if ranks.world_size > 1 and run.train.batch_size % ranks.world_size:
        raise ConfigError(
            f"{run.train.batch_size} samples are no equal shares of {ranks.world_size} ranks, whose gradients a train_step "
            "averages as equals",
            where="train.batch_size",
            mend=f"let it be a multiple of {ranks.world_size}, with drop_last: true",
        )
    try:
        return OwnStep(called, updater, device, share, ranks.world_size)
    except ValueError as error:
        raise ConfigError(str(error), where="updates") from None


def _parallel(run: Run, model: nn.Module, communicator: Communicator) -> nn.Module:
    """Return what is called in training."""
    if communicator.world_size > 1 and not dist.is_initialized():
        raise ConfigError(
            f"{communicator.world_size} ranks train together through torch's process group, and there is none",
            mend="start them with `treenail launch`, or call torch.distributed.init_process_group first",
        )
    chosen = run.distributed.parallel
    # A wrapper around the whole would hide a train_step, and is not called by it.
    whole = run.loss is not None or (isinstance(model, BaseModel) and not isinstance(run.optimizer, Mapping))
    default = data_parallel if whole else separate_data_parallel
    called = default(model) if chosen is None else chosen.build(model)
    if not isinstance(called, nn.Module):
        raise ConfigError(f"a {type(called).__name__} came back, no module", where="distributed.parallel")
    called = trained_through(called)
    if run.compile is None:
        return called
    return compiled(called, mode=run.compile.mode, fullgraph=run.compile.fullgraph, dynamic=run.compile.dynamic)


def _second(run: Run, model: nn.Module, device: torch.device, communicator: Communicator) -> nn.Module | None:
    """Return a second module for the averages of a model that FSDP2 has sharded, which torch cannot copy."""
    if not any(hasattr(module, "set_requires_gradient_sync") for module in model.modules()):
        return None
    with shielded_rng(devices=True):
        return bare(_parallel(run, _model(run, device), communicator)).requires_grad_(False)


def _data_ranks(called: nn.Module, communicator: Communicator) -> Communicator:
    """Return the ranks that take different samples: all of them, unless layers are split over some."""
    _, world_size = data_share(called)
    if world_size == communicator.world_size:
        return communicator
    apart = communicator.world_size // world_size  # neighbours have the same samples
    groups = [communicator.group(range(first, communicator.world_size, apart)) for first in range(apart)]
    return next(group for group in groups if group is not None)


def evaluation(
    run: Run,
    data: Evaluation | Mapping[str, Evaluation],
    mode: Literal["val", "test"],
    model: nn.Module,
    loss: Loss | None,
    device: torch.device,
    ranks: Communicator | None = None,
    averaged: nn.Module | None = None,
) -> EvalLoop | EvalSets:
    """Build the loop of a validation or test on one set of data or several, on one rank or many."""

    def loop(each: Evaluation, name: str | None) -> EvalLoop:
        where = mode if name is None else f"{mode}.{name}"
        metrics = [metric.build() for metric in each.metrics]
        if loss is None and not metrics:
            raise ConfigError(
                "there is no loss, and no metric to measure", where=f"{where}.metrics", mend="add metrics"
            )
        dataset = Indexed(each.dataset.build(), collation(each))
        limit = run.limits.val_batches if mode == "val" else run.limits.test_batches
        batches = load(each, run.seed, where, device, ranks, dataset, limit)
        if len(batches) == 0 and (ranks is None or ranks.world_size == 1):  # a rank's share may be empty
            raise ConfigError(
                f"there is no batch to evaluate on ({where})", where=each.dataset.where, mend="is the dataset empty?"
            )
        meta = getattr(dataset.dataset, "metainfo", None)
        for metric in metrics:
            if isinstance(metric, MeasuresSamples):
                metric.dataset_meta = meta  # type: ignore[attr-defined]  # as mmengine's metrics have it
        try:
            return EvalLoop(
                mode, model, loss, batches, metrics, device, run.seed, ranks, averaged, each.precision, name
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error), where=where) from None

    if isinstance(data, Evaluation):
        return loop(data, None)
    if not data:
        raise ConfigError("there are no data by name", where=mode, mend=f"leave {mode} out, or name a set of data")
    loops = [loop(each, name) for name, each in data.items()]
    try:
        return EvalSets(loops)
    except ValueError as error:
        raise ConfigError(str(error), where=mode) from None


def load(
    data: Samples,
    seed: int,
    mode: str,
    device: torch.device,
    ranks: Communicator | None = None,
    indexed: Indexed | None = None,
    limit: int | None = None,
) -> Loader:
    """Build dataset, sampler and loader; randomness of the mode follows from the run's seed.

    Each of several ranks loads its share of each batch, unless the sampler gives it a share of the samples already.

    Args:
        data: What to load.
        seed: The run's.
        mode: What the data are for: train, or a name of evaluation data.
        device: Where the model is.
        ranks: The ranks; None: only this process.
        indexed: The built dataset, where each batch shall tell its samples: as an `IndexedBatch`.
        limit: Batches of an epoch at most.
    """
    dataset = data.dataset.build() if indexed is None else indexed.dataset
    seed = mix(seed, mode)
    sampler: Sampler | BatchSampler
    if data.batch_sampler is not None:
        if data.sampler is not None:
            raise ConfigError(
                "a batch sampler takes no sampler", where=data.sampler.where, mend="leave out one of them"
            )
        given = {"seed": seed, "batch_size": data.batch_size, "drop_last": data.drop_last}
        sampler = data.batch_sampler.filled(**given).build(dataset)
    elif data.sampler is not None:
        sampler = data.sampler.filled(seed=seed).build(dataset)
    elif not hasattr(dataset, "__len__"):
        raise ConfigError(
            f"a {type(dataset).__name__} has no length, so that no sampler can number its samples",
            where=data.dataset.where,
            mend="give it __len__ and __getitem__; what can only be iterated is trained on from Python, by StreamedBatches: "
            "see how-to/loops in the documentation",
        )
    else:
        sampler = RandomSampler(dataset, seed) if mode == "train" else SequentialSampler(dataset)
    whole = data.batch_sampler is not None
    world_size, batch_size = ranks.world_size if ranks else 1, data.batch_size
    if world_size > 1 and isinstance(sampler, Shard) and not getattr(sampler.sampler, "endless", False):
        # The order that the ranks share: each takes its part of every batch, and none is padded.
        sampler = sampler.sampler  # type: ignore[assignment]  # of indices or batches, as configs build them
    if world_size > 1 and isinstance(sampler, SamplerShard):
        if batch_size % world_size:
            raise ConfigError(
                f"{type(sampler).__name__} gives each of {world_size} ranks its own samples, and {batch_size} of a batch "
                "cannot be divided by them",
                mend=f"let batch_size be a multiple of {world_size}, or use a sampler that knows no ranks",
            )
        world_size, batch_size = 1, batch_size // world_size
    return Loader(
        dataset if indexed is None else indexed,
        sampler,
        collate=collation(data) if indexed is None else indexed.collate,
        batch_size=None if whole else batch_size,
        num_workers=data.num_workers,
        drop_last=data.drop_last and not whole,
        seed=seed,
        rank=ranks.rank if ranks and world_size > 1 else 0,
        world_size=world_size,
        limit=limit,
        device=device,
    )


def collation(data: Samples) -> Callable[[list[object]], object] | None:
    """Return what makes a batch of samples; None: torch's default.

    Raises:
        ConfigError: What the config names cannot be called.
    """
    if not isinstance(data.collate, Spec):
        return collate_lists if data.collate == "list" else None
    collate = data.collate.build()
    if not callable(collate):
        raise ConfigError(f"a {type(collate).__name__} makes no batch of samples", where=data.collate.where)
    return collate


def prepare_process(run: Run) -> torch.device:
    """Set what a run asks of its process, and return its device."""
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    return choose_device(run.device)


def choose_device(name: str) -> torch.device:
    """Return the device a config names; ``"auto"`` is a GPU if there is one.

    Raises:
        ConfigError: torch knows no such device, or it is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        detail = str(error).splitlines()[0]
        raise ConfigError(
            f"the device '{name}' cannot be used: {detail}", where="device", mend="use cpu or auto"
        ) from None
    return device

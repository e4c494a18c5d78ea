"""Makes a checkpoint of a run from one of mmengine or Lightning, so that the run goes on where the other system stood."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
from torch import nn
from torch.optim import Optimizer

from treenail.adapters.averaging import WeightAverages
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.config import Document
from treenail.adapters.data import Loader
from treenail.adapters.files import mounts_of, use_mounts
from treenail.adapters.hooks import Schedules
from treenail.adapters.optim import OptimWrapperDict
from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.default_hooks import default_hooks
from treenail.adapters.runtime.workdir import checkpoint_files, make_work_dir
from treenail.adapters.schedule import scheduled_params
from treenail.adapters.vis import JsonLines
from treenail.adapters.weights import (
    STRIP_MODULE,
    Steps,
    TrainingState,
    check_order,
    load_weights,
    open_source,
    take_averages,
    take_optimizer,
    take_schedules,
    training_state,
)
from treenail.contracts import Distributed, Run
from treenail.kernel import CheckpointError, ConfigError, Engine, Late, TreenailError, did_you_mean

SKIPPABLE = ("averages", "batches", "optimizer", "schedules", "updates")
"""Parts of a run that can begin anew where the other checkpoint's does not fit."""


class Conversion(NamedTuple):
    """What became of another system's checkpoint.

    Args:
        checkpoint: Where ours is.
        step: Training steps made.
        epoch: Epochs completed.
        taken: What was taken.
        left: What was not, and why.
    """

    checkpoint: str
    step: int
    epoch: int
    taken: tuple[str, ...]
    left: tuple[str, ...]


def convert(
    run: Run,
    path: str | PathLike[str],
    work_dir: Path,
    *,
    prefix: str = "",
    revise_keys: Sequence[tuple[str, str]] = STRIP_MODULE,
    skip: Collection[str] = (),
    document: Document | None = None,
) -> Conversion:
    """Make a checkpoint that the run resumes from, out of one of mmengine or Lightning.

    The run is built and takes what the other checkpoint holds; what contradicts its config is an error. Weights, the
    optimizer's state and settings, schedules, averages, the loss scaler and the position are taken. Random numbers and
    the order of samples are the run's own.

    Args:
        run: The config.
        path: The other checkpoint, a path or URI.
        work_dir: Where the run will go on; without checkpoints yet.
        prefix: The weights' names begin so there: what a LightningModule calls the model, ``model``.
        revise_keys: (pattern, replacement) pairs that make the model's names of theirs.
        skip: Parts that begin anew although the other checkpoint may hold them; see `SKIPPABLE`.
        document: The config that the run comes from.

    Raises:
        CheckpointError: It is of no such system, is damaged, or does not fit the run; with all that does not.
        ConfigError: A part to skip does not exist.
        TreenailError: The run cannot be built.
    """
    for name in skip:
        if name not in SKIPPABLE:
            mend = did_you_mean(name, SKIPPABLE) or f"there are {', '.join(SKIPPABLE)}"
            raise ConfigError(f"no part '{name}' can be skipped", where="skip", mend=mend)
    with use_mounts(mounts_of(run.files)):
        source = open_source(path)
        files = checkpoint_files(work_dir, run.files.checkpoints)
        make_work_dir(work_dir)
        if not run.vis:
            run = msgspec.structs.replace(run, vis={"jsonlines": Late(JsonLines, awaited=1)})
        # One process makes the checkpoint; whatever ranks resume from it take their parts.
        assembly = assemble(msgspec.structs.replace(run, distributed=Distributed()), work_dir, document, goes_on=True)
        state = training_state(source, prefix=prefix, revise_keys=revise_keys, steps=_steps(assembly))
        taken, left, epoch = _take(assembly, state, skip, source.where)
        engine = Engine(assembly.parts)
        for name, hook in default_hooks(run, assembly, work_dir).items():
            engine.attach(hook, name)
        tree = engine.state_dict()
        tree["engine"] = {
            **cast("dict[str, object]", tree["engine"]),
            "step": state.step,
            "epoch": epoch,
            "commits": state.step,
        }
        store = CheckpointStore(files, config=assembly.config)
        saved = store.save(tree, step=state.step, epoch=epoch, reason=f"from {source.where}", pointers=("latest",))
    left = (*left, *state.left, "random numbers: they begin at the run's seed", "hooks: they begin anew")
    return Conversion(saved, state.step, epoch, taken, left)


def _steps(assembly: Assembly) -> Steps:
    """Return what the steps of a run are."""
    updates, batches = assembly.parts["updates"], assembly.parts["batches"]
    updater = next(iter(updates.values())) if isinstance(updates, OptimWrapperDict) else updates
    length = getattr(assembly.loop, "epoch_length", None) or (len(batches) if isinstance(batches, Loader) else None)
    return Steps(getattr(updater, "accumulative_counts", 1), length)


def _take(
    assembly: Assembly, state: TrainingState, skip: Collection[str], where: str
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Give the parts of a run what another system says; return what was taken, what not, and the epochs completed."""
    parts, model = assembly.parts, assembly.model
    report = load_weights(model, state.weights, revise_keys=(), where=where)
    converted = [f"{count} converted from {there} to {here}" for there, here, count in report.converted]
    taken = [", ".join([f"model: {len(report.loaded)} tensors", *converted])]
    left = [f"{name}: skipped" for name in skip]
    problems: list[str] = []
    epoch = state.epoch or 0

    def attempt(name: str, action: Callable[[], str | None]) -> None:
        if name in skip:
            return
        try:
            if (told := action()) is not None:
                taken.append(f"{name}: {told}")
        except TreenailError as error:
            problems.append(f"{name}: {error.message}")

    def take_batches() -> str:
        nonlocal epoch
        told, epoch = _position(assembly, state)
        return told

    attempt("batches", take_batches)
    attempt("optimizer", partial(_optimizer, assembly, state, model))
    attempt("schedules", partial(_schedules, assembly, state, lambda: epoch, skip))
    if isinstance(averages := parts.get("averages"), WeightAverages):
        attempt("averages", lambda: f"{_averages(averages, state)} updates")
    elif state.averages is not None:
        left.append("averages: the run has none (averaging: …)")
    attempt("updates", partial(_updates, assembly, state))
    if problems:
        raise CheckpointError(
            "the checkpoint does not fit the run: " + "; ".join(problems),
            where=where,
            mend="change the config, or let a part begin anew with --skip PART",
        )
    batches = assembly.parts["batches"]
    if "batches" not in skip and isinstance(batches, Loader) and 0 < batches.consumed < len(batches):
        left.append(f"order of samples: the epoch goes on after {batches.consumed} batches, in this run's own order")
    return tuple(taken), tuple(left), epoch


def _position(assembly: Assembly, state: TrainingState) -> tuple[str, int]:
    """Let data and loop stand where the other system did."""
    batches, loop = assembly.parts["batches"], assembly.parts["loop"]
    if not isinstance(batches, Loader):
        raise CheckpointError(f"a {type(batches).__name__} has no position to set")
    length = getattr(loop, "epoch_length", None) or len(batches)
    epoch, inside = divmod(state.step, length)
    if inside == 0 and state.epoch == epoch - 1:  # all steps of an epoch were made, and it was not over yet
        epoch, inside = epoch - 1, length
    if state.epoch_length is not None and state.epoch_length != length:
        raise CheckpointError(f"an epoch had {state.epoch_length} steps, one of the run has {length}")
    if state.epoch is not None and state.epoch != epoch:
        raise CheckpointError(
            f"it made {state.step} steps in {state.epoch} epochs, and an epoch of the run has {length} steps"
        )
    if inside and length != len(batches):
        raise CheckpointError(f"it stands after {inside} of {length} steps of an epoch that is no pass over the data")
    passes, consumed = (epoch, inside) if length == len(batches) else divmod(state.step, len(batches))
    batches.set_epoch(passes)
    for _ in range(consumed):
        batches.advance()
    own = loop.state_dict()
    if "pass" in own:  # of a loop whose epochs are no passes, which counts those by itself
        loop.load_state_dict({**own, "pass": passes})
    of = f", each of {state.window} batches" if state.window > 1 else ""
    return f"epoch {epoch}, step {state.step}{of}", epoch


def _optimizer(assembly: Assembly, state: TrainingState, model: nn.Module) -> str:
    optimizer, schedules = assembly.parts["optimizer"], cast("Schedules", assembly.parts["schedules"])
    if not isinstance(optimizer, Optimizer) or len(state.optimizers) != 1:
        count = 1 if isinstance(optimizer, Optimizer) else "several"
        raise CheckpointError(
            f"it has {len(state.optimizers) or 'none'}, the run {count}, and one for one can be taken"
        )
    check_order(state.weights, [name for name, _ in model.named_parameters()])
    scheduled = {name for each in schedules.schedules for name in scheduled_params(each.scheduler)}
    scheduled |= {"lr"} if schedules.schedules else set()
    scheduled |= {"betas"} if "momentum" in scheduled else set()
    take_optimizer(optimizer, state.optimizers[0], scheduled)
    return type(optimizer).__name__


def _schedules(assembly: Assembly, state: TrainingState, epoch: Callable[[], int], skip: Collection[str]) -> str | None:
    schedules = cast("Schedules", assembly.parts["schedules"]).schedules
    if (schedules or state.schedules) and "optimizer" in skip:
        raise CheckpointError("they change an optimizer that begins anew: skip them, too")
    take_schedules(schedules, state, epoch())
    return str(len(schedules)) if schedules else None


def _averages(averages: WeightAverages, state: TrainingState) -> int:
    take_averages(averages, state)
    return averages.updates


def _updates(assembly: Assembly, state: TrainingState) -> str | None:
    updates = assembly.parts["updates"]
    own = updates.state_dict()
    if ("loss_scaler" in own) != (state.loss_scaler is not None):
        has, lacks = ("it", "the run") if state.loss_scaler is not None else ("the run", "it")
        raise CheckpointError(f"{has} has a loss scaler, {lacks} has none")
    if state.loss_scaler is None:
        return None
    updates.load_state_dict({**own, "loss_scaler": state.loss_scaler})
    return "the loss scaler"

"""Builds the components of a run from its config, top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from treenail.adapters.config import Document, recorded
from treenail.adapters.data import Loader
from treenail.adapters.hooks import BoundSchedule, Schedules
from treenail.adapters.loops import EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.sampling import RandomSampler, SequentialSampler
from treenail.adapters.seeding import RngState, seed_process
from treenail.contracts import BatchSampler, Evaluation, Loss, Run, Samples, TrainWork
from treenail.kernel import ConfigError, Loop, Sampler, Stateful, VisBackend, mix


class Assembly(NamedTuple):
    """The built components of a run.

    Args:
        model: On its device.
        device: Where the model is.
        parts: What a checkpoint holds, by name.
        loop: The training loop.
        test: The test loop, if the config has a test.
        vis: Where curves go, by name.
        config: The config as plain data, without secrets.
    """

    model: nn.Module
    device: torch.device
    parts: dict[str, Stateful]
    loop: Loop
    test: EvalLoop | None
    vis: dict[str, VisBackend]
    config: object


def assemble(run: Run, work_dir: Path, document: Document | None = None) -> Assembly:
    """Build a run for training.

    Args:
        run: The config.
        work_dir: Below it each vis backend gets a directory.
        document: The config that the run comes from, if there is one.

    Raises:
        BuildError: A component's constructor raised.
        ConfigError: The device does not exist here, or the parts do not fit each other.
    """
    device = prepare_process(run)
    seed_process(run.seed)
    model = run.model.build().to(device)
    loss = run.loss.build()
    if isinstance(loss, nn.Module):
        loss.to(device)
    trained = nn.ModuleList(
        [model, loss] if isinstance(loss, nn.Module) else [model]
    )  # a loss may have parameters, too
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError("the model has no parameters to train", where=run.model.where)
    optimizer = run.optimizer.build(parameters)
    schedules = Schedules(
        [BoundSchedule(each.scheduler.build(optimizer), each.every, each.metric) for each in run.schedules]
    )
    batches = load(run.train, run.seed, "train", device)
    work = TrainWork(
        step=SupervisedStep(model, loss, optimizer, device),
        batches=batches,
        validation=evaluation(run, run.val, "val", model, loss, device) if run.val else None,
    )
    loop = run.loop.build(work)
    vis = {name: each.build(work_dir / name) for name, each in run.vis.items() if each is not None}
    parts: dict[str, Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "schedules": schedules,
        "batches": batches,
        "loop": loop,
        "rng": RngState(),
    }
    if isinstance(loss, nn.Module):
        parts["loss"] = loss
    test = evaluation(run, run.test, "test", model, loss, device) if run.test else None
    return Assembly(model, device, parts, loop, test, vis, recorded(run, document))


def evaluation(run: Run, data: Evaluation, mode: str, model: nn.Module, loss: Loss, device: torch.device) -> EvalLoop:
    """Build the loop of a validation or test."""
    metrics = [metric.build() for metric in data.metrics]
    batches = load(data, run.seed, mode, device)
    if len(batches) == 0:
        raise ConfigError(
            f"there is no batch to evaluate on ({mode})", where=data.dataset.where, mend="is the dataset empty?"
        )
    return EvalLoop("val" if mode == "val" else "test", model, loss, batches, metrics, device, run.seed)


def load(data: Samples, seed: int, mode: str, device: torch.device) -> Loader:
    """Build dataset, sampler and loader; randomness of the mode follows from the run's seed."""
    dataset = data.dataset.build()
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
    else:
        sampler = RandomSampler(dataset, seed) if mode == "train" else SequentialSampler(dataset)
    whole = data.batch_sampler is not None
    return Loader(
        dataset,
        sampler,
        batch_size=None if whole else data.batch_size,
        num_workers=data.num_workers,
        drop_last=data.drop_last and not whole,
        seed=seed,
        pin_memory=device.type == "cuda",
    )


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

"""The learning rate and the batch size of a whole run, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from torch.optim import Optimizer

from treenail.adapters.data import Loader
from treenail.adapters.files import mounts_of, use_mounts
from treenail.adapters.runtime.assemble import Assembly, assemble, choose_device, load
from treenail.adapters.seeding import shielded_rng
from treenail.adapters.tuning import BatchSizes, LrSweep, find_batch_size, find_lr, fits_in_process, fits_on_device
from treenail.contracts import Run, TrainWork
from treenail.kernel import ConfigError, Engine, Late


def tune_lr(
    run: Run,
    *,
    lowest: Annotated[float, Meta(gt=0)] = 1e-7,
    highest: Annotated[float, Meta(gt=0)] = 10.0,
    steps: Annotated[int, Meta(ge=10)] = 100,
) -> LrSweep:
    """Train a run's model a few steps with a growing learning rate, in this process, and keep nothing of it; see `find_lr`.

    Args:
        run: The config; its schedules are left out. The learning rate found belongs to its batch size.
        lowest: The first learning rate.
        highest: The last one.
        steps: How many.

    Raises:
        ValueError: The learning rates or the steps make no sweep.
        TreenailError: The config is wrong, has several optimizers, or cannot be trained from the lowest learning rate on.
    """
    with _assembled(run) as (assembly, work):
        optimizer = assembly.parts["optimizer"]
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                "there are several optimizers, each with a learning rate of its own",
                where="optimizer",
                mend="use treenail.adapters.tuning.find_lr with the one to tune",
            )
        if not any(group["lr"] for group in optimizer.param_groups):
            raise ConfigError(
                "the learning rate is 0; a sweep keeps the ratio of the groups' rates to the largest",
                where="optimizer.lr",
                mend="choose any positive one",
            )
        return find_lr(work.step, work.batches, optimizer, assembly.parts, lowest=lowest, highest=highest, steps=steps)


def tune_batch_size(
    run: Run,
    *,
    memory_limit: int | None = None,
    first: int = 2,
    most: int | None = None,
    attempt: Callable[[int], object] | None = None,
    context: BaseContext | None = None,
) -> BatchSizes:
    """Find the largest batch of a run that its device can train with, in one process; see `find_batch_size`.

    Batches are the first ones of the run's own data: where samples differ in size, leave a margin. On a GPU the run is built
    anew for each try; on the CPU each try is a process of its own, and `memory_limit` says how much it may take.

    Args:
        run: The config.
        memory_limit: Bytes of main memory, at its peak, of a run on the CPU.
        first: The size to begin with. Smaller ones are tried only where it does not fit: batch normalisation takes no single
            sample.
        most: The largest size of interest; None: the samples of an epoch.
        attempt: What is tried on the CPU instead of `train_two_steps` of the run, where that cannot be pickled.
        context: What starts the processes on the CPU; see `fits_in_process`.

    Raises:
        ConfigError: A size is below 1; the config is wrong, makes batches of a size of its own, or needs a `memory_limit`, or
            none.
        TrainingError: A try failed by something else than memory.
    """
    if first < 1 or (most is not None and most < 1):
        raise ConfigError(f"{first=} and {most=}: a batch has at least one sample", mend="choose sizes of at least 1")
    if run.train.batch_sampler is not None:
        raise ConfigError(
            "the batch sampler decides how large batches are", where="train.batch_sampler", mend="set its own limits"
        )
    device = choose_device(run.device)
    if device.type == "cpu" and memory_limit is None:
        raise ConfigError("on the CPU nothing says how much memory there is", mend="give a memory limit")
    if device.type != "cpu" and memory_limit is not None:
        raise ConfigError(f"{device} has a memory of its own", mend="leave the memory limit out")
    with use_mounts(mounts_of(run.files)), shielded_rng():
        samples = len(load(msgspec.structs.replace(run.train, batch_size=1, num_workers=0), run.seed, "train", device))
    if samples == 0:
        raise ConfigError("there is no sample to train on", where=run.train.dataset.where, mend="is the dataset empty?")
    attempt = attempt or partial(train_two_steps, run)
    fits = fits_on_device(attempt) if memory_limit is None else fits_in_process(attempt, memory_limit, context)
    most = samples if most is None else min(samples, most)
    return find_batch_size(fits, first=min(first, most), most=most)


def train_two_steps(run: Run, batch_size: int) -> None:
    """Build a run and train it with one batch twice: the optimizer has its states from the second step on.

    Args:
        run: The config.
        batch_size: In the place of the config's.

    Raises:
        torch.OutOfMemoryError: They do not fit.
    """
    data = msgspec.structs.replace(run.train, batch_size=batch_size, num_workers=0, drop_last=False)
    with _assembled(msgspec.structs.replace(run, train=data)) as (_, work):
        batch = next(iter(work.batches))
        for _ in range(2):
            work.step(batch)


class _KeepsWork:
    """A loop that runs nothing: it shows what it would work on."""

    def __init__(self, work: TrainWork) -> None:
        self.work = work

    def run(self, engine: Engine) -> None:
        raise AssertionError("this loop is not for running")

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


@contextmanager
def _assembled(run: Run) -> Iterator[tuple[Assembly, TrainWork]]:
    """Build what trains a run, without what belongs to a whole training, and leave the generators as they were."""
    only = msgspec.structs.replace(
        run, loop=Late(_KeepsWork, awaited=1), schedules=(), scale_lr=None, averaging=None, val=None, test=None, vis={}
    )
    with use_mounts(mounts_of(run.files)), shielded_rng(devices=True):
        assembly = assemble(only, Path())
        if not isinstance(assembly.loop, _KeepsWork):
            raise AssertionError("it was made of this class")
        work = assembly.loop.work
        try:
            yield assembly, work
        finally:
            if isinstance(work.batches, Loader):
                work.batches.close()

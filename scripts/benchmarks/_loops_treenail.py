"""Treenail in the benchmark `loops`: without hooks, with the default hooks, and with each of them alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console
from scripts.benchmarks._loops_work import Contestant, StampedBatches, make_model, make_optimizer, mse, weights_of
from torch import Tensor

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.data import Batches
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import (
    CheckpointHook,
    LoggerHook,
    ProgressHook,
    ScheduleHook,
    Schedules,
    TimerHook,
    VisHook,
)
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.vis import JsonLines
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Engine, Hook, Stateful


def _progress(_: Path) -> Hook:
    # The bar must be on: a console that is no terminal would switch it off.
    return ProgressHook(console=Console(file=Path(os.devnull).open("w", encoding="utf-8"), force_terminal=True))


DEFAULT_HOOKS: dict[str, Callable[[Path], Hook]] = {
    "timer": lambda _: TimerHook(),
    "logger": lambda directory: LoggerHook(log_file=directory / "log.jsonl"),
    "progress": _progress,
    "schedule": lambda _: ScheduleHook(),
    "checkpoint": lambda _: CheckpointHook(),
    "vis": lambda directory: VisHook([JsonLines(directory / "vis")], run="bench"),
}


def _train(names: Iterable[str], *, work: bool = True) -> Callable[[StampedBatches, Path], Tensor]:
    def train(batches: StampedBatches, directory: Path) -> Tensor:
        model = make_model()
        optimizer = make_optimizer(model)
        source = Batches(batches)
        step = SupervisedStep(model, mse, optimizer) if work else idle
        loop = EpochLoop(TrainWork(step, source), max_epochs=1)
        parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "schedules": Schedules()}
        parts |= {"batches": source, "loop": loop}
        engine = Engine(parts, checkpointer=CheckpointStore(LocalFiles(directory / "checkpoints"), keep_last=3))
        for name in names:
            engine.attach(DEFAULT_HOOKS[name](directory), name)
        engine.run(loop)
        return weights_of(model)

    return train


def treenail() -> list[Contestant]:
    """Return treenail with its default hooks, and with none."""
    on = (
        "step timer, log line every 10 steps (console and JSON file), progress bar drawn twice a second, schedules (none "
        "given), curves as JSON lines, two checkpoints with fsync (end of epoch, end of training)"
    )
    return [
        Contestant("treenail, default hooks", _train(DEFAULT_HOOKS), on),
        Contestant("treenail, no hooks", _train(()), "nothing"),
    ]


_IDLE = StepOutput(torch.tensor(0.5), 32)


def idle(_: object) -> StepOutput:
    """Do nothing, in place of a training step."""
    return _IDLE


def idle_loop(batches: StampedBatches, _: Path) -> Tensor:
    """Call `idle` for every batch."""
    for batch in batches:
        idle(batch)
    return weights_of(make_model())


def treenail_by_hook() -> list[Contestant]:
    """Return treenail around a step that does nothing: with all default hooks, with none, with each, without each."""
    cases: dict[str, list[str]] = {"default hooks": list(DEFAULT_HOOKS), "no hooks": []}
    cases |= {f"only {name}": [name] for name in DEFAULT_HOOKS}
    cases |= {f"all but {name}": [other for other in DEFAULT_HOOKS if other != name] for name in DEFAULT_HOOKS}
    return [Contestant(name, _train(hooks, work=False), ", ".join(hooks) or "nothing") for name, hooks in cases.items()]

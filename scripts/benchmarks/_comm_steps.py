"""The benchmark `comm`: what training on many ranks costs a step, beside a bare loop around torch's DDP."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from treenail.adapters.checkpoint import CheckpointStore, RankCheckpointer
from treenail.adapters.data import Batches
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import (
    CheckpointHook,
    LoggerHook,
    ProgressHook,
    ScheduleHook,
    Schedules,
    StragglerHook,
    TimerHook,
    VisHook,
)
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.parallel import bare, data_parallel
from treenail.adapters.runtime import StopVote
from treenail.adapters.vis import JsonLines
from treenail.contracts import TrainWork
from treenail.kernel import Communicator, Engine, Hook, Stateful

BATCH = 32
WIDTH = 768
LAYERS = 5
CLASSES = 10


class StepTimes(NamedTuple):
    """Seconds of a step, block by block, those of the rank that took longest.

    Args:
        bare: Of the bare loop.
        again: Of a second one, which shows the noise.
        own: Of ours.
        parameters: Of the model.
    """

    bare: list[float]
    again: list[float]
    own: list[float]
    parameters: int


class BareLoop(NamedTuple):
    """What a step takes without a framework, and the seconds that blocks of its steps took."""

    model: nn.Module
    optimizer: Optimizer
    seconds: list[float]

    def train(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Take a turn; all ranks begin together."""
        dist.barrier()
        start = perf_counter()
        for inputs, targets in batches:
            self.optimizer.zero_grad()
            cross_entropy(self.model(inputs), targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it so
            self.optimizer.step()
        self.seconds.append(perf_counter() - start)


class Turns(Batches):
    """Batches in memory; before each block of them the bare loops train on the same ones, in changing order.

    What ours does by the clock (a bar, a vote on whether to stop) is due again when its turn comes, so that there is a
    little more of it here than in a run by itself.

    Args:
        batches: The batches.
        others: The bare loops.
        block: Batches of a turn.
    """

    def __init__(self, batches: list[tuple[Tensor, Tensor]], others: list[BareLoop], block: int) -> None:
        super().__init__(batches)
        self._turns = batches
        self._block = block
        self._others = others
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[object]:
        """Yield batches; what passes until the one after a block is asked for is a turn of ours, with all that a loop does."""
        for start in range(0, len(self._turns), self._block):
            block = self._turns[start : start + self._block]
            for other in self._others if start // self._block % 2 else reversed(self._others):
                other.train(block)
            dist.barrier()
            began = perf_counter()
            yield from block
            self.seconds.append(perf_counter() - began)


def race_steps(communicator: Communicator, blocks: int, block: int) -> StepTimes:
    """Train the same model on the same batches by ours and by two bare loops, in turns.

    Args:
        communicator: The ranks.
        blocks: Turns of each that are counted; one more comes first.
        block: Steps of a turn. Of fifty, rare work is a part: a log line of every ten steps, a report of every fifty.

    Raises:
        AssertionError: Weights differ in the end, and so did the work.
    """
    models = [_make_model() for _ in range(3)]
    *firsts, optimizer = [SGD(model.parameters(), lr=0.01, momentum=0.9) for model in models]
    # The buckets are views here, too, as data_parallel makes them.
    others = [
        BareLoop(DistributedDataParallel(model, gradient_as_bucket_view=True), each, [])
        for model, each in zip(models, firsts, strict=False)
    ]
    called = data_parallel(models[-1])
    turns = Turns(_batches(communicator.rank, block * (blocks + 1)), others, block)
    share = (BATCH, BATCH * communicator.world_size)
    step = SupervisedStep(called, cross_entropy, optimizer, torch.device("cpu"), lambda: share, communicator)
    loop = EpochLoop(TrainWork(step, turns), max_epochs=1)
    parts: dict[str, Stateful] = {"model": bare(called), "optimizer": optimizer, "schedules": Schedules()}
    parts |= {"batches": turns, "loop": loop}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treenail-bench-")))
        nothing = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        store = CheckpointStore(LocalFiles(directory / "checkpoints"), world_size=communicator.world_size)
        engine = Engine(parts, checkpointer=RankCheckpointer(store, communicator), agree=StopVote(communicator))
        hooks: dict[str, Hook] = {
            "timer": TimerHook(),
            "logger": LoggerHook(
                terminal=terminal_logger(nothing),
                log_file=directory / "log.jsonl" if communicator.rank == 0 else None,
                communicator=communicator,
            ),
            "schedule": ScheduleHook(),
            "checkpoint": CheckpointHook(),
            "stragglers": StragglerHook(communicator=communicator, terminal=terminal_logger(nothing)),
        }
        if communicator.rank == 0:
            # The bar must be on: a console that is no terminal would switch it off.
            hooks["progress"] = ProgressHook(console=Console(file=nothing, force_terminal=True))
            hooks["vis"] = VisHook([JsonLines(directory / "vis")], run="bench")
        for name, hook in hooks.items():
            engine.attach(hook, name)
        engine.run(loop)
    for model in models[:-1]:
        for mine, theirs in zip(models[-1].parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    parameters = sum(parameter.numel() for parameter in models[0].parameters())
    first, again = (_steps(each.seconds, block) for each in others)
    return StepTimes(first, again, _steps(turns.seconds, block), parameters)


def _make_model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(LAYERS)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def _batches(rank: int, count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(rank)
    made = [
        (torch.randn(BATCH, WIDTH, generator=generator), torch.randint(CLASSES, (BATCH,), generator=generator))
        for _ in range(20)
    ]
    return [made[place % len(made)] for place in range(count)]


def _steps(own: list[float], block: int) -> list[float]:
    """Return the seconds of a step in each block but the first, on the slowest rank."""
    every: list[list[float]] = [[]] * dist.get_world_size()
    dist.all_gather_object(every, own)
    return [max(ranks) / block for ranks in zip(*every, strict=True)][1:]

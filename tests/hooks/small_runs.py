"""A run of a few steps, what hooks are given in it, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch
from structlog.typing import FilteringBoundLogger
from torch import Tensor, nn

from treenail.adapters.data import Batches
from treenail.adapters.hooks import CheckpointHook, ScheduleHook
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapper, SupervisedStep
from treenail.contracts import Data, Evaluation, Loss, Run, TrainWork
from treenail.kernel import Engine, Hook, Record, Spec, Stateful, late, spec


class Points:
    """Sixteen points and what a layer shall make of them."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return point, point.sum().reshape(1)


def small_run(epochs: int = 2, **hooks: Spec[Hook] | None) -> Run:
    """Return a run of four steps an epoch, with a validation after each."""
    return Run(
        seed=1,
        device="cpu",
        threads=1,
        model=spec(nn.Linear)(4, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.01),
        train=Data(dataset=spec(Points)(), batch_size=4),
        val=Evaluation(dataset=spec(Points)(), batch_size=8),
        loop=late(EpochLoop)(max_epochs=epochs),
        hooks={"progress": None, **hooks},
    )


class Said(NamedTuple):
    """A logger for people, and what it wrote."""

    terminal: FilteringBoundLogger
    stream: StringIO

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def listening() -> Said:
    stream = StringIO()
    return Said(terminal_logger(stream), stream)


class Saves:
    """A checkpointer that keeps what it is given."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, str]] = []

    def save(self, checkpoint: object, *, step: int, epoch: int, reason: str, pointers: object) -> str:
        self.saved.append((step, reason))
        return "memory"


class Training(NamedTuple):
    """An engine, what it runs, and what it published."""

    engine: Engine
    loop: EpochLoop
    model: nn.Module
    optimizer: torch.optim.Optimizer
    saves: Saves
    records: list[Record]

    def run(self) -> None:
        self.engine.run(self.loop)

    def published(self, name: str) -> list[float]:
        """Return the values of a name, in their order."""
        return [record.values[name] for record in self.records if name in record.values]


def training(
    *hooks: Hook,
    model: nn.Module | None = None,
    batches: Sequence[object] | None = None,
    epochs: int = 1,
    make: Callable[[torch.optim.Optimizer], OptimWrapper] = OptimWrapper,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
) -> Training:
    """Put a training together as a program of one's own does."""
    torch.manual_seed(0)
    model = model or nn.Linear(4, 1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    updater = make(optimizer)
    if batches is None:
        batches = [[torch.randn(4, 4), torch.randn(4, 1)] for _ in range(4)]
    source = Batches(batches)
    loop = EpochLoop(TrainWork(SupervisedStep(model, loss or nn.MSELoss(), updater), source), max_epochs=epochs)
    saves = Saves()
    parts: dict[str, Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "updates": updater,
        "batches": source,
        "loop": loop,
    }
    engine = Engine(parts, checkpointer=saves)
    for hook in (ScheduleHook(), CheckpointHook(), *hooks):
        engine.attach(hook)
    records: list[Record] = []
    engine.subscribe(records.append)
    return Training(engine, loop, model, optimizer, saves, records)


def reason_of(work_dir: Path) -> str:
    """Return why the last checkpoint of a run was saved."""
    import json

    latest = (work_dir / "checkpoints" / "latest").read_text()
    reason: str = json.loads((work_dir / "checkpoints" / latest / "manifest.json").read_text())["reason"]
    return reason

"""Attempts that take a known amount of memory, for new processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import train_two_steps
from treenail.adapters.tuning import peak_memory
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

MEGABYTE = 2**20


def hold(size: int) -> None:
    """Hold so many megabytes above what the process has."""
    torch.ones(size * MEGABYTE, dtype=torch.uint8)


def idle(size: int) -> None:
    """Hold nothing."""


def too_much(size: int) -> None:
    """Ask for more memory than any machine has."""
    torch.ones(2**55)


def killed(size: int) -> None:
    """End as the system ends processes when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def ended(size: int) -> None:
    """End without a word."""
    sys.exit(7)


def wrong(size: int) -> None:
    """Fail by something that is no lack of memory."""
    raise ArithmeticError(f"{size} of {peak_memory()}")


def tell_peak(attempt: Callable[[int], None], answer: Connection) -> None:
    """Send how much memory this process took at its peak for an attempt."""
    attempt(0)
    answer.send(peak_memory())


class Points:
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(3), torch.ones(1)


class Hungry(nn.Module):
    """Runs out of a GPU's memory with batches above 20, and takes as much of the CPU's as a sample of 64 MiB each."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.limit = limit

    def forward(self, inputs: Tensor) -> Tensor:
        if self.limit is not None and len(inputs) > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        held = torch.ones(len(inputs) * 64 * MEGABYTE, dtype=torch.uint8)
        outputs: Tensor = self.layer(inputs) + held[0]
        return outputs


class Normalised(nn.Module):
    """Normalises batches, which a single sample is too few for."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


def run(model: object = None, **data: object) -> Run:
    return Run(
        model=model or spec(Hungry)(),  # type: ignore[arg-type]  # a spec, where a test gives one
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.Adam)(lr=1e-3),
        train=Data(dataset=spec(Points)(), batch_size=4, **data),  # type: ignore[arg-type]  # of tests
        loop=late(EpochLoop)(max_epochs=1),
        device="cpu",
    )


def train_one(size: int) -> None:
    """Train with batches of one sample."""
    train_two_steps(run(), 1)


def train_normalised(size: int) -> None:
    """Train a model that takes no single sample."""
    train_two_steps(run(spec(Normalised)()), size)

"""The work that every contestant of the benchmark `loops` does, and how one run of it is timed."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple, TypeAlias, overload

import torch
from torch import Tensor, nn

Batch: TypeAlias = tuple[Tensor, Tensor]

LEARNING_RATE = 1e-3
BLOCK = 50  # iterations; what happens every 10 or 50 iterations happens equally often in each block
mse = nn.functional.mse_loss


def make_batches(iterations: int, distinct: int = 1000, size: int = 32) -> list[Batch]:
    """Make the batches of a run: float32[size, 8] and float32[size, 1], `distinct` ones over and over."""
    generator = torch.Generator().manual_seed(0)
    few = [
        (torch.randn(size, 8, generator=generator), torch.randn(size, 1, generator=generator))
        for _ in range(min(distinct, iterations))
    ]
    return [few[index % len(few)] for index in range(iterations)]


def make_model() -> nn.Linear:
    """Make the model; its weights are the same every time."""
    torch.manual_seed(0)
    return nn.Linear(8, 1)


def make_optimizer(model: nn.Module) -> torch.optim.SGD:
    """Make the optimizer."""
    return torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)


def weights_of(model: nn.Module) -> Tensor:
    """Return a copy of all weights, as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


class StampedBatches(Sequence[Batch]):
    """The batches of a run; notes when each block of 50 was asked for, until the last batch.

    Args:
        batches: A multiple of `BLOCK`.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self.dataset = batches  # mmengine looks at its loader's dataset
        self._stamps: list[float] = []

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        return self.dataset[index]

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.dataset)
        yield from islice(batches, BLOCK - 1)  # the first block lacks one, so that the last stamp is the last batch's
        for _ in range(len(self.dataset) // BLOCK - 1):
            self._stamps.append(perf_counter())
            yield from islice(batches, BLOCK)
        self._stamps.append(perf_counter())
        yield from batches

    def iteration(self) -> float:
        """Return the seconds of an iteration, the first block's not counted."""
        return (self._stamps[-1] - self._stamps[0]) / (len(self._stamps) - 1) / BLOCK

    def fastest(self) -> float:
        """Return the seconds of an iteration in the fastest block."""
        return min(later - earlier for earlier, later in pairwise(self._stamps)) / BLOCK


class Contestant(NamedTuple):
    """Something that trains.

    Args:
        name: For the table.
        train: Takes the batches and an empty directory, makes the model and trains it; returns its weights.
        has_on: What was switched on, for the notes below the table.
    """

    name: str
    train: Callable[[StampedBatches, Path], Tensor]
    has_on: str


class Outcome(NamedTuple):
    """One run.

    Args:
        iteration: Seconds of an iteration, all but the first block's.
        fastest: Seconds of an iteration in the fastest block.
        whole: Seconds of everything, from making the model to the end of training.
        weights: What was learnt.
    """

    iteration: float
    fastest: float
    whole: float
    weights: Tensor


def time_run(contestant: Contestant, batches: list[Batch]) -> Outcome:
    """Train once."""
    torch.set_num_threads(1)  # again for every run: a framework may have changed it
    stamped = StampedBatches(batches)
    with TemporaryDirectory() as directory, ExitStack() as silence:
        terminal = silence.enter_context(_SilentTerminal())
        silence.enter_context(redirect_stdout(terminal))
        silence.enter_context(redirect_stderr(terminal))
        silence.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        begin = perf_counter()
        weights = contestant.train(stamped, Path(directory))
        whole = perf_counter() - begin
    return Outcome(stamped.iteration(), stamped.fastest(), whole, weights)


class _SilentTerminal(io.TextIOWrapper):
    """Throws away what is written, yet says that it is a terminal: bars and log lines are made and paid for."""

    def __init__(self) -> None:
        super().__init__(io.BufferedWriter(io.FileIO(os.devnull, "w")), encoding="utf-8", line_buffering=True)

    def isatty(self) -> bool:
        return True

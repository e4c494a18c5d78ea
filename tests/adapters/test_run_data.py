"""Runs whose data give nothing, or less than they say: what is said, by whom, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from treenail.adapters.loops import EpochLoop, StepLoop
from treenail.adapters.runtime import train
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import ConfigError, TrainingError, late, spec


class Points:
    """Says it has `count` samples, and has `there`."""

    def __init__(self, count: int, there: int) -> None:
        self.count, self.there = count, there

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= self.there:
            raise StopIteration
        return torch.full((3,), float(index)), torch.ones(1)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Can only be iterated."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (Points(4, 4)[index] for index in range(4))


STREAM: Any = spec(Stream)()  # Any: it is no dataset, which types would tell
EPOCHS = late(EpochLoop)(max_epochs=2)
LONG_EPOCHS = late(EpochLoop)(max_epochs=2, epoch_length=3)
STEPS = late(StepLoop)(max_steps=5)
GOOD = Data(dataset=spec(Points)(4, 4), batch_size=2)


def run(data: Data = GOOD, loop: Any = EPOCHS, val: Evaluation | None = None) -> Run:
    return Run(
        model=spec(nn.Linear)(3, 1),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=1e-3),
        train=data,
        val=val,
        loop=loop,
        hooks={"progress": None},
        device="cpu",
        threads=1,
    )


@pytest.mark.parametrize("loop", [EPOCHS, LONG_EPOCHS, STEPS])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(dataset=spec(Points)(0, 0), batch_size=2), "there is no batch to train on; is the dataset empty"),
        (Data(dataset=spec(Points)(3, 3), batch_size=4, drop_last=True), "with drop_last, smaller than a batch"),
        (Data(dataset=spec(Points)(8, 0), batch_size=2), "ended after 0 of 4 batches; does the dataset raise"),
        (Data(dataset=spec(Points)(8, 0), batch_size=2, num_workers=1), "ended after 0 of 4 batches; does the"),
    ],
    ids=["empty", "smaller than a batch", "ends at once", "ends at once in a worker"],
)
def test_training_data_that_give_no_batch_are_an_error_that_says_why(
    tmp_path: Path, data: Data, message: str, loop: Any
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(run(data, loop), tmp_path)
    assert not (tmp_path / "checkpoints" / "latest").exists()


def test_an_epoch_longer_than_a_pass_goes_through_the_data_again(tmp_path: Path) -> None:
    assert train(run(loop=LONG_EPOCHS), tmp_path).step == 6


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (Evaluation(dataset=spec(Points)(0, 0), batch_size=2), r"there is no batch to evaluate on \(val\)"),
        (Evaluation(dataset=spec(Points)(3, 3), batch_size=4, drop_last=True), r"no batch to evaluate on \(val\)"),
        (Evaluation(dataset=STREAM, batch_size=4), "a Stream has no length"),
    ],
)
def test_evaluation_data_without_a_batch_are_refused_before_training(
    tmp_path: Path, val: Evaluation, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(run(val=val), tmp_path)


def test_evaluation_data_that_end_early_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="the val data ended after 1 of 4 batches; is the dataset empty, does it raise"
    ):
        train(run(val=Evaluation(dataset=spec(Points)(8, 2), batch_size=2)), tmp_path)


def test_data_without_a_length_are_refused_with_what_takes_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a Stream has no length, so that no sampler can number .* StreamedBatches"):
        train(run(Data(dataset=STREAM, batch_size=2)), tmp_path)

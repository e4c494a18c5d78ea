"""A run that many ranks share; each rank writes down which samples it consumed.

What shall go wrong, on which rank and when, the environment says: RUN_TROUBLE="slow 0 0, kill 1 9" kills rank 1 after
step 9, when rank 0 was slow from the beginning.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from treenail.adapters.comm import get_dist_info
from treenail.adapters.data import Loader
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import CheckpointHook, LoggerHook
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import Engine, Hook, late, spec

SAMPLES = 62  # 8 batches of 8; the last one of 6 leaves ranks without a sample, or with less than the others
BATCH = 8
EPOCHS = 3
EPOCH = -(-SAMPLES // BATCH)
STEPS = EPOCHS * EPOCH


class NumberedPoints:
    """Points of two classes; the first of their numbers is the sample's index."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(size)
        self.points = torch.randn(size, 6, generator=generator)
        self.labels = (self.points.sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.cat([torch.tensor([float(index)]), self.points[index]]), self.labels[index]


class Network(nn.Module):
    """Two layers, and dropout and batch normalisation where asked for."""

    def __init__(self, noise: bool) -> None:
        super().__init__()
        noisy: list[nn.Module] = [nn.BatchNorm1d(16), nn.Dropout(0.3)] if noise else []
        self.layers = nn.Sequential(nn.Linear(6, 16), *noisy, nn.Tanh(), nn.Linear(16, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs[:, 1:])
        return outputs


class Recorder(Hook):
    """Appends the indices that this rank consumed in each step to a file of its own."""

    priority = 95

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        assert isinstance(batch, list)
        rank, _ = get_dist_info()
        batches = engine.part("batches", Loader)
        mine = len(batch[0]) if batches.share is None else batches.share[0]
        line = {"epoch": engine.epoch, "step": engine.step, "indices": batch[0][:mine, 0].int().tolist()}
        with (self.directory / f"drawn-{engine.attempt}-{rank}.jsonl").open("a") as file:
            print(json.dumps(line), file=file)


class TroubleHook(Hook):
    """Does something to one rank after a step of the first attempt."""

    priority = 96

    def __init__(self, what: str, rank: int, step: int) -> None:
        self.what = what
        self.rank = rank
        self.step = step

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        if self.what == "slow" and get_dist_info()[0] == self.rank:
            time.sleep(0.03)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if get_dist_info()[0] != self.rank or engine.step != self.step or engine.attempt > 1:
            return
        if self.what == "stop":
            engine.request_stop("enough")
        elif self.what == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.what == "kill" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "raise":
            raise ArithmeticError("the sum is wrong")
        elif self.what == "exit":
            sys.exit(3)


def drawn(directory: Path, attempt: int) -> dict[int, list[list[int]]]:
    """Return the indices of each step of an attempt, rank by rank."""
    steps: dict[int, list[list[int]]] = {}
    for path in sorted(directory.glob(f"drawn-{attempt}-*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            steps.setdefault(line["step"], []).append(line["indices"])
    return steps


def batch_of(shares: list[list[int]]) -> list[int]:
    """Return a batch in its order, from the shares of the ranks."""
    return [share[place] for place in range(len(shares[0])) for share in shares if place < len(share)]


troubles = [each.split() for each in os.environ.get("RUN_TROUBLE", "").split(",") if each]
noise = os.environ.get("RUN_NOISE", "") == "1"

run = Run(
    seed=7,
    device="cpu",
    threads=1,
    model=spec(Network)(noise=noise),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(torch.optim.SGD)(lr=0.1, momentum=0.9),
    train=Data(dataset=spec(NumberedPoints)(SAMPLES), batch_size=BATCH),
    val=Evaluation(dataset=spec(NumberedPoints)(11), batch_size=4, metrics=(spec(Accuracy)(),)),
    loop=late(EpochLoop)(max_epochs=EPOCHS),
    hooks={
        "logger": spec(LoggerHook)(interval=3, least_seconds=0.0),
        "checkpoint": spec(CheckpointHook)(interval=3, by="step"),
        "recorder": spec(Recorder)(os.environ.get("RUN_RECORDS", ".")),
        **{what: spec(TroubleHook)(what, int(rank), int(step)) for what, rank, step in troubles},
    },
)

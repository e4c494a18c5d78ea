"""What the campaign trains: everything random takes part, and a checkpoint takes as long to write as several steps to make."""

import os
import time

import torch
from torch import Tensor, nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BestHook, CheckpointHook, LoggerHook
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Checkpoints, Data, Evaluation, Run, Schedule
from treenail.kernel import late, spec

EPOCHS, SAMPLES, BATCH = 5, 96, 8
INTERVAL = 10
STEPS = EPOCHS * SAMPLES // BATCH


class NoisyPoints:
    """Points of two classes with fresh noise at each draw, slow enough that a disturbance meets the training somewhere."""

    def __init__(self, size: int, pause: float = 0.0) -> None:
        self.points = torch.randn(size, 32, generator=torch.Generator().manual_seed(size))
        self.pause = pause

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.pause)
        point = self.points[index]
        return point + 0.1 * torch.rand(32), (point.sum() > 0).long()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Dropout(0.3), nn.Linear(2048, 2))


run = Run(
    seed=11,
    device="cpu",
    threads=1,
    model=spec(network)(),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(torch.optim.AdamW)(lr=1e-3),
    averaging=late(exponential_average)(momentum=0.1),
    schedules=(
        Schedule(scheduler=late(torch.optim.lr_scheduler.OneCycleLR)(max_lr=0.01, total_steps=STEPS), every="step"),
    ),
    train=Data(
        dataset=spec(NoisyPoints)(SAMPLES, float(os.environ.get("RUN_PAUSE", "5e-4"))),
        batch_size=BATCH,
        num_workers=int(os.environ.get("RUN_WORKERS", "0")),
    ),
    val=Evaluation(dataset=spec(NoisyPoints)(16), batch_size=8, metrics=(spec(Accuracy)(),)),
    loop=late(EpochLoop)(max_epochs=EPOCHS),
    hooks={
        "logger": spec(LoggerHook)(interval=1),
        "checkpoint": spec(CheckpointHook)(interval=INTERVAL, by="step"),
        "best": spec(BestHook)(metric="val/loss", mode="min"),
        "progress": None,
    },
    checkpoints=Checkpoints(keep_last=3),
)

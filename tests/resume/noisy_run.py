"""A run in which everything random takes part: dropout, batch norm, augmentation by torch, random and numpy.

Where and when it kills itself, and how it loads and saves, the environment says.
"""

import os
import random
import signal

import numpy as np
import torch
from torch import Tensor, nn

from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BestHook, CheckpointHook, LoggerHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import BucketBatchSampler, ClassBalancedSampler
from treenail.contracts import Data, Evaluation, Run, Schedule
from treenail.kernel import Engine, Hook, late, spec

EPOCHS = 3
SAMPLES = 37  # 8 batches of 5, the last one of 2
BATCH = 5


class NoisyPoints:
    """Points of two classes, each draw with fresh noise from three generators."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(size)
        self.points = torch.randn(size, 6, generator=generator)
        self.labels = (self.points.sum(1) > 0).long()
        self.lengths = self.points[:, 0]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(6) + random.random() + float(np.random.random())
        point = self.points[index]
        return point + 0.1 * noise, self.labels[index]


class KillHook(Hook):
    """Ends the process by SIGKILL at a point of a step; the state of the model is then long past the checkpoint's."""

    priority = 89

    def __init__(self, step: int, point: str) -> None:
        self.step = step
        self.point = point

    def _strike(self, engine: Engine, point: str) -> None:
        if point == self.point and engine.step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        self._strike(engine, "before_train_iter")

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._strike(engine, "after_train_iter")

    def after_train_epoch(self, engine: Engine) -> None:
        self._strike(engine, "after_train_epoch")

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._strike(engine, "after_val_iter")

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self._strike(engine, "after_val_epoch")

    def before_save_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        self._strike(engine, "before_save_checkpoint")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))


workers = int(os.environ["RUN_WORKERS"])
interval, by = os.environ["RUN_CHECKPOINTS"].split()
kill = os.environ.get("RUN_KILL", "").split()
sampler = os.environ.get("RUN_SAMPLER", "random")

run = Run(
    seed=7,
    device="cpu",
    model=spec(network)(),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(torch.optim.AdamW)(lr=1e-2),
    schedules=(
        Schedule(scheduler=late(torch.optim.lr_scheduler.OneCycleLR)(max_lr=0.02, total_steps=24), every="step"),
        Schedule(scheduler=late(torch.optim.lr_scheduler.StepLR)(step_size=1, gamma=0.9)),
        Schedule(scheduler=late(torch.optim.lr_scheduler.ReduceLROnPlateau)(patience=0), metric="val/loss"),
    ),
    train=Data(
        dataset=spec(NoisyPoints)(SAMPLES),
        batch_size=BATCH,
        num_workers=workers,
        sampler=late(ClassBalancedSampler)("labels") if sampler == "class_balanced" else None,
        batch_sampler=late(BucketBatchSampler)("lengths", num_buckets=2) if sampler == "bucket" else None,
    ),
    val=Evaluation(dataset=spec(NoisyPoints)(11), batch_size=4, metrics=(spec(Accuracy)(),)),
    loop=late(EpochLoop)(max_epochs=EPOCHS),
    hooks={
        "logger": spec(LoggerHook)(interval=3),
        "checkpoint": spec(CheckpointHook)(interval=int(interval), by="step" if by == "step" else "epoch"),
        "best": spec(BestHook)(metric="val/loss", mode="min"),
        **({"kill": spec(KillHook)(step=int(kill[0]), point=kill[1])} if kill else {}),
    },
)

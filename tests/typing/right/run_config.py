"""A whole run as a config in Python: every slot is checked where it is written."""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  # as torch's own documentation writes it
from torch import nn, optim
from torch.optim.lr_scheduler import LinearLR, OneCycleLR, ReduceLROnPlateau

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BestHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.vis import JsonLines
from treenail.contracts import Checkpoints, Data, Evaluation, Run, Schedule
from treenail.kernel import Late, late, partial, spec


def perceptron(width: int, *, depth: int = 1, dropout: float = 0.0) -> nn.Sequential:
    """Nested composition is an ordinary function."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width)]
    for _ in range(depth):
        layers += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


run = Run(
    model=spec(perceptron)(width=32, depth=2),
    loss=partial(F.cross_entropy)(label_smoothing=0.1),
    optimizer=late(optim.AdamW)(lr=1e-3, weight_decay=0.05),
    train=Data(
        dataset=spec(Digits)("train"), batch_size=64, sampler=late(RandomSampler)(seed=3), num_workers=2, drop_last=True
    ),
    loop=late(EpochLoop)(max_epochs=3, val_interval=1),
    val=Evaluation(dataset=spec(Digits)(split="val"), batch_size=256, metrics=(spec(Accuracy)(), spec(Accuracy)(5))),
    schedules=(
        Schedule(scheduler=late(OneCycleLR)(max_lr=1e-2, total_steps=60), every="step"),
        Schedule(scheduler=late(ReduceLROnPlateau)(factor=0.5), metric="val/loss"),
        Schedule(scheduler=late(LinearLR)(start_factor=0.1)),
    ),
    hooks={"best": spec(BestHook)("val/accuracy"), "progress": None},
    vis={"files": late(JsonLines)()},
    checkpoints=Checkpoints(keep_last=None),
    seed=7,
    device="cpu",
)
shorter = Run(
    model=spec(nn.Linear)(64, 10, bias=False),
    loss=spec(nn.CrossEntropyLoss)(label_smoothing=0.1),
    optimizer=late(optim.SGD)(0.1, momentum=0.9, nesterov=True),
    train=Data(dataset=spec(Digits)("train"), batch_size=64),
    loop=late(EpochLoop)(max_epochs=1),
)

model = run.model.build()
assert isinstance(run.optimizer, Late)
optimizer = run.optimizer.build(model.parameters())
schedules = [schedule.scheduler.build(optimizer) for schedule in run.schedules]
place = run.vis["files"]
assert place is not None
place.build(Path("curves")).close()
assert run.loss is not None
loss = run.loss.build()(model(torch.zeros(2, 64)), torch.zeros(2, dtype=torch.int64))
assert isinstance(loss, torch.Tensor)

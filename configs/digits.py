"""The run of digits.yaml as typed Python: mypy checks every argument and every slot."""

from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BestHook, CheckpointHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.vis import JsonLines, TensorBoard
from treenail.contracts import Data, Evaluation, Run, Schedule
from treenail.kernel import late, partial, spec

EPOCHS = 15
STEPS_PER_EPOCH = 20


def network(width: int = 32, dropout: float = 0.25) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width * 4 * 4, 10),
    )


run = Run(
    seed=0,
    threads=1,
    model=spec(network)(width=32),
    loss=partial(cross_entropy)(label_smoothing=0.05),
    optimizer=late(AdamW)(lr=2e-3, weight_decay=0.01),
    schedules=(Schedule(scheduler=late(CosineAnnealingLR)(T_max=EPOCHS * STEPS_PER_EPOCH), every="step"),),
    train=Data(dataset=spec(Digits)(split="train"), sampler=late(RandomSampler)(), batch_size=64),
    val=Evaluation(dataset=spec(Digits)(split="val"), batch_size=256, metrics=(spec(Accuracy)(),)),
    test=Evaluation(dataset=spec(Digits)(split="test"), batch_size=256, metrics=(spec(Accuracy)(),)),
    loop=late(EpochLoop)(max_epochs=EPOCHS),
    hooks={
        "checkpoint": spec(CheckpointHook)(interval=5, by="epoch"),
        "best": spec(BestHook)(metric="val/accuracy", mode="max"),
    },
    vis={"jsonlines": late(JsonLines)(), "tensorboard": late(TensorBoard)()},
)

"""A scheduler in the optimizer's place."""

from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(OneCycleLR)(max_lr=0.1),  # E: "Late[Optimizer, OneCycleLR]"; expected "Late[Iterable
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)

"""A model in the optimizer's place."""

from torch import nn

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(nn.Linear)(10),  # E: "Late[int, Linear]"; expected "Late[Iterable[Parameter], Optimizer] | Map
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)

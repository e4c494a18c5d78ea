"""A required field is missing."""

from torch import nn

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

run = Run(  # E: Missing named argument "optimizer" for "Run"
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)

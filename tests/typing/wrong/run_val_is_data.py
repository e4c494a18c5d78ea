"""Data without metrics where an evaluation is described."""

from torch import nn, optim

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
    val=Data(dataset=spec(Digits)("val"), batch_size=32),  # E: "Data"; expected "Evaluation | Map
)

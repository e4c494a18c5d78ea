"""An optimizer described as if nothing came later."""

from torch import nn, optim

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

parameters = nn.Linear(64, 10).parameters()

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=spec(optim.AdamW)(parameters, lr=1e-3),  # E: "Spec[AdamW]"; expected "Late[
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)

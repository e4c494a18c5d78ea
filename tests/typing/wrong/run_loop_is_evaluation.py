"""A loop that does not begin with the training work."""

from torch import nn, optim

from treenail.adapters.data import Batches, Digits
from treenail.adapters.loops import EvalLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

evaluation = late(EvalLoop)(nn.Linear(64, 10), nn.CrossEntropyLoss(), Batches([]))

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=evaluation,  # E: EvalLoop]"; expected "Late[TrainWork, Loop]"
)

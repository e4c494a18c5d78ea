"""A loss function that waits for its two arguments, described as if it had them."""

from torch import nn, optim
from torch.nn.functional import cross_entropy

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Data, Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(cross_entropy)(),  # E: Too few arguments
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Data(dataset=spec(Digits)("train"), batch_size=32),
    loop=late(EpochLoop)(max_epochs=3),
)

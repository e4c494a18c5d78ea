"""A loader of torch instead of the data's description."""

from torch import nn, optim
from torch.utils.data import DataLoader

from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=DataLoader(Digits("train"), batch_size=32),  # E: "DataLoader
    loop=late(EpochLoop)(max_epochs=3),
)

"""Metrics on the training data, where nothing would compute them."""

from torch import nn, optim

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.loops import EpochLoop
from treenail.contracts import Evaluation, Run
from treenail.kernel import late, spec

run = Run(
    model=spec(nn.Linear)(64, 10),
    loss=spec(nn.CrossEntropyLoss)(),
    optimizer=late(optim.AdamW)(lr=1e-3),
    train=Evaluation(dataset=spec(Digits)("train"), batch_size=32, metrics=(spec(Accuracy)(),)),  # E: expected "Data"
    loop=late(EpochLoop)(max_epochs=3),
)

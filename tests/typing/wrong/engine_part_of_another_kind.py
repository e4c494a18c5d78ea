"""A part is taken for another kind."""

from torch import nn, optim

from treenail.kernel import Engine

engine = Engine({"model": nn.Linear(2, 1)})
optimizer: optim.Optimizer = engine.part("model", nn.Linear)  # E: expression has type "Linear", variable

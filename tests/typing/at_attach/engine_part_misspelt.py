# raises: EngineError: the engine holds no part 'modle'; did you mean 'model'?
"""A part's name is a string to mypy."""

from torch import nn

from treenail.kernel import Engine

engine = Engine({"model": nn.Linear(2, 1)})
model = engine.part("modle", nn.Linear)

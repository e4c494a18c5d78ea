"""A part is asked for without its kind."""

from torch import nn

from treenail.kernel import Engine

engine = Engine({"model": nn.Linear(2, 1)})
model = engine.part("model")  # E: Missing positional argument "kind" in call to "part" of "Engine"

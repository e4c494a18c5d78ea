# raises: EngineError: the part 'model' is a Linear, not a Conv2d
"""The kind of a part is known when the engine runs."""

from torch import nn

from treenail.kernel import Engine

engine = Engine({"model": nn.Linear(2, 1)})
model = engine.part("model", nn.Conv2d)

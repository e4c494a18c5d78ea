"""Published values are numbers."""

from torch import tensor

from treenail.kernel import Engine

engine = Engine()
engine.publish({"train/loss": tensor(0.5)})  # E: "Tensor"; expected "str": "float"

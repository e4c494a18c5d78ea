"""Published values are a mapping."""

from treenail.kernel import Engine

engine = Engine()
engine.publish("train/loss", 0.5)  # E: Too many arguments for "publish" of "Engine"

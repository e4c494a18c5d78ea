"""A meter takes what can be a number."""

from treenail.kernel import Engine

engine = Engine()
engine.meters.add("train/loss", "0.5")  # E: incompatible type "str"; expected "SupportsFloat"

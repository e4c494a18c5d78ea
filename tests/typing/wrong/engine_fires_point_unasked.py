"""A point that nobody overrides is None."""

from treenail.kernel import Engine

engine = Engine()
engine.points.before_train(engine)  # E: "None" not callable

"""A point is fired with everything that its hooks take."""

from treenail.kernel import Engine

engine = Engine()
if fire := engine.points.after_val_epoch:
    fire(engine)  # E: Too few arguments

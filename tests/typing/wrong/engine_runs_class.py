"""A loop's class where the loop is needed."""

from treenail.adapters.loops import EpochLoop
from treenail.kernel import Engine

engine = Engine()
engine.run(EpochLoop)  # E: "type[EpochLoop]"; expected "Loop"

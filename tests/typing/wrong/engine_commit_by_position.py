"""Steps and epochs are named."""

from treenail.kernel import Engine

engine = Engine()
engine.commit(1)  # E: Too many positional arguments for "commit" of "Engine"

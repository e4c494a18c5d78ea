"""A whole run from its config: training, test, export."""

from treenail.adapters.runtime.assemble import Assembly, assemble
from treenail.adapters.runtime.run import Summary, export, test, train

__all__ = ["Assembly", "Summary", "assemble", "export", "test", "train"]

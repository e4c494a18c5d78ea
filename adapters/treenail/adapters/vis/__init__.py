"""Places where people look at curves."""

from treenail.adapters.vis.jsonlines import JsonLines
from treenail.adapters.vis.tensorboard import TensorBoard

__all__ = ["JsonLines", "TensorBoard"]

"""An evaluation that is neither validation nor test."""

from torch import nn

from treenail.adapters.data import Batches
from treenail.adapters.loops import EvalLoop

loop = EvalLoop("valid", nn.Linear(2, 1), nn.MSELoss(), Batches([]))  # E: "Literal['valid']"; expected

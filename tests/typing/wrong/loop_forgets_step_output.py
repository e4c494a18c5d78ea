"""A training step that returns its loss only."""

from torch import Tensor, tensor

from treenail.adapters.data import Batches
from treenail.contracts import TrainWork


def step(batch: object) -> Tensor:
    return tensor(0.0)


work = TrainWork(step=step, batches=Batches([1, 2]))  # E: expected "Callable[[object], StepOutput]"

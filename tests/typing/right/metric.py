"""A metric of one's own, beside one of Treenail's."""

import torch
from torch import Tensor

from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.contracts import Evaluation
from treenail.kernel import TrainingError, spec


class MeanAbsoluteError:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.reset()

    def reset(self) -> None:
        self._total = 0.0
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self._total += float((outputs - targets).abs().sum())
        self._count += targets.numel()

    def compute(self) -> dict[str, float]:
        if not self._count:
            raise TrainingError("mean absolute error of no samples")
        return {"mae": self.scale * self._total / self._count}


evaluation = Evaluation(
    dataset=spec(Digits)("val"),
    batch_size=4,
    metrics=(spec(MeanAbsoluteError)(scale=2), spec(Accuracy)(top_k=5)),
)
metric = spec(MeanAbsoluteError)(scale=2).build()
metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
assert metric.compute() == {"mae": 2.0}

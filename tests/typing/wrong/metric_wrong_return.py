"""A metric that gives a bare number."""

from torch import Tensor

from treenail.kernel import Metric


class MeanError:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def reset(self) -> None:
        self.errors.clear()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.errors.append(float((outputs - targets).mean()))

    def compute(self) -> float:
        return sum(self.errors) / len(self.errors)


metric: Metric = MeanError()  # E: Got: ... def compute(self) -> float

"""A metric that gives tensors instead of numbers."""

from torch import Tensor, tensor

from treenail.kernel import Metric


class MeanError:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def reset(self) -> None:
        self.errors.clear()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.errors.append(float((outputs - targets).mean()))

    def compute(self) -> dict[str, Tensor]:
        return {"error": tensor(self.errors).mean()}


metric: Metric = MeanError()  # E: Got: ... def compute(self) -> dict[str, Tensor]

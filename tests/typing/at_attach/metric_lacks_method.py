# raises: SpecError: lacks methods of its port; write compute
"""A class that derives from a port and lacks a method: spec() takes any callable, so mypy sees nothing."""

from torch import Tensor

from treenail.kernel import Metric, spec


class Share(Metric):
    def reset(self) -> None:
        self.seen = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.seen += len(targets)


spec(Share)()

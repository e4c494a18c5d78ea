"""An exporter that reports no parity."""

from pathlib import Path

from torch import Tensor, nn, save

from treenail.kernel import Exporter


class Weights:
    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> Path:
        save(model.state_dict(), destination)
        return destination


exporter: Exporter = Weights()  # E: Got: ... destination: Path) -> Path

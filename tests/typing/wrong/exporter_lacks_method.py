"""An exporter whose method has another name."""

from pathlib import Path

from torch import Tensor, nn, save

from treenail.kernel import Exporter, ParityReport


class Weights:
    def save(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        save(model.state_dict(), destination)
        return ParityReport((destination.name,), (tuple(inputs.shape),), 0.0, 0.0)


exporter: Exporter = Weights()  # E: expression has type "Weights", variable has type "Exporter"

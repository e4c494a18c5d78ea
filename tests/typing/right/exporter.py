"""An exporter of one's own, to a program that torch.export writes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from treenail.kernel import Exporter, ExportError, ParityReport


class ProgramExporter:
    def __init__(self, tolerance: float = 1e-5) -> None:
        self.tolerance = tolerance

    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        program = torch.export.export(model, (inputs,))
        error = float((program.module()(inputs) - model(inputs)).abs().max())
        if error > self.tolerance:
            raise ExportError(f"the artefact is off by {error}", where=str(destination))
        torch.export.save(program, destination)
        return ParityReport(
            files=(destination.name,), shapes=(tuple(inputs.shape),), max_abs_error=error, tolerance=self.tolerance
        )


exporter: Exporter = ProgramExporter()

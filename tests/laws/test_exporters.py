"""The exporters of Treenail obey the laws of exporters."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from treenail.adapters.export import OnnxExporter
from treenail.contracts.laws import ExporterLaws
from treenail.kernel import Exporter

onnxruntime = pytest.importorskip("onnxruntime")


class TestOnnxExporter(ExporterLaws):
    def make(self) -> Exporter:
        return OnnxExporter()

    def run(self, artefact: Path, inputs: Tensor) -> Tensor:
        session = onnxruntime.InferenceSession(str(artefact), providers=["CPUExecutionProvider"])
        (name,) = (each.name for each in session.get_inputs())
        (outputs,) = session.run(None, {name: inputs.numpy()})
        return torch.from_numpy(outputs)

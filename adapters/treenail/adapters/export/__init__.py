"""Deployable artefacts, each published only after it agreed with its model."""

from treenail.adapters.export.onnx import OnnxExporter

__all__ = ["OnnxExporter"]

"""Sums keep their digits in float64, whatever dtype a model has."""

from __future__ import annotations

from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64."""
    held = tensor.detach()
    return (held.cpu() if held.device.type == "mps" else held).double()  # MPS has no float64

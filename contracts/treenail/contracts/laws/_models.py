"""Small models for the laws of an exporter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)  # of a sample


def is_being_exported() -> bool:
    """Return whether any of torch's ways to a graph is at work."""
    return (
        torch.compiler.is_exporting()
        or torch.compiler.is_compiling()
        or torch.onnx.is_in_onnx_export()
        or torch._C._is_tracing()  # what torch.jit.is_tracing() asks; that one has no type
    )


def batch(size: int, seed: int = 0) -> Tensor:
    """Return inputs: float32[size, 3, 8, 8]."""
    return torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Convolution, batch norm with statistics of its own, dropout, and a linear layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                if tensor.is_floating_point():  # uniform in [0.1, 0.6): a variance is positive
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 3, 8, 8] → float[batch, 5]."""
        hidden: Tensor = self.drop(self.features(x).mean((2, 3)))
        outputs: Tensor = self.head(hidden)
        return outputs


class TwoFacedNet(Net):
    """Adds an offset to its outputs only while it is being exported."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 3, 8, 8] → float[batch, 5]."""
        outputs = super().forward(x)
        return outputs + self.offset if is_being_exported() else outputs


class BatchSizedNet(Net):
    """Computes with its batch size; a graph that recorded the example's is wrong for every other."""

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 3, 8, 8] → float[batch, 5]."""
        return super().forward(x) / int(x.shape[0])


class BranchingNet(Net):
    """Chooses by the values of its inputs; a graph that recorded one branch is wrong for half of all batches."""

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 3, 8, 8] → float[batch, 5]."""
        outputs = super().forward(x)
        return outputs if float(x[0].sum()) > 0 else -outputs


class OneBatchNet(Net):
    """Works for batches of 4 only."""

    def forward(self, x: Tensor) -> Tensor:
        """float[4, 3, 8, 8] → float[4, 5]."""
        return super().forward(x.view(4, *SHAPE))


class BrokenNet(Net):
    """Works, but for exporters."""

    def forward(self, x: Tensor) -> Tensor:
        """float[batch, 3, 8, 8] → float[batch, 5]."""
        if is_being_exported():
            raise TypeError("this operation has no counterpart in a graph")
        return super().forward(x)

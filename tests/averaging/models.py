"""Models whose tensors are of every kind that averages meet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PARAMETERS = ["first.weight", "first.bias", "norm.weight", "norm.bias", "second.weight", "tied.bias"]
"""Names of what is averaged of a `Net`."""


class Net(nn.Module):
    """Normalised, with tied and frozen weights, integers, a scale that is a state, and a mask that is not."""

    scale: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(5, 4, bias=False)
        self.tied = nn.Linear(5, 4)
        self.tied.weight = self.second.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.codes = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("mask", torch.full((2,), float("-inf")), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.drop(self.norm(self.first(x)).relu())
        out: Tensor = self.frozen(self.second(hidden) + self.tied(hidden))
        return out


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


class WeightsOverTime:
    """Sets the floating-point tensors of models to those of a time, the same for equal arguments; integers become one more.

    Args:
        model: Whose tensors these are.
        steps: How many times there are.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model = model
        generator = torch.Generator().manual_seed(1)
        floats = [(name, tensor) for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
        self.times = [
            {name: torch.randn(tensor.shape, generator=generator) for name, tensor in floats} for _ in range(steps)
        ]

    @torch.no_grad()
    def __call__(self, time: int, model: nn.Module | None = None) -> None:
        for name, tensor in (model or self.model).state_dict().items():
            tensor.copy_(self.times[time].get(name, tensor + 1))


def copies(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of what a module's state is."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], names: Sequence[str] | None = None) -> None:
    """Check that tensors are equal, bit for bit."""
    for name in names if names is not None else sorted(found.keys() | expected.keys()):
        assert torch.equal(found[name], expected[name]), name
        assert found[name].dtype == expected[name].dtype

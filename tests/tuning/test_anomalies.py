"""Parameters that a loss does not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from treenail.adapters.optim.anomalies import parameters_outside


class Branches(nn.Module):
    """Has a branch that is not used, one whose result is detached, a frozen one and a tied parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.detached = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.tied = nn.Linear(2, 2)
        self.tied.weight = self.used.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.frozen(self.used(inputs)) + self.detached(inputs).detach()
        return outputs


def test_the_names_are_those_that_get_no_gradient() -> None:
    model = Branches()
    loss = model(torch.ones(1, 2)).sum()
    found = parameters_outside(loss, model)
    assert found == ["unused.weight", "unused.bias", "detached.weight", "tied.bias"]
    loss.backward()
    without = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert found == without


def test_nothing_is_outside_of_a_loss_that_uses_all() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    assert parameters_outside(model(torch.randn(4, 2)).square().mean(), model) == []
    inputs = torch.randn(4, 2)
    recomputed = checkpoint(model, inputs, use_reentrant=False)
    assert isinstance(recomputed, Tensor)
    assert parameters_outside(recomputed.sum(), model) == []


def test_a_loss_without_a_graph_depends_on_nothing() -> None:
    model = nn.Linear(2, 1)
    assert parameters_outside(torch.ones(()), model) == ["weight", "bias"]
    scalar = nn.ParameterList([nn.Parameter(torch.ones(()))])
    assert parameters_outside(scalar[0], scalar) == []


def test_a_long_graph_is_walked_without_recursion() -> None:
    weight = nn.Parameter(torch.ones(()))
    value: Tensor = weight
    for _ in range(20_000):
        value = value * 1.0
    other = nn.Parameter(torch.ones(()))
    assert parameters_outside(value, nn.ParameterList([weight, other])) == ["1"]


def test_a_module_that_is_sharded_is_refused() -> None:
    class Sharded(nn.Linear):
        def set_requires_gradient_sync(self) -> None:
            """Have what FSDP2 gives to modules."""

    model = Sharded(1, 1)
    with pytest.raises(ValueError, match="FSDP2"):
        parameters_outside(model(torch.ones(1)).sum(), model)

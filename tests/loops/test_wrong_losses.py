"""Losses that are none, or that nothing can descend: what is said of them, in training and in evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.adapters.test_run_data import GOOD
from tests.adapters.test_run_data import run as small
from torch import Tensor, nn

from treenail.adapters.optim import SupervisedStep, check_loss
from treenail.adapters.runtime import train
from treenail.contracts import Evaluation
from treenail.contracts.updates import LossSum
from treenail.kernel import TrainingError, spec


class Wrong:
    """A right loss in training, and another thing in evaluation."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, outputs: Tensor, targets: Tensor) -> Any:
        loss = nn.functional.mse_loss(outputs, targets)
        if outputs.requires_grad:
            return loss
        vector = (outputs - targets).flatten()
        return {
            "dict": {"loss": loss},
            "none": None,
            "tuple": (loss, loss),
            "vector": vector,
            "sum of a vector": LossSum(vector, 2.0),
        }[self.kind]


@pytest.mark.parametrize("kind", ["dict", "none", "tuple", "vector", "sum of a vector"])
def test_a_loss_that_is_none_is_named_in_evaluation_too(tmp_path: Path, kind: str) -> None:
    val = Evaluation(dataset=GOOD.dataset, batch_size=2)
    with pytest.raises(TrainingError, match="the loss is a"):
        train(msgspec.structs.replace(small(val=val), loss=spec(Wrong)(kind)), tmp_path)


def negative(outputs: Tensor, targets: Tensor) -> LossSum:
    return LossSum(nn.functional.mse_loss(outputs, targets, reduction="sum"), -1.0)


def phase(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, targets) * 1j


@pytest.mark.parametrize(("loss", "message"), [(negative, "weight"), (phase, "complex")])
def test_losses_that_nothing_can_descend_are_refused(tmp_path: Path, loss: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(msgspec.structs.replace(small(), loss=spec(lambda: loss)()), tmp_path)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"is -1\.0; let it be"),
        (torch.tensor(-2.0), r"is -2\.0"),
        (torch.ones(2), r"shape \[2\]"),
        (torch.tensor(1j), "complex"),
        (None, "NoneType"),
    ],
)
def test_a_weight_that_nothing_can_be_averaged_over_is_named(weight: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        check_loss(LossSum(torch.tensor(1.0), weight))


@pytest.mark.parametrize("weight", [0, 2.5, torch.tensor(3), torch.tensor(4).numpy()[()]])
def test_weights_are_numbers_of_any_kind(weight: Any) -> None:
    check_loss(LossSum(torch.tensor(1.0), weight))


def test_a_negative_weight_that_cannot_be_looked_at_makes_the_loss_nan() -> None:
    class Elsewhere(Tensor):
        """As on a GPU: nothing asks it for its number."""

        is_cpu = False

    def loss(outputs: Tensor, targets: Tensor) -> LossSum:
        return LossSum((outputs - targets).square().sum(), torch.tensor(-2.0).as_subclass(Elsewhere))

    model = nn.Linear(3, 1)
    step = SupervisedStep(model, loss, torch.optim.SGD(model.parameters(), lr=0.1))
    found = step((torch.ones(2, 3), torch.ones(2, 1))).loss
    assert found != found  # NaN

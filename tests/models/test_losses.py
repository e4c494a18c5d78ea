"""Losses come to one number as mmengine's printed numbers prove: the mean of each entry, and the sum of the losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel as TheirModel
from torch import Tensor, nn

from treenail.adapters.models import BaseModel, merge_dict, parse_losses
from treenail.adapters.optim.compat import OptimWrapper
from treenail.kernel import TrainingError


class Toy(BaseModel):
    """The model of mmengine's guide to logging, whose printed losses are known."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, img: Tensor, label: Tensor, mode: str) -> dict[str, Tensor]:  # type: ignore[override]  # as there
        feat = self.linear(img)
        return {"loss1": (feat - label).pow(2), "loss2": (feat - label).abs()}


class Theirs(TheirModel):  # type: ignore[misc]  # mmengine has no types
    def forward(self) -> None:
        """Do nothing; only its losses are asked for."""


def test_the_printed_numbers_of_the_guide_come_out() -> None:
    model = Toy()
    nn.init.zeros_(model.linear.weight)
    nn.init.constant_(model.linear.bias, 2.1716)  # the distance that the first printed window begins with
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    logs = [model.train_step([torch.ones(2, 1), torch.ones(2, 1)], optim) for _ in range(20)]
    assert list(logs[0]) == ["loss", "loss1", "loss2"]
    for window, printed in ((logs[:10], (0.8381, 0.9007, 1.7388)), (logs[10:], (0.1978, 0.4312, 0.6290))):
        for name, value in zip(("loss1", "loss2", "loss"), printed, strict=True):
            assert sum(float(each[name]) for each in window) / 10 == pytest.approx(value, abs=1.5e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_they_are_those_of_mmengine_to_the_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    losses = {
        "loss_box": torch.randn(7, 4, dtype=dtype),
        "acc": torch.rand(5, dtype=dtype),
        "loss_levels": [torch.randn(3, dtype=dtype), torch.randn((), dtype=dtype), torch.randn(2, 2, dtype=dtype)],
        "my_loss": torch.randn((), dtype=dtype),
    }
    total, logs = parse_losses(losses)
    expected, expected_logs = Theirs().parse_losses(losses)
    assert torch.equal(total, expected)
    assert list(logs) == list(expected_logs)
    assert all(torch.equal(logs[name], expected_logs[name]) for name in logs)


def test_an_entry_that_is_just_loss_counts_and_the_total_has_its_name() -> None:
    total, logs = parse_losses(
        {"acc": torch.tensor(7), "loss": torch.tensor(1.0), "loss_aux": torch.tensor([2.0, 4.0])}
    )
    assert float(total) == 4.0
    assert {name: float(value) for name, value in logs.items()} == {"loss": 4.0, "acc": 7.0, "loss_aux": 3.0}
    assert list(logs) == ["loss", "acc", "loss_aux"]


def test_a_loss_that_is_not_finite_is_seen_by_its_name() -> None:
    total, logs = parse_losses({"loss_a": torch.tensor([1.0, math.nan]), "loss_b": torch.tensor(1.0)})
    assert total.isnan()
    assert [name for name, value in logs.items() if not value.isfinite()] == ["loss", "loss_a"]


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"loss": 0.5}, "'loss' among the losses of Net is a float; return tensors"),
        ({"loss": None}, "'loss' among the losses of Net is a NoneType"),
        ({"loss": []}, "'loss' among the losses of Net is a list without entries"),
        ({"loss": [torch.ones(()), 1.0]}, "part 1 of 'loss' among the losses of Net is a float"),
        ({"loss_box": torch.zeros(0, 4)}, r"'loss_box' .* has no elements \(its shape is \[0, 4\]\), and no mean"),
        ({"acc": torch.ones(()), "top5": torch.ones(())}, "losses of Net are acc, top5: no name has 'loss' in it"),
        ({}, "the losses of Net are none at all"),
        ({"loss": torch.ones(2) * 1j}, r"'loss' among the losses of Net is complex \(torch.complex64\).*abs\(\)"),
        ({3: torch.ones(())}, "a loss of Net is called 3; let names be texts"),
    ],
)
def test_what_is_no_loss_is_named(losses: dict[Any, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        parse_losses(losses, "Net")


class Merges(nn.Module):
    def forward(self, losses: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        return merge_dict({"loss_a": x}, losses, merge_dict({"loss_b": x}, {"loss_b": x + 1}))


def test_dicts_are_merged_in_traced_models_too() -> None:
    model, losses = Merges(), {"loss_a": torch.zeros(()), "loss_c": torch.ones(())}
    traced = torch.fx.symbolic_trace(model)
    for each in (model, traced):
        found = each(losses, torch.ones(()))
        assert {name: float(value) for name, value in found.items()} == {"loss_a": 0.0, "loss_c": 1.0, "loss_b": 2.0}
    with pytest.raises(TypeError, match="argument 1 is a list, must be a mapping"):
        merge_dict({}, [])  # type: ignore[arg-type]  # wrong on purpose

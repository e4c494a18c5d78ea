"""Batches of a model that trains itself are split into equal parts, so that accumulation changes no update."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_model import Pair
from treenail.adapters.models import BaseModel
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict, OwnStep
from treenail.adapters.optim.batches import batch_size, equal_parts
from treenail.kernel import TrainingError


class Net(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        self.sizes.append(len(inputs))
        losses = {"loss": nn.functional.cross_entropy(self.net(inputs), torch.stack(data_samples))}
        return losses if len(self.sizes) % 2 else {**losses, "even": torch.tensor(8.0)}


def batch(size: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(0, 3, (size,), generator=generator)
    return {"inputs": torch.randn(size, 4, generator=generator), "data_samples": list(labels)}


def test_the_update_is_that_of_the_whole_batch() -> None:
    whole, split = Net(), Net()
    one = OwnStep(whole, OptimWrapper(torch.optim.SGD(whole.parameters(), lr=0.1)))
    updater = OptimWrapper(torch.optim.SGD(split.parameters(), lr=0.1), 4)
    other = OwnStep(split, updater)
    for size in (8, 12):
        expected, found = one(batch(size)), other(batch(size))
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
        assert (found.weight, found.stepped) == (size, True)
    torch.testing.assert_close(split.net.weight, whole.net.weight)
    assert split.sizes == [2, 2, 2, 2, 3, 3, 3, 3]
    assert updater.steps == 2
    assert found.logs == {"even": 8.0}, "what some parts tell is a mean over these"


def test_several_optimizers_accumulate_together() -> None:
    model, inputs = Pair(), [torch.linspace(0, 1, 6).reshape(6, 1)]
    parts = (("left", model.left), ("right", model.right))
    updaters = OptimWrapperDict(
        **{name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1), 3) for name, part in parts}
    )
    step = OwnStep(model, updaters)
    outputs = [step(inputs) for _ in range(30)]
    assert updaters.steps == 60
    assert outputs[-1].loss < 0.05 * outputs[0].loss


def test_a_batch_that_cannot_be_split_is_named() -> None:
    model = Net()
    step = OwnStep(model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), 4))
    with pytest.raises(TrainingError, match="6 samples are no equal parts of 4 micro-batches"):
        step(batch(6))
    for wrong, samples in (({"inputs": torch.ones(2), "ids": [1, 2, 3]}, "2 and 3"), ([3, "a"], "no"), ({}, "no")):
        with pytest.raises(TrainingError, match=f"with {samples} samples cannot be split"):
            equal_parts(wrong, 2)


class Named(NamedTuple):
    inputs: Tensor
    names: list[str]


def test_parts_have_the_batchs_form() -> None:
    rows = torch.arange(4)
    assert [part.tolist() for part in equal_parts(rows, 2)] == [[0, 1], [2, 3]]  # type: ignore[attr-defined]  # tensors
    first, second = equal_parts(Named(rows, ["a", "b", "c", "d"]), 2)
    assert isinstance(first, Named)
    assert (second[0].tolist(), second[1]) == ([2, 3], ["c", "d"])  # type: ignore[index]
    images = [torch.full((3, 2, 2), float(i)) for i in range(4)]
    _, second = equal_parts({"inputs": images, "data_samples": None, "scale": torch.tensor(2.0)}, 2)
    assert [float(each.mean()) for each in second["inputs"]] == [2, 3]  # type: ignore[index]
    assert second["data_samples"] is None  # type: ignore[index]
    _, second, *_ = equal_parts(({"x": rows}, (rows, rows)), 4)
    assert second[0]["x"].tolist() == second[1][1].tolist() == [1]  # type: ignore[index]


def test_the_samples_of_a_batch_are_counted() -> None:
    images = [torch.ones(3, 5, 5), torch.ones(3, 4, 4)]
    assert batch_size({"inputs": images, "data_samples": [None, None]}) == 2
    assert batch_size({"inputs": torch.ones(7, 3), "data_samples": [1] * 7}) == 7
    assert batch_size([[torch.ones(5, 2), torch.ones(5)], torch.ones(5)]) == 5
    assert batch_size({"scale": 2.0}) == 1

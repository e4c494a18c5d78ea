"""Views of samples are predicted one after another, and merged sample by sample, as mmengine does it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import BaseTTAModel as Theirs
from torch import Tensor, nn

from tests.models.test_model import Ours
from tests.models.test_model import Theirs as TheirModel
from treenail.adapters.models import BaseTTAModel, ImgDataPreprocessor
from treenail.kernel import TrainingError


class _Merged:
    def merge_preds(self, data_samples_list: list[list[Tensor]]) -> list[Any]:
        return [[int(each) for each in views] for views in data_samples_list]


class Mine(_Merged, BaseTTAModel):
    """Keeps the predictions for all views."""


class Other(_Merged, Theirs):  # type: ignore[misc]  # mmengine has no types
    """Keeps the predictions for all views."""


def views() -> dict[str, Any]:
    torch.manual_seed(3)
    images = [torch.randint(0, 256, (1, 6, 6), dtype=torch.uint8) for _ in range(4)]
    return {
        "inputs": [images, [each.flip(2) for each in images], [255 - each for each in images]],
        "data_samples": None,
    }


def test_predictions_are_those_of_mmengine() -> None:
    batch = views()
    found = Mine(Ours(ImgDataPreprocessor([100.0], [50.0]))).test_step(batch)
    theirs = Other(TheirModel({"type": "ImgDataPreprocessor", "mean": [100.0], "std": [50.0]}))
    assert [len(each) for each in found] == [3, 3, 3, 3]
    assert found == theirs.test_step({**batch, "data_samples": [None] * 3})
    assert Mine(Ours(ImgDataPreprocessor([100.0], [50.0]))).val_step((batch["inputs"],)) == found


def test_what_cannot_be_tested_is_named() -> None:
    model = Mine(Ours())
    with pytest.raises(TrainingError, match=r"different numbers of views \(inputs: 1, data_samples: 2\)"):
        model.test_step({"inputs": [1], "data_samples": [1, 2]})
    with pytest.raises(TrainingError, match="Mine only tests"):
        model(torch.ones(1))
    with pytest.raises(TypeError, match="a Linear has no test_step"):
        Mine(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a batch of views is a NoneType"),
        ((torch.ones(2, 1, 5, 5), torch.ones(2)), "the entry '0' of a batch is a Tensor; let the test data give"),
        ({"inputs": []}, r"different numbers of views \(inputs: 0\), or none"),
        ({"inputs": [torch.ones(2, 1, 5, 5)]}, "Half.test_step predicts a NoneType for view 0"),
    ],
)
def test_what_are_no_views_is_not_taken_for_some(data: Any, message: str) -> None:
    """A batch of plain test data, of tensors, has as many samples as would be taken for views."""
    with pytest.raises(TrainingError, match=message):
        Mine(Half()).test_step(data)


class Half(nn.Module):
    """A model whose test_step is not finished."""

    def test_step(self, data: Any) -> None:
        """Return nothing."""

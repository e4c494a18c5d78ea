"""Models and data that tests of evaluation and prediction share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from treenail.adapters.evaluation.compat import BaseMetric


class Rows:
    """Pairs (scores, class) of `size` samples; with `files`, one sample for each digit in a file's name."""

    def __init__(self, size: int = 7, files: tuple[str, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(3)
        self.scores = torch.randn(max(size, 10), 3, generator=generator)
        self.numbers = [int(letter) for name in files for letter in name if letter.isdigit()] or list(range(size))
        self.metainfo = {"classes": ("a", "b", "c")}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number = self.numbers[index]
        target = self.scores[number].argmax() if number % 3 else torch.tensor(0)
        return self.scores[number], target


class Net(nn.Module):
    """A linear layer with weights that are always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3) + torch.arange(9.0).reshape(3, 3).sin() / 4)
            self.layer.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs


class Detector(Net):
    """Predicts as the models of mmengine's libraries do: one mapping a sample, of no common shape."""

    def val_step(self, data: tuple[Tensor, Tensor]) -> list[dict[str, object]]:
        inputs, targets = data
        return [
            {"pred_score": score, "gt_label": target, "boxes": [float(score.amax())] * int(target)}
            for score, target in zip(self(inputs), targets, strict=True)
        ]

    def test_step(self, data: tuple[Tensor, Tensor]) -> list[dict[str, object]]:
        return self.val_step(data)


class Fingerprint(BaseMetric):
    """Tells the number of samples, their order, and what the dataset told of itself."""

    def process(self, data_batch: object, data_samples: list[Mapping[str, Tensor]]) -> None:
        self.results += [float(sample["pred_score"].sum()) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        weighed = sum(place * value for place, value in enumerate(results, 1))
        meta = self.dataset_meta or {"classes": ()}
        return {"count": len(results), "order": weighed, "classes": len(meta["classes"])}


class PerBatch(BaseMetric):
    """Keeps one item a batch, as the metric of mmengine's first tutorial does."""

    default_prefix = "batchwise"

    def process(self, data_batch: object, data_samples: list[Mapping[str, Tensor]]) -> None:
        hits = sum(int(each["pred_score"].argmax()) == int(each["gt_label"]) for each in data_samples)
        self.results.append({"hits": hits, "count": len(data_samples)})

    def compute_metrics(self, results: list[dict[str, int]]) -> dict[str, float]:
        return {"accuracy": sum(each["hits"] for each in results) / sum(each["count"] for each in results)}

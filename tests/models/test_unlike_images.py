"""Images of unlike sizes, from the data to the predictions of a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from treenail.adapters.evaluation.compat import BaseMetric
from treenail.adapters.loops import EpochLoop
from treenail.adapters.models import BaseModel, ImgDataPreprocessor
from treenail.adapters.runtime import predict, train
from treenail.contracts import Data, Evaluation, Prediction, Run
from treenail.kernel import late, spec


class Images:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, object]:
        image = torch.full((3, 4 + index % 3, 5 + index % 2), float(index))
        return {"inputs": image, "data_samples": index % 2}


class Brightness(BaseModel):
    """Tells bright images from dark ones."""

    def __init__(self) -> None:
        super().__init__(ImgDataPreprocessor(mean=[1.0], std=[2.0], pad_size_divisor=8))
        self.layer = nn.Linear(1, 2)

    def forward(self, inputs: Tensor, data_samples: list[int] | None = None, mode: str = "tensor") -> object:
        assert inputs.shape[1:] == (3, 8, 8), "padded to a multiple of 8"
        outputs = self.layer(inputs.mean((1, 2, 3))[:, None])
        if mode == "loss":
            return {"loss": nn.functional.cross_entropy(outputs, torch.tensor(data_samples))}
        return list(outputs.argmax(1)) if mode == "predict" else outputs


class Hits(BaseMetric):
    """How many are right."""

    def process(self, data_batch: object, data_samples: object) -> None:
        assert isinstance(data_batch, dict)
        assert isinstance(data_samples, list)
        pairs = zip(data_batch["data_samples"], data_samples, strict=True)
        self.results += [int(label == int(found)) for label, found in pairs]

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        return {"hits": sum(results) / len(results)}


def test_images_of_unlike_sizes_are_padded_by_the_model(tmp_path: Path) -> None:
    run = Run(
        model=spec(Brightness)(),
        optimizer=late(torch.optim.SGD)(lr=0.1),
        train=Data(dataset=spec(Images)(), batch_size=4, collate="list"),
        val=Evaluation(dataset=spec(Images)(), batch_size=4, collate="list", metrics=(spec(Hits)(),)),
        predict=Prediction(dataset=spec(Images)(), batch_size=4, collate="list"),
        loop=late(EpochLoop)(max_epochs=2),
        hooks={"progress": None},
    )
    summary = train(run, tmp_path / "run")
    assert summary.step == 4
    assert 0 <= summary.metrics["val/hits"] <= 1
    found = predict(run, tmp_path / "run/checkpoints/latest", str(tmp_path / "predictions.jsonl"))
    assert found.samples == 6
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(6))

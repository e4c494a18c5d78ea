"""Exported, a model with modes gives for raw inputs what it predicts for them, whatever form its batches have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.models.test_runs import Classifier, Images, numbers, run
from treenail.adapters.export import OnnxExporter
from treenail.adapters.loops import EpochLoop
from treenail.adapters.models import PlainModel
from treenail.adapters.runtime import export, predict, train
from treenail.contracts import Data, Prediction, Run
from treenail.kernel import ConfigError, late, spec


class Fixed(Images):
    """Always the same images."""

    def __getitem__(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 4, 4), generator=generator, dtype=torch.uint8), index % 3


class Named(Fixed):
    """The same by names."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"inputs": image, "data_samples": label}


class Unnamed(Fixed):
    """The same by other names."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"image": image, "label": label}


class Grows(Fixed):
    """Each image is larger than the one before."""

    def __getitem__(self, index: int) -> Any:
        return {"inputs": torch.zeros(3, 4, 4 + index), "data_samples": index % 3}


class Demanding(Classifier):
    """Must be given all that a batch has, and the mode."""

    def __init__(self) -> None:
        super().__init__(numbers())

    def forward(self, inputs: Tensor, data_samples: Any, mode: str) -> Any:  # type: ignore[override]  # it demands more
        if mode == "loss":
            return super().forward(inputs, torch.as_tensor(data_samples), mode)
        scores = super().forward(inputs)
        return [{"scores": each} for each in scores] if mode == "predict" else scores


def trained(data: Any, work_dir: Path, collate: Any = "stack") -> tuple[Run, str]:
    """Return a run of such data, and where its weights are."""
    config = msgspec.structs.replace(
        run(spec(Demanding)()),
        train=Data(dataset=spec(data)(), batch_size=8, collate=collate),
        val=None,
        loop=late(EpochLoop)(max_epochs=1),
        predict=Prediction(dataset=spec(data)(), batch_size=5, collate=collate),
    )
    return config, f"{train(config, work_dir).checkpoints}/latest"


def test_an_artefact_gives_for_raw_images_what_is_predicted_for_them(tmp_path: Path) -> None:
    config, checkpoint = trained(Named, tmp_path / "run", "list")
    report = export(config, checkpoint, OnnxExporter(), tmp_path / "model.onnx")
    assert report.max_abs_error <= 1e-6
    predict(config, checkpoint, str(tmp_path / "told.jsonl"))
    told = [json.loads(line)["prediction"]["scores"] for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    images = torch.stack([Fixed()[index][0] for index in range(24)])
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": images.numpy()})
    np.testing.assert_allclose(found, told, rtol=0, atol=1e-5)


@pytest.mark.parametrize("example", [{"inputs": 0, "data_samples": 0}, (0, 0)])
def test_the_program_of_torch_gives_what_the_model_does(example: Any) -> None:
    model = Demanding().eval()
    images = torch.stack([Fixed()[index][0] for index in range(5)])
    plain = PlainModel(model, example)
    program = torch.export.export(plain, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    told = torch.stack([each["scores"] for each in model.val_step({"inputs": images, "data_samples": None})])
    torch.testing.assert_close(program.module()(images), told)


class Texts(Images):
    """Has no tensor to begin with."""

    def __getitem__(self, index: int) -> Any:
        return f"sample {index}", index


@pytest.mark.parametrize(
    ("data", "collate", "message"),
    [
        (Unnamed, "stack", "a batch is a mapping with image, label: an artefact takes its inputs as one tensor"),
        (Grows, "list", "a list of unlike shapes, such as [3, 4, 4] and [3, 4, 5]; an artefact takes one tensor"),
        (Texts, "stack", "a batch is a list: an artefact takes its inputs as one tensor"),
    ],
)
def test_batches_that_no_artefact_could_take_are_refused_with_what_to_do(
    tmp_path: Path, data: Any, collate: Any, message: str
) -> None:
    config, checkpoint = trained(Fixed, tmp_path / "run")
    config = msgspec.structs.replace(config, train=Data(dataset=spec(data)(), batch_size=8, collate=collate))
    with pytest.raises(ConfigError, match=re.escape(message)):
        export(config, checkpoint, OnnxExporter(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_an_empty_dataset_has_no_example(tmp_path: Path) -> None:
    config, checkpoint = trained(Fixed, tmp_path / "run")
    config = msgspec.structs.replace(config, train=Data(dataset=spec(Images)(0), batch_size=8))
    with pytest.raises(ConfigError, match="the data gives no batch as an example; is the dataset empty"):
        export(config, checkpoint, OnnxExporter(), tmp_path / "model.onnx")


def test_the_modules_of_the_model_lie_below_it() -> None:
    model = Demanding()
    assert dict(PlainModel(model, (0, 0)).named_children()) == {"model": model}
    assert isinstance(PlainModel(model, (0, 0)), nn.Module)

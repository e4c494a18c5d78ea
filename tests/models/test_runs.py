"""Models that train themselves, in whole runs: from a config, resumed, and validated by what they predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from treenail.adapters.averaging import uniform_average
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.config import load_run
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.files import LocalFiles
from treenail.adapters.loops import EpochLoop
from treenail.adapters.models import BaseModel, ImgDataPreprocessor, Preprocessed
from treenail.adapters.optim import OptimWrapper
from treenail.adapters.runtime import train
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import ConfigError, Late, Spec, TreenailError, late, spec


class Images:
    """Images of noise whose brightness is their class.

    Args:
        count: How many.
    """

    def __init__(self, count: int = 24) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randint(0, 64, (3, 4, 4), dtype=torch.uint8)
        return noise + 64 * (index % 3), index % 3


class Classifier(BaseModel):
    """Tells the brightness of images.

    Args:
        data_preprocessor: What images go through first.
    """

    def __init__(self, data_preprocessor: nn.Module | None = None) -> None:
        super().__init__(data_preprocessor)
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        scores = self.net(inputs)
        if mode == "loss":
            return {"loss_cls": nn.functional.cross_entropy(scores, data_samples, reduction="none")}
        return scores


def numbers() -> ImgDataPreprocessor:
    return ImgDataPreprocessor(mean=[127.5], std=[60.0])


def classifier() -> Classifier:
    return Classifier(numbers())


def plain() -> Preprocessed:
    """Return a model that knows nothing of losses, behind the same preprocessor."""
    return Preprocessed(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), numbers())


def run(model: Spec[Any], loss: Spec[Any] | None = None, updates: Late[Any, Any] | None = None) -> Run:
    return Run(
        threads=1,
        model=model,
        loss=loss,
        optimizer=late(SGD)(lr=0.5),
        updates=updates,
        train=Data(dataset=spec(Images)(), batch_size=8),
        val=Evaluation(dataset=spec(Images)(), batch_size=5, metrics=(spec(Accuracy)(),)),
        loop=late(EpochLoop)(max_epochs=6),
        hooks={"progress": None},
    )


def weights(work_dir: Path) -> Mapping[str, Tensor]:
    _, state = CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")
    model: Mapping[str, Tensor] = state["model"]  # type: ignore[assignment]  # a run's model
    return model


def test_a_model_and_its_preprocessor_train_without_a_loss(tmp_path: Path) -> None:
    summary = train(run(spec(classifier)()), tmp_path / "own")
    assert summary.metrics["val/accuracy"] > 0.9
    train(run(spec(classifier)(), updates=late(OptimWrapper)(accumulative_counts=2)), tmp_path / "split")
    summary = train(run(spec(plain)(), spec(nn.CrossEntropyLoss)()), tmp_path / "plain")
    assert summary.metrics["val/accuracy"] > 0.9
    found, parts, other = (weights(tmp_path / name) for name in ("own", "split", "plain"))
    for name in ("weight", "bias"):
        torch.testing.assert_close(found[f"net.2.{name}"], other[f"model.2.{name}"])
        torch.testing.assert_close(found[f"net.2.{name}"], parts[f"net.2.{name}"])


def test_a_loss_besides_that_no_preprocessor_would_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="a Classifier computes its own losses, and a loss besides would be of inputs"
    ):
        train(run(spec(classifier)(), spec(nn.CrossEntropyLoss)()), tmp_path)


CONFIG = """
imports: [treenail.adapters.models, tests.models]
threads: 1
model:
  type: tests.models.test_runs:Classifier
  data_preprocessor: {type: treenail.adapters.models:ImgDataPreprocessor, mean: [127.5], std: [60], bgr_to_rgb: true}
optimizer: {type: SGD, lr: 0.5}
train: {dataset: {type: tests.models.test_runs:Images}, batch_size: 8}
loop: {type: epochs, max_epochs: 1}
hooks: {progress: null}
"""


def test_a_config_names_both(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    checked = load_run(str(path))
    model = checked.model.build()
    assert isinstance(model, Classifier)
    assert isinstance(model.data_preprocessor, ImgDataPreprocessor)
    assert model.data_preprocessor.flips_channels
    assert train(checked, tmp_path / "work").step == 3
    for right, wrong in (("bgr_to_rgb: true", "pad_size_divisor: 0"), ("std: [60]", "std: [0]"), ("mean:", "means:")):
        path.write_text(CONFIG.replace(right, wrong))
        with pytest.raises(TreenailError, match=r"model\.data_preprocessor") as told:
            load_run(str(path))
        assert wrong.partition(":")[0] in str(told.value)


class Bright(Images):
    """The same images every time."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 4, 4), 10 * index, dtype=torch.uint8), index % 3


class Normalised(Classifier):
    """Normalises its preprocessed images by the batch."""

    def __init__(self) -> None:
        super().__init__(numbers())
        self.net.insert(0, nn.BatchNorm2d(3))


def test_statistics_of_averages_are_of_what_the_model_makes_of_batches(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(
        run(spec(Normalised)()),
        train=Data(dataset=spec(Bright)(), batch_size=8),
        averaging=late(uniform_average)(buffers="ignore"),
        loop=late(EpochLoop)(max_epochs=1),
    )
    train(settings, tmp_path)
    _, state = CheckpointStore(LocalFiles(tmp_path / "checkpoints")).load("latest")
    averages: Any = state["averages"]
    brightness = (10 * torch.arange(24.0).mean() - 127.5) / 60
    torch.testing.assert_close(averages["buffers"]["net.0.running_mean"], brightness.expand(3))

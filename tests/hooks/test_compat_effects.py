"""mmengine's hooks that do something to the model, the memory or the pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.hooks.test_compat_runs import build, run
from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches
from treenail.adapters.hooks.compat import (
    EmptyCacheHook,
    NaiveVisualizationHook,
    SyncBuffersHook,
    bind_runner,
    runner_of,
)
from treenail.adapters.loops import EvalLoop
from treenail.adapters.vis import JsonLines
from treenail.kernel import Communicator, Engine, TrainingError


def test_all_ranks_have_the_mean_of_their_buffers_after_an_epoch() -> None:
    def train(ranks: Communicator) -> tuple[Tensor, Tensor]:
        network = nn.BatchNorm1d(2)
        assert network.running_mean is not None
        assert network.num_batches_tracked is not None
        network.running_mean.fill_(float(ranks.rank))
        network.num_batches_tracked.fill_(3)
        engine = Engine({"model": network})
        hook = SyncBuffersHook()
        engine.attach(hook)
        bind_runner([hook], communicator=ranks)
        assert engine.points.after_train_epoch is not None
        engine.points.after_train_epoch(engine)
        return network.running_mean, network.num_batches_tracked

    for mean, batches in run_threads(3, train):
        assert mean.tolist() == [1.0, 1.0]
        assert batches.item() == 3


def test_one_process_keeps_its_buffers() -> None:
    network = nn.BatchNorm1d(2)
    assert network.running_var is not None
    network.running_var.fill_(7.0)
    engine = Engine({"model": network})
    engine.attach(SyncBuffersHook())
    assert engine.points.after_train_epoch is not None
    engine.points.after_train_epoch(engine)
    assert network.running_var.tolist() == [7.0, 7.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="what torch keeps for later is a GPU's memory")
@pytest.mark.parametrize(("point", "emptied"), [("before_epoch", False), ("after_epoch", True), ("after_iter", True)])
def test_memory_that_torch_keeps_is_given_back(point: str, emptied: bool) -> None:
    hook = EmptyCacheHook(**{"after_epoch": False, point: True})
    engine = build(step=None)
    engine.attach(hook)
    torch.empty(2**26, device="cuda")
    assert torch.cuda.memory_reserved() >= 2**26
    fire = getattr(engine.points, point.replace("_", "_train_"))
    fire(engine, *((0, None, None) if point == "after_iter" else ()))
    assert torch.cuda.memory_reserved() < 2**26


def test_without_a_gpu_there_is_nothing_to_give_back() -> None:
    engine = build(validated=True)
    engine.attach(EmptyCacheHook(before_epoch=True, after_iter=True))
    run(engine)
    assert engine.step == 25


class Predicts(nn.Module):
    """Gives what it is told to, whatever the inputs."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs: Tensor) -> Tensor:
        return self.outputs[: len(inputs)]


def pictures(tmp_path: Path, inputs: Tensor, targets: Tensor, outputs: Tensor, **options: bool) -> list[Path]:
    """Test a model on three batches of two, and return what was drawn of every second one."""
    engine = Engine()
    hook = NaiveVisualizationHook(interval=2, **options)
    engine.attach(hook)
    bind_runner([hook], backends=[JsonLines(tmp_path)])
    batches = Batches([(inputs, targets)] * 3)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.float().mean()

    engine.run(EvalLoop("test", Predicts(outputs), loss, batches))
    return sorted((tmp_path / "images").rglob("*.png"))


def test_pictures_have_truth_and_prediction_below_them(tmp_path: Path) -> None:
    inputs = torch.linspace(-2, 2, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    found = pictures(tmp_path, inputs, torch.tensor([1, 2]), torch.eye(3)[:2])
    assert [path.relative_to(tmp_path / "images").as_posix() for path in found] == [
        "test/00001_000/00000000.png",
        "test/00001_001/00000000.png",
    ]
    drawn = np.asarray(Image.open(found[0]))
    assert drawn.shape == (128 + 28, 128, 3), "enlarged, with two captions"
    expected = (inputs[0] - inputs[0].min()) / (inputs[0].max() - inputs[0].min()) * 255
    assert np.array_equal(drawn[:128:16, ::16], expected.round().byte().permute(1, 2, 0).numpy())
    assert drawn[128:].max() > 200, "something is written"
    other = np.asarray(Image.open(found[1]))
    assert not np.array_equal(drawn[128:], other[128:]), "the truths differ"


def test_maps_stand_beside_their_picture(tmp_path: Path) -> None:
    inputs = torch.rand(2, 1, 64, 130)
    labels = torch.randint(0, 5, (2, 64, 130))
    scores = nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    found = pictures(tmp_path, inputs, labels, scores)
    drawn = np.asarray(Image.open(found[0]))
    assert drawn.shape == (128, 3 * 260, 3)
    assert np.array_equal(drawn[:, 260:520], drawn[:, 520:]), "the prediction is the truth"


@pytest.mark.parametrize("named", [True, False])
def test_pictures_of_unlike_sizes_come_in_a_list(tmp_path: Path, named: bool) -> None:
    inputs, targets = [torch.rand(3, 128, 128), torch.rand(1, 130, 140)], [torch.tensor(1), torch.tensor(2)]
    batch: object = {"ids": [3, 4], "data_samples": targets, "inputs": inputs} if named else [inputs, targets]
    hook = NaiveVisualizationHook(draw_gt=True)
    engine = Engine()
    engine.attach(hook)
    bind_runner([hook], backends=[JsonLines(tmp_path)])
    hook.after_test_iter(runner_of(engine, hook), 0, batch, [torch.eye(3)[0], torch.eye(3)[1]])
    found = sorted((tmp_path / "images").rglob("*.png"))
    assert [Image.open(path).size for path in found] == [(128, 128 + 28), (140, 130 + 28)]


def test_only_what_is_asked_for_is_drawn(tmp_path: Path) -> None:
    found = pictures(tmp_path, torch.rand(2, 3, 128, 128), torch.tensor([1, 2]), torch.eye(3)[:2], draw_gt=False)
    assert Image.open(found[0]).size == (128, 128 + 14)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the inputs of a test batch are torch.float32\[2, 4\], no pictures"):
        pictures(tmp_path, torch.rand(2, 4), torch.tensor([1, 2]), torch.eye(3)[:2])
    hook = NaiveVisualizationHook()
    with pytest.raises(TrainingError, match="the inputs of a test batch are list, no pictures"):
        hook.after_test_iter(runner_of(Engine(), hook), 0, [[torch.rand(3, 4, 4), torch.rand(2, 4, 4)], None])
    with pytest.raises(ValueError, match="interval is 0, must be at least 1"):
        NaiveVisualizationHook(interval=0)

"""The complete examples below configs/ learn what they say, and resume bit for bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from tests.parallel.worlds import run_worlds
from tests.resume.outcomes import difference, outcome
from treenail.adapters.comm import current_communicator
from treenail.adapters.data import Digits
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import train
from treenail.adapters.runtime.trained import load_trained
from treenail.contracts import Run
from treenail.kernel import Engine, Hook, late, spec

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def config(name: str) -> ModuleType:
    location = importlib.util.spec_from_file_location(f"treenail_configs_{name}", CONFIGS / f"{name}.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def flat(split: str) -> tuple[Tensor, Tensor]:
    digits = Digits(split)  # type: ignore[arg-type]  # one of its three
    return torch.stack([digits[index][0].flatten() for index in range(len(digits))]), digits.labels


def test_the_gan_draws_all_ten_digits(tmp_path: Path) -> None:
    module = config("gan")
    # Half of the training is enough to see that.
    run: Run = msgspec.structs.replace(module.run, loop=late(EpochLoop)(max_epochs=30))
    summary = train(run, tmp_path / "run")
    model, loss = load_trained(run, f"{summary.checkpoints}/latest")
    assert loss is None
    torch.manual_seed(0)
    noise = torch.randn(500, 32)
    with torch.no_grad():
        drawn = model.eval()(noise).flatten(1)
        untrained = module.Gan().eval()(noise).flatten(1)
    known, labels = flat("train")

    def distance(images: Tensor) -> float:
        return float(torch.cdist(images, known).min(1).values.mean())

    nearest = labels[torch.cdist(drawn, known).min(1).indices]
    assert distance(drawn) < 0.6 * distance(untrained)
    assert distance(drawn) < 0.6 * distance(torch.rand(500, 64))
    assert torch.bincount(nearest, minlength=10).min() >= 5


def test_the_language_model_learns_more_than_how_often_letters_are(tmp_path: Path) -> None:
    module = config("language_model")
    # Half of the training is enough to see that.
    run = msgspec.structs.replace(module.run, loop=late(EpochLoop)(max_epochs=module.EPOCHS // 2))
    summary = train(run, tmp_path / "run")
    pieces = module.Documentation()
    letters = torch.cat([pieces[index][1] for index in range(len(pieces))])
    shares = torch.bincount(letters).double() / len(letters)
    entropy = float(-(shares[shares > 0] * shares[shares > 0].log()).sum())
    assert summary.metrics["val/loss"] < entropy - 0.4


def train_gan_on_ranks(directory: Path) -> None:
    run: Run = config("gan").run
    equal = spec(EqualOnRanks)()
    train(msgspec.structs.replace(run, loop=late(EpochLoop)(max_epochs=1), hooks={"equal": equal}), directory / "run")


class EqualOnRanks(Hook):
    """Asserts that all ranks have the same weights, which are not those that they began with."""

    def __init__(self) -> None:
        self._first: Tensor | None = None

    @override
    def before_train(self, engine: Engine) -> None:
        self._first = self._weights(engine)

    @override
    def after_train(self, engine: Engine) -> None:
        weights = self._weights(engine)
        found = current_communicator().all_gather(weights)
        assert len(found) == 2
        assert torch.equal(found[0], found[1])
        assert self._first is not None
        assert not torch.equal(weights, self._first)

    def _weights(self, engine: Engine) -> Tensor:
        parameters = engine.part("model", nn.Module).parameters()
        return torch.cat([parameter.detach().flatten() for parameter in parameters])


def test_two_ranks_train_one_gan(tmp_path: Path) -> None:
    assert run_worlds([(2, (train_gan_on_ranks,))], tmp_path) == {}


class StopAt(Hook):
    """Stops with a checkpoint after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step + 1 == self.step:
            engine.request_checkpoint("the test")
            engine.request_stop("the test")


@pytest.mark.parametrize(("name", "steps"), [("gan", (7, 25)), ("language_model", (3,))])
def test_they_resume_bit_for_bit(tmp_path: Path, name: str, steps: tuple[int, ...]) -> None:
    module = config(name)
    run: Run = module.run
    if name == "language_model":
        small = msgspec.structs.replace(run.train, dataset=spec(module.Documentation)(pieces=6 * 8), batch_size=8)
        run = msgspec.structs.replace(run, train=small, val=None)
    run = msgspec.structs.replace(run, loop=late(EpochLoop)(max_epochs=2))
    train(run, tmp_path / "whole")
    whole = outcome(tmp_path / "whole").state
    for step in steps:
        work_dir = tmp_path / f"resumed-{step}"
        hooks = {**run.hooks, "stop": spec(StopAt)(step)}
        assert train(msgspec.structs.replace(run, hooks=hooks), work_dir).step == step
        hooks["stop"] = spec(StopAt)(-1)
        train(msgspec.structs.replace(run, hooks=hooks), work_dir, resume="latest")
        assert difference(outcome(work_dir).state, whole) is None, step

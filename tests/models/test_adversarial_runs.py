"""Models with several optimizers, trained by steps with micro-batches, bfloat16, clipping and averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from tests.models.adversarial import STEPS, Adversaries, run
from tests.resume.outcomes import difference, outcome
from treenail.adapters.optim import OptimWrapper, OwnStep
from treenail.adapters.parallel import fully_sharded
from treenail.adapters.runtime import train
from treenail.contracts import Distributed
from treenail.kernel import TrainingError, late, spec


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, stop: int) -> None:
    assert train(run(chance=True), tmp_path / "whole").step == STEPS
    assert train(run(chance=True, stop=stop), tmp_path / "parts").step == stop
    torch.manual_seed(99)  # as another process would have it
    assert train(run(chance=True), tmp_path / "parts", resume="latest").step == STEPS
    assert difference(outcome(tmp_path / "parts"), outcome(tmp_path / "whole")) is None


class TakesTurns(Adversaries):
    """Lets each learn in every second step, and leaves the gradients that the generator's loss gives the discriminator."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__(chance=True)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        real, noise = data
        self.count += 1
        name = "discriminator" if self.count % 2 else "generator"
        with optim_wrapper[name].optim_context(self):
            seen = real if self.count % 2 else self.generator(noise)
            loss = softplus(-self.discriminator(seen)).mean()
        optim_wrapper[name].update_params(loss)
        return {"loss": loss}


class AddsUp(nn.Module):
    """Differentiates by itself, and updates with the gradients of three steps."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 1)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        loss = self.net(data[0]).square().mean()
        loss.backward()
        self.count += 1
        if self.count % 3 == 0:
            optim_wrapper.step()
            optim_wrapper.zero_grad()
        return {"loss": loss}


def test_gradients_that_a_model_adds_up_by_itself_live_until_its_update(tmp_path: Path) -> None:
    batches = [(torch.full((2, 4), float(n)),) for n in range(1, 7)]
    ours, plain = AddsUp(), AddsUp()
    step = OwnStep(ours, OptimWrapper(torch.optim.SGD(ours.parameters(), lr=0.1)))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for batch in batches:
        step(batch)
        plain.train_step(batch, optimizer)
    assert torch.equal(ours.net.weight, plain.net.weight)

    def settings(end: int | None = None) -> Any:
        own = {"model": spec(AddsUp)(), "optimizer": late(torch.optim.SGD)(lr=0.1), "updates": None}
        return msgspec.structs.replace(run(chance=True, stop=end), **own)

    train(settings(), tmp_path / "whole")
    train(settings(5), tmp_path / "parts")
    train(settings(), tmp_path / "parts", resume="latest")
    assert difference(outcome(tmp_path / "parts"), outcome(tmp_path / "whole")) is None


@pytest.mark.parametrize("stop", [4, 6])
def test_gradients_that_another_optimizers_loss_left_are_in_no_later_update(tmp_path: Path, stop: int) -> None:
    def settings(end: int | None = None) -> Any:
        return msgspec.structs.replace(run(chance=True, stop=end), model=spec(TakesTurns)(), updates=None)

    train(settings(), tmp_path / "whole")
    train(settings(stop), tmp_path / "parts")
    train(settings(), tmp_path / "parts", resume="latest")
    assert difference(outcome(tmp_path / "parts"), outcome(tmp_path / "whole")) is None


def test_parts_that_a_train_step_calls_are_units_of_a_sharded_model(tmp_path: Path) -> None:
    def settings(**options: Any) -> Any:
        sharded = Distributed(parallel=late(fully_sharded)(**options))
        return msgspec.structs.replace(run(chance=False), distributed=sharded)

    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        with pytest.raises(
            TrainingError, match=r"distributed\.parallel: train_step of \w+ calls a module .* classes: "
        ):
            train(settings(), tmp_path / "whole")
        assert train(settings(classes=("Sequential",)), tmp_path / "parts").step == STEPS
    finally:
        dist.destroy_process_group()

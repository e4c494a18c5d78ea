"""Models that train themselves on two ranks: the update is that of one process with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.models import adversarial
from tests.parallel.worlds import run_worlds
from tests.resume.outcomes import difference, outcome
from treenail.adapters.comm import current_communicator
from treenail.adapters.models import BaseModel, ImgDataPreprocessor, trained_through
from treenail.adapters.optim import OptimWrapper
from treenail.adapters.parallel import bare, data_parallel, fully_sharded
from treenail.adapters.runtime import train
from treenail.adapters.weights import open_source, weights_of
from treenail.kernel import TrainingError


class Net(BaseModel):
    def __init__(self) -> None:
        super().__init__(ImgDataPreprocessor([1.0], [2.0]))
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        scores = self.net(inputs)
        if mode == "predict":
            return list(scores.argmax(1))
        return {"loss": nn.functional.cross_entropy(scores, data_samples), "loss_norm": scores.square()}


class Twice(Net):
    """Has a step of its own around the usual one."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        assert isinstance(self, Twice)
        return {f"{name}_again": value for name, value in super().train_step(data, optim_wrapper).items()}


class PartsOnly(Net):
    """Calls a part of itself, past the wrapper."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        loss = self.net(self.data_preprocessor(data)["inputs"]).square().mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


def batches(count: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 9, (count, 4, 1, 2, 2), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count, 4), generator=generator)
    return [{"inputs": each, "data_samples": label} for each, label in zip(images, labels, strict=True)]


def share(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[current_communicator().rank :: 2] for name, value in batch.items()}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def weights(model: nn.Module) -> Tensor:
    values = [each.full_tensor() if hasattr(each, "full_tensor") else each for each in model.parameters()]
    return torch.cat([value.detach().flatten() for value in values])


def an_update_is_that_of_the_whole_batch(directory: Path) -> None:
    for kind, wrap in ((Net, data_parallel), (Twice, data_parallel), (Twice, fully_sharded)):
        alone, spread = kind(), trained_through(wrap(kind()))
        assert isinstance(spread, BaseModel if wrap is fully_sharded else DistributedDataParallel)
        one, other = OptimWrapper(sgd(alone)), OptimWrapper(sgd(spread))
        for batch in batches(3):
            alone.train_step(batch, one)
            logs = spread.train_step(share(batch), other)  # type: ignore[operator]  # a module of torch's type
        assert list(logs) == (["loss", "loss_norm"] if kind is Net else ["loss_again", "loss_norm_again"])
        torch.testing.assert_close(weights(spread), weights(alone))
        assert set(bare(spread).state_dict()) == set(alone.state_dict())
        spread_predicts = bare(spread).val_step(batches(1)[0])  # type: ignore[operator]
        assert spread_predicts == alone.val_step(batches(1)[0])


def accumulation_communicates_once(directory: Path) -> None:
    ranks = current_communicator()
    alone, spread = Net(), trained_through(data_parallel(Net()))
    one, other = OptimWrapper(sgd(alone), 2), OptimWrapper(sgd(spread), 2)
    for index, batch in enumerate(batches(4)):
        alone.train_step(batch, one)
        spread.train_step(share(batch), other)  # type: ignore[operator]
        if index % 2 == 0:
            mine = torch.cat([each.grad.flatten() for each in spread.parameters() if each.grad is not None])
            first, second = ranks.all_gather(mine)
            assert not torch.equal(first, second), "gradients were communicated before the last pass"
    torch.testing.assert_close(weights(spread), weights(alone))


def a_step_past_the_wrapper_is_refused(directory: Path) -> None:
    spread = trained_through(data_parallel(PartsOnly()))
    with pytest.raises(TrainingError, match="train_step of PartsOnly never called the model itself"):
        spread.train_step(share(batches(1)[0]), OptimWrapper(sgd(spread)))  # type: ignore[operator]


def several_optimizers_make_the_updates_of_one_process(directory: Path) -> None:
    train(adversarial.run(chance=False), directory / "two")
    if current_communicator().rank == 0:
        one, two = (open_source(directory / name / "checkpoints" / "latest") for name in ("one", "two"))
        for part in ("model", "averages"):
            torch.testing.assert_close(weights_of(two, part), weights_of(one, part), rtol=1e-5, atol=1e-6)


def several_optimizers_go_on_bit_for_bit(directory: Path) -> None:
    train(adversarial.run(chance=True), directory / "whole")
    train(adversarial.run(chance=True, stop=7), directory / "parts")
    train(adversarial.run(chance=True), directory / "parts", resume="latest")
    if current_communicator().rank == 0:
        assert difference(outcome(directory / "parts"), outcome(directory / "whole")) is None


def test_on_two_ranks(tmp_path: Path) -> None:
    checks = (
        an_update_is_that_of_the_whole_batch,
        accumulation_communicates_once,
        a_step_past_the_wrapper_is_refused,
        several_optimizers_make_the_updates_of_one_process,
        several_optimizers_go_on_bit_for_bit,
    )
    train(adversarial.run(chance=False), tmp_path / "one")
    assert run_worlds([(2, checks)], tmp_path) == {}


def test_what_is_not_wrapped_stays_what_it_is() -> None:
    model = Net()
    assert trained_through(model) is model
    assert type(model) is Net

"""Modules, optimizers and schedulers of torch go on from a frozen and thawed state as if undisturbed."""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import lr_scheduler

from treenail.adapters.checkpoint import Snapshot, freeze, thaw


def again(state: object) -> dict[str, Any]:
    tree, tensors = freeze(state)
    return cast("dict[str, Any]", thaw(Snapshot(json.loads(json.dumps(tree)), load(save(tensors)))))


def test_a_fused_optimizer_of_a_channels_last_model_goes_on_bit_for_bit() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 8, 3)
        model.weight.data = model.weight.data.to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(inputs.to(memory_format=torch.channels_last)).square().sum().backward()
            optimizer.step()

    undisturbed, its_optimizer = build()
    train(undisturbed, its_optimizer, range(3))
    found = again({"model": undisturbed.state_dict(), "optimizer": its_optimizer.state_dict()})
    train(undisturbed, its_optimizer, range(3, 6))
    resumed, optimizer = build()
    resumed.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    train(resumed, optimizer, range(3, 6))
    for ours, theirs in zip(resumed.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Versioned(nn.Module):
    """Counts from 1 since its version 2; what says no version is old."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.ones(1))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, int], *rest: object
    ) -> None:
        if local_metadata.get("version", 1) < 2:
            state_dict[prefix + "count"] = state_dict[prefix + "count"] + 1
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_the_state_of_a_module_keeps_the_versions_of_its_modules() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Versioned())
    found = again(model.state_dict())
    assert type(found) is OrderedDict
    versions = [vars(state)["_metadata"] for state in (found, model.state_dict())]
    assert versions[0] == versions[1]
    model.load_state_dict(found)
    assert model.state_dict()["2.count"].item() == 1


def optimizers() -> list[type[torch.optim.Optimizer]]:
    found = [each for _, each in inspect.getmembers(torch.optim, inspect.isclass)]
    return [each for each in found if issubclass(each, torch.optim.Optimizer) and each is not torch.optim.Optimizer]


@pytest.mark.parametrize("kind", optimizers())
def test_every_optimizer_of_torch_goes_on_bit_for_bit(kind: type[torch.optim.Optimizer]) -> None:
    def build() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))
        return weight, kind([weight], lr=0.01)  # type: ignore[call-arg]  # the base class takes none

    def step(weight: nn.Parameter, optimizer: torch.optim.Optimizer, times: int) -> None:
        def closure() -> float:
            weight.grad = (2 * weight.detach()).to_sparse() if kind is torch.optim.SparseAdam else 2 * weight.detach()
            return weight.detach().square().sum().item()

        for _ in range(times):
            optimizer.step(closure)

    weight, optimizer = build()
    step(weight, optimizer, 3)
    found = again({"weight": weight, "optimizer": optimizer.state_dict()})
    step(weight, optimizer, 3)
    resumed, its_optimizer = build()
    resumed.data.copy_(found["weight"])
    its_optimizer.load_state_dict(found["optimizer"])
    step(resumed, its_optimizer, 3)
    assert torch.equal(resumed, weight)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 4),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.MultiStepLR(o, [1, 2])], [6]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o), lr_scheduler.MultiStepLR(o, [2, 5])]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01),
}


def test_every_scheduler_of_torch_is_tried() -> None:
    found = {name for name in dir(lr_scheduler) if name in lr_scheduler.__all__}
    assert found - {"LRScheduler"} == SCHEDULERS.keys() - {"SWALR"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_goes_on(name: str) -> None:
    def build() -> tuple[torch.optim.Optimizer, lr_scheduler.LRScheduler]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        return optimizer, SCHEDULERS[name](optimizer)

    def rates(optimizer: torch.optim.Optimizer, scheduler: lr_scheduler.LRScheduler) -> list[float]:
        found = []
        for _ in range(4):
            optimizer.step()
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))  # type: ignore[arg-type]  # its metric
            found.append(optimizer.param_groups[0]["lr"])
        return found

    optimizer, scheduler = build()
    rates(optimizer, scheduler)
    found = again({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    resumed, its_scheduler = build()
    resumed.load_state_dict(found["optimizer"])
    its_scheduler.load_state_dict(found["scheduler"])
    assert rates(resumed, its_scheduler) == rates(optimizer, scheduler)

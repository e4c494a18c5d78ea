"""The learning rate range test: what it finds, and that it leaves no trace."""

from __future__ import annotations

import copy
import random
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.data import Batches, Loader
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict, SupervisedStep
from treenail.adapters.runtime import train, tune_lr
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.seeding import RngState
from treenail.adapters.tuning import LrSweep, find_lr, left_unchanged
from treenail.contracts import Data, Run, StepOutput
from treenail.kernel import ConfigError, Stateful, TrainingError, TreenailError, late, spec

Make = type[torch.optim.Adam] | type[torch.optim.SGD]


class Points:
    """Points of a plane with a little noise, drawn anew each time."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(3, generator=torch.Generator().manual_seed(index))
        return inputs + 0.01 * torch.randn(3), inputs.sum().reshape(1) + 0.01 * random.random()


class Network(nn.Module):
    """Has everything that a step may change: parameters, buffers that are saved and not, a mode, noise."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen += 1
        outputs: Tensor = self.layers(inputs)
        return outputs


def build(steps: int, make: Make = torch.optim.Adam) -> tuple[SupervisedStep, dict[str, Stateful]]:
    """Return a training step and the parts of its run, some steps after its beginning."""
    torch.manual_seed(0)
    model, dataset = Network(), Points()
    model.layers[2].eval()
    groups: list[dict[str, Any]] = [  # as torch types them
        {"params": model.layers[0].parameters()},
        {"params": model.layers[1:].parameters(), "lr": 5e-4},
    ]
    optimizer = make(groups, lr=1e-3)
    wrapper = OptimWrapper(optimizer, clip_norm=1.0)
    batches = Loader(dataset, RandomSampler(dataset, 3), batch_size=4, seed=5)
    step = SupervisedStep(model, nn.MSELoss(), wrapper)
    for _, batch in zip(range(steps), batches, strict=False):
        step(batch)
        batches.advance()
    return step, {"model": model, "optimizer": optimizer, "updates": wrapper, "batches": batches, "rng": RngState()}


def everything(parts: dict[str, Stateful]) -> dict[str, object]:
    """Return all that could have changed, copied."""
    model, optimizer, batches = parts["model"], parts["optimizer"], parts["batches"]
    assert isinstance(model, nn.Module)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(batches, Loader)
    return copy.deepcopy(
        {
            "states": {name: part.state_dict() for name, part in parts.items()},
            "buffers": [each.detach() for each in model.buffers()],
            "gradients": [each.grad for each in model.parameters()],
            "modes": [each.training for each in model.modules()],
            "groups": [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
            "generators": [torch.get_rng_state(), random.getstate(), list(np.random.get_state())[1:]],
            "next": [batch for _, batch in zip(range(12), batches, strict=False)],
        }
    )


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, np.ndarray):
        return np.array_equal(ours, theirs)  # type: ignore[arg-type]  # of whatever it is
    return bool(ours == theirs)


def sweep(parts: dict[str, Stateful], step: SupervisedStep, **options: float) -> LrSweep:
    optimizer, batches = parts["optimizer"], parts["batches"]
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(batches, Loader)
    return find_lr(step, batches, optimizer, parts, **options)  # type: ignore[arg-type]  # of tests


@pytest.mark.parametrize("steps", [0, 3, 9])
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_a_sweep_leaves_everything_as_it_was(steps: int, make: Make) -> None:
    """Bit for bit, and the training that follows is the one that would have followed."""
    step, parts = build(steps, make)
    model = parts["model"]
    assert isinstance(model, nn.Module)
    addresses = [each.data_ptr() for each in [*model.parameters(), *model.buffers()]]
    before = everything(parts)
    found = sweep(parts, step, lowest=1e-5, highest=100.0, steps=30)
    assert len(found.lrs) > 10, "it went over more batches than there are"
    assert same(everything(parts), before)
    assert [each.data_ptr() for each in [*model.parameters(), *model.buffers()]] == addresses
    other_step, other_parts = build(steps, make)
    for (own, of), network in (((step, parts), model), ((other_step, other_parts), other_parts["model"])):
        batches = of["batches"]
        assert isinstance(batches, Loader)
        torch.manual_seed(9)
        for batch in batches:
            own(batch)
        assert isinstance(network, nn.Module)
    assert same(dict(model.state_dict()), dict(other_parts["model"].state_dict()))


def test_whatever_is_done_inside_is_undone_though_it_failed() -> None:
    step, parts = build(2)
    del parts["rng"]
    model, optimizer, batches = parts["model"], parts["optimizer"], parts["batches"]
    assert isinstance(model, nn.Module)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(batches, Loader)
    before = everything(parts)

    def change() -> None:
        step(next(iter(batches)))
        batches.advance()
        model.eval()
        torch.rand(3)
        random.random()
        np.random.rand(2)
        optimizer.param_groups[0]["lr"] = 7.0
        optimizer.param_groups[1]["further"] = 1
        assert not same(everything(parts), before)
        raise ArithmeticError

    with pytest.raises(ArithmeticError), left_unchanged(parts):
        change()
    assert same(everything(parts), before)


def test_rates_grow_by_the_same_factor_and_groups_keep_their_ratio() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    groups: list[dict[str, Any]] = [{"params": layers[0].parameters(), "lr": 0.02}, {"params": layers[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    seen: list[list[float]] = []
    inner = SupervisedStep(layers, nn.MSELoss(), optimizer)

    def step(batch: object) -> StepOutput:
        seen.append([group["lr"] for group in optimizer.param_groups])
        return inner(batch)

    data = Batches([(torch.ones(2, 3), torch.ones(2, 1))])
    found = find_lr(
        step, data, optimizer, {"model": layers, "optimizer": optimizer}, lowest=1e-6, highest=1e-2, steps=13
    )
    assert not found.diverged
    assert len(found.lrs) == 13
    assert found.lrs[0] == pytest.approx(1e-6)
    assert found.lrs[-1] == pytest.approx(1e-2)
    factors = [after / before for before, after in pairwise(found.lrs)]
    assert factors == pytest.approx([factors[0]] * 12)
    assert [rates[1] for rates in seen] == pytest.approx(list(found.lrs))
    assert all(first / second == pytest.approx(0.2) for first, second in seen)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.1]


def test_the_loss_is_smoothed_and_a_divergence_ends_the_sweep() -> None:
    """On the parabola x² gradient descent diverges from a rate of 1 on."""
    point = nn.Parameter(torch.tensor([1.0]))
    module = nn.ParameterList([point])
    optimizer = torch.optim.SGD([point], lr=0.1)

    def step(batch: object) -> StepOutput:
        optimizer.zero_grad()
        loss = point.square().sum()
        torch.autograd.backward(loss)
        optimizer.step()
        return StepOutput(loss.item(), 1.0)

    parts: dict[str, Stateful] = {"model": module, "optimizer": optimizer}
    found = find_lr(step, [0], optimizer, parts, lowest=1e-4, highest=1e3, steps=200)
    assert found.diverged
    assert all(map(isfinite, found.losses))
    average = 0.0
    for index, (loss, smoothed) in enumerate(zip(found.losses, found.smoothed, strict=True)):
        average = 0.9 * average + 0.1 * loss
        assert smoothed == pytest.approx(average / (1 - 0.9 ** (index + 1)))
    assert 1.0 < found.lrs[-1] < 100.0
    assert 1e-3 < found.steepest < 1.0
    assert found.smoothed[-1] > 4 * min(found.smoothed)
    assert float(point.detach()) == 1.0


def test_suggestions_are_those_of_the_curve() -> None:
    lrs = tuple(10.0**power for power in range(-9, 1))
    smoothed = (7.0, 1.0, 6.0, 5.0, 4.9, 4.0, 2.0, 1.5, 1.2, 9.0)  # the first third is noise
    found = LrSweep(lrs, smoothed, smoothed, diverged=True)
    assert found.steepest == 1e-4, "from 4.9 to 2.0"
    assert found.minimum_tenth == pytest.approx(1e-2)
    bump = (*smoothed[:9], 9.0, 1.3)  # what falls behind the least loss has risen before
    assert LrSweep((*lrs, 10.0), bump, bump, diverged=False).steepest == 1e-4
    rising = tuple(float(at) for at in range(10))
    assert LrSweep(lrs, rising, rising, diverged=False).steepest in lrs, "there is no better one"
    short = LrSweep(lrs[:3], (3.0, 2.0, 9.0), (3.0, 2.0, 9.0), diverged=True)
    assert short.steepest in lrs[:3]


def test_what_cannot_be_swept_is_an_error() -> None:
    step, parts = build(0)
    wrong = ({"lowest": 1.0, "highest": 0.1}, {"highest": inf}, {"steps": 3}, {"smoothing": 1.0}, {"diverged": 1.0})
    for options in wrong:
        name, value = list(options.items())[-1]
        with pytest.raises(ValueError, match=f"{name}={value}"):
            sweep(parts, step, **options)
    optimizer = parts["optimizer"]
    assert isinstance(optimizer, torch.optim.Optimizer)
    with pytest.raises(TrainingError, match="no batch to train on"):
        find_lr(step, [], optimizer, parts)
    lost = [(torch.full((4, 3), float("inf")), torch.ones(4, 1))]
    with pytest.raises(TrainingError, match="within three steps"):
        find_lr(step, lost, optimizer, parts)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with pytest.raises(ValueError, match="are 0"):
        sweep(parts, step)


def config() -> Run:
    return Run(
        model=spec(Network)(),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.Adam)(lr=1e-3),
        train=Data(dataset=spec(Points)(), batch_size=4, num_workers=2),
        loop=late(EpochLoop)(max_epochs=1),
        hooks={"progress": None},
    )


def test_whatever_a_wrapper_counts_is_as_before() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"one": OptimWrapper(optimizer, accumulative_counts=2), "several": OptimWrapper(optimizer)}
    parts: dict[str, Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "updates": names["one"],
        "others": OptimWrapperDict(several=names["several"]),
    }
    with left_unchanged(parts):
        for wrapper in names.values():
            for _ in range(3):
                wrapper.update_params(model(torch.ones(2, 3)).sum())
            assert wrapper.steps > 0
    for wrapper in names.values():
        assert (wrapper.steps, wrapper.inner_count) == (0, 0)
    names["one"].update_params(model(torch.ones(2, 3)).sum())
    assert names["one"].steps == 0, "the first of two losses makes no update"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": late(torch.optim.Adam)(lr=0.0)}, "optimizer.lr: the learning rate is 0"),
        (
            {"train": Data(dataset=spec(Points)(), batch_size=64, drop_last=True)},
            "with drop_last, smaller than a batch",
        ),
    ],
)
def test_a_run_that_cannot_be_swept_says_why(change: dict[str, object], message: str) -> None:
    with pytest.raises(TreenailError, match=message):
        tune_lr(msgspec.structs.replace(config(), **change))


def test_the_rate_of_a_whole_run_is_found_without_a_trace(tmp_path: Path) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, second = (tune_lr(config(), lowest=1e-6, highest=10.0, steps=40) for _ in range(2))
    assert first == second, "it follows from the config's seed"
    assert torch.equal(torch.get_rng_state(), before)
    assert 1e-5 < first.steepest < 1.0
    assert train(config(), tmp_path).step == 10
    with pytest.raises(ConfigError, match="cannot be used"):
        tune_lr(Run(**{**{name: getattr(config(), name) for name in config().__struct_fields__}, "device": "cuda:7"}))

"""The benchmark `optim`: what an update costs over a bare backward, step and zero_grad."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import torch
from scripts.benchmarks._timing import Figures, compare, interleave
from torch import Tensor, nn

from treenail.adapters.optim import OptimWrapper

METHOD = (
    "nn.Linear(8, 1), 32 samples, MSE, SGD: an iteration is forward, loss and update. Each turn is the median of many, between "
    "two turns of the bare loop; 'over bare' is the median of the differences in microseconds. All reach the same weights."
)

Update = Callable[[], None]


def race_updates(rounds: int, iterations: int = 250) -> dict[str, Figures]:
    """Let everybody update the same model in turns; times are microseconds of an iteration.

    Args:
        rounds: How many turns of each are counted.
        iterations: How many make up a turn.

    Raises:
        AssertionError: Somebody's weights are others.
    """
    reference, weights = _bare()
    contestants = _contestants()
    turns = {name: _turn(update, iterations) for name, (update, _) in contestants.items()}
    series = interleave(_turn(reference, iterations), turns, rounds)
    for name, (update, reached) in contestants.items():
        for _ in range(10_000):  # all are at the minimum then
            update()
        if not torch.allclose(reached(), weights(), atol=1e-4):
            raise AssertionError(f"'{name}' trained otherwise")
    return {name: compare(found) for name, found in series.items()}


def _data() -> tuple[Tensor, Tensor, nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    inputs = torch.randn(32, 8)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return inputs, inputs.sum(1, keepdim=True), model, optimizer


def _bare() -> tuple[Update, Callable[[], Tensor]]:
    inputs, targets, model, optimizer = _data()

    def update() -> None:
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizer.step()
        optimizer.zero_grad()

    return update, model.weight.detach


def _contestants() -> Mapping[str, tuple[Update, Callable[[], Tensor]]]:
    return {
        "bare again": _bare(),
        "treenail": _treenail(),
        "treenail, losses with weights": _treenail(weight=32.0),
        "treenail, clipping": _treenail(clip=1e6),
        "bare, clipping": _bare_clipping(),
        "mmengine OptimWrapper": _mmengine(),
        "accelerate": _accelerate(),
        "lightning Fabric": _fabric(),
    }


def _treenail(weight: float | None = None, clip: float | None = None) -> tuple[Update, Callable[[], Tensor]]:
    inputs, targets, model, optimizer = _data()
    optim = OptimWrapper(optimizer, clip_norm=clip)

    def update() -> None:
        with optim.optim_context(model):
            loss = nn.functional.mse_loss(model(inputs), targets)
        optim.update_params(loss, weight)

    return update, model.weight.detach


def _bare_clipping() -> tuple[Update, Callable[[], Tensor]]:
    inputs, targets, model, optimizer = _data()

    def update() -> None:
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(model.parameters(), 1e6)
        optimizer.step()
        optimizer.zero_grad()

    return update, model.weight.detach


def _mmengine() -> tuple[Update, Callable[[], Tensor]]:
    from mmengine.optim import OptimWrapper as Theirs

    inputs, targets, model, optimizer = _data()
    optim = Theirs(optimizer)

    def update() -> None:
        with optim.optim_context(model):
            loss = nn.functional.mse_loss(model(inputs), targets)
        optim.update_params(loss)

    return update, model.weight.detach


def _accelerate() -> tuple[Update, Callable[[], Tensor]]:
    from accelerate import Accelerator

    inputs, targets, model, optimizer = _data()
    accelerator = Accelerator(cpu=True)
    prepared, stepped = accelerator.prepare(model, optimizer)

    def update() -> None:
        with accelerator.accumulate(prepared):
            loss = nn.functional.mse_loss(prepared(inputs), targets)
            accelerator.backward(loss)
            stepped.step()
            stepped.zero_grad()

    return update, model.weight.detach


def _fabric() -> tuple[Update, Callable[[], Tensor]]:
    from lightning.fabric import Fabric

    inputs, targets, model, optimizer = _data()
    fabric = Fabric(accelerator="cpu", devices=1)
    prepared, stepped = fabric.setup(model, optimizer)

    def update() -> None:
        loss = nn.functional.mse_loss(prepared(inputs), targets)
        fabric.backward(loss)
        stepped.step()
        stepped.zero_grad()

    return update, model.weight.detach


def _turn(update: Update, iterations: int) -> Callable[[], float]:
    def turn() -> float:
        times = []
        for _ in range(iterations):
            began = perf_counter()
            update()
            times.append(perf_counter() - began)
        return sorted(times)[iterations // 2] * 1e6

    return turn

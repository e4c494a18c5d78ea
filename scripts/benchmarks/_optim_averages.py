"""The benchmark `optim`: an exponential average of 13 million weights against one bare `torch._foreach_lerp_`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import perf_counter

import torch
from scripts.benchmarks._timing import Figures, compare, interleave
from torch import Tensor, nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.averaging.compat import ExponentialMovingAverage
from treenail.adapters.hooks import AveragingHook
from treenail.contracts import StepOutput
from treenail.kernel import Engine

MOMENTUM = 0.001
LAYERS, WIDTH = 50, 509
"""50 linear layers of 509 × 509 and a bias: 13.0 million parameters in 100 tensors, each followed by batch normalisation."""

METHOD = (
    f"EMA of {LAYERS * WIDTH * (WIDTH + 1) / 1e6:.1f} million float32 parameters in {2 * LAYERS} tensors, with "
    f"{3 * LAYERS} buffers that follow the model. Each turn is the median of several updates, between two turns of the bare "
    "torch._foreach_lerp_ over the same parameters; ratios are medians over rounds. 'bfloat16' has weights of 16 bits, averaged "
    "in float32, against the same reference. All others end with the same averages."
)


class Model(nn.Module):
    """Linear layers with the buffers of batch normalisation, whose affine parameters would be tensors of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, affine=False)) for _ in range(LAYERS))
        )


def race_averages(rounds: int, updates: int = 10) -> dict[str, Figures]:
    """Let everybody average the same weights in turns; times are milliseconds of an update.

    Args:
        rounds: How many turns of each are counted.
        updates: How many make up a turn.

    Raises:
        AssertionError: Somebody's averages are others.
    """
    model = Model()
    others = _contestants(model)
    plain = [parameter.detach().clone() for parameter in model.parameters()]
    current: list[Tensor] = list(model.parameters())

    def bare() -> None:
        torch._foreach_lerp_(plain, current, MOMENTUM)

    turns = {name: _turn(update, updates) for name, (update, _) in others.items()}
    with torch.no_grad():
        found = interleave(_turn(bare, updates), turns, rounds)
        _check(model, others)
    return {name: compare(series) for name, series in found.items()}


def _contestants(model: Model) -> dict[str, tuple[Callable[[], None], Callable[[], nn.Module]]]:
    """Return how each updates, and its averaged module."""
    from mmengine.model.averaged_model import ExponentialMovingAverage as MmengineAverage
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    averages = exponential_average(model, momentum=MOMENTUM)
    hooked = exponential_average(model, momentum=MOMENTUM)
    engine, hook, stepped = Engine({"averages": hooked}), AveragingHook(), StepOutput(loss=0.0, weight=1.0)
    hook.before_train(engine)
    low = exponential_average(Model().bfloat16(), momentum=MOMENTUM)
    seeds = ExponentialMovingAverage(model, momentum=MOMENTUM)
    mmengine = MmengineAverage(model, momentum=MOMENTUM)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - MOMENTUM))  # type: ignore[no-untyped-call]  # torch leaves it so
    return {
        "treenail": (lambda: averages.update(1), averages.view),
        "treenail, hook of a run": (lambda: hook.after_train_iter(engine, 0, None, stepped), hooked.view),
        "treenail, bfloat16": (lambda: low.update(1), low.view),
        "treenail, mmengine's names": (lambda: seeds.update_parameters(model), lambda: seeds.module),
        "mmengine": (lambda: mmengine.update_parameters(model), lambda: mmengine.module),
        "timm ModelEmaV3": _timm(model),
        "lightning EMAWeightAveraging": _lightning(model),
        "torch AveragedModel": (lambda: averaged.update_parameters(model), lambda: averaged.module),
    }


def _timm(model: Model) -> tuple[Callable[[], None], Callable[[], nn.Module]]:
    """Load its file alone: the package asks for torchvision, which the averages do not."""
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    package = find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm is not installed")
    location = spec_from_file_location("timm_model_ema", Path(package.origin).with_name("utils") / "model_ema.py")
    if location is None or location.loader is None:
        raise ModuleNotFoundError("timm has no utils/model_ema.py")
    module = module_from_spec(location)
    location.loader.exec_module(module)
    averages = module.ModelEmaV3(model, decay=1 - MOMENTUM, exclude_buffers=True)
    return lambda: averages.update(model), lambda: averages.module


def _lightning(model: Model) -> tuple[Callable[[], None], Callable[[], nn.Module]]:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EMAWeightAveraging

    class Wrapped(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    wrapped, callback, step = Wrapped(), EMAWeightAveraging(decay=1 - MOMENTUM), count(1)
    callback.setup(trainer, wrapped, "fit")

    def update() -> None:  # as the trainer calls it after a step
        trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = next(step)
        callback.on_train_batch_end(trainer, wrapped, None, None, 0)

    def averaged() -> nn.Module:
        module = callback._average_model.module if callback._average_model is not None else None
        if not isinstance(module, Wrapped):
            raise TypeError("Lightning keeps its averages elsewhere")
        return module.model

    return update, averaged


def _turn(update: Callable[[], None], updates: int) -> Callable[[], float]:
    def turn() -> float:
        times = []
        for _ in range(updates):
            began = perf_counter()
            update()
            times.append(perf_counter() - began)
        return sorted(times)[updates // 2] * 1e3

    return turn


def _check(model: Model, contestants: dict[str, tuple[Callable[[], None], Callable[[], nn.Module]]]) -> None:
    """Move the weights, let everybody average them once more, and compare."""
    before = [parameter.clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.add_(1.0)
    for name, (update, averaged) in contestants.items():
        if "bfloat16" in name:
            continue
        update()
        for average, old, new in zip(averaged().parameters(), before, model.parameters(), strict=True):
            expected: Tensor = old.lerp(new, MOMENTUM)
            if not torch.allclose(average, expected, rtol=1e-5, atol=1e-6):
                raise AssertionError(f"'{name}' averages otherwise")

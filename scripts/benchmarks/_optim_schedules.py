"""The benchmark `optim`: how long a step of a schedule takes, Treenail's beside torch's and mmengine's."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch.optim import Optimizer, lr_scheduler

from treenail.adapters.schedule import Cosine, Exponential, Linear, Step, Together


class Stepped(Protocol):
    """What is measured."""

    def step(self) -> object: ...


Make = Callable[[Optimizer], Sequence[Stepped]]


PAIR = "warm-up and cosine"

METHOD = (
    "1,000 schedules step 1,000 times: each on an optimizer of its own, all on the same one, and as people build them, a "
    "warm-up and a cosine on each optimizer of two groups. The best of the rounds. 'In a run' writes a value once after all "
    "schedules of an optimizer have stepped, as a run's hook does; else it is right after each of them."
)


def contestants(steps: int) -> dict[str, dict[str, Make]]:
    """Return by shape and by library how schedules of an optimizer are made."""
    long = 10 * steps
    found: dict[str, dict[str, Make]] = {
        "exponential": {
            "treenail": lambda o: [Exponential(o, gamma=0.9999)],
            "torch": lambda o: [lr_scheduler.ExponentialLR(o, 0.9999)],
        },
        "cosine": {
            "treenail": lambda o: [Cosine(o, period=long)],
            "torch": lambda o: [lr_scheduler.CosineAnnealingLR(o, long)],
        },
        "linear": {
            "treenail": lambda o: [Linear(o, end=long + 1)],
            "torch": lambda o: [lr_scheduler.LinearLR(o, total_iters=long)],
        },
        "step": {
            "treenail": lambda o: [Step(o, step_size=100, gamma=0.99)],
            "torch": lambda o: [lr_scheduler.StepLR(o, 100, 0.99)],
        },
        PAIR: {
            "treenail": lambda o: [Linear(o, end=steps // 10 + 2), Cosine(o, period=long)],
            "torch": lambda o: [
                lr_scheduler.LinearLR(o, total_iters=steps // 10 + 1),
                lr_scheduler.CosineAnnealingLR(o, long),
            ],
        },
    }
    try:
        from mmengine.optim import scheduler as theirs
    except ImportError:
        return found
    found["exponential"]["mmengine"] = lambda o: [theirs.ExponentialLR(o, 0.9999)]
    found["cosine"]["mmengine"] = lambda o: [theirs.CosineAnnealingLR(o, T_max=long)]
    found["linear"]["mmengine"] = lambda o: [theirs.LinearLR(o, end=long + 1)]
    found["step"]["mmengine"] = lambda o: [theirs.StepLR(o, 100, 0.99)]
    found[PAIR]["mmengine"] = lambda o: [
        theirs.LinearLR(o, end=steps // 10 + 2),
        theirs.CosineAnnealingLR(o, T_max=long),
    ]
    return found


def seconds(make: Make, schedules: int, steps: int, *, one: bool, as_run: bool = False, groups: int = 1) -> float:
    """Return how long a step of one schedule takes.

    Args:
        make: Makes schedules of an optimizer.
        schedules: How many.
        steps: How many steps each makes.
        one: Whether all are of the same optimizer.
        as_run: Whether those of an optimizer step as a run steps them.
        groups: Of each optimizer.
    """
    made: list[Stepped] = []
    optimizer, count = optimizer_of(groups), 0
    while count < schedules:
        its = make(optimizer if one else optimizer_of(groups))
        count += len(its)
        made += Together.where_possible(its) if as_run and not one else its
    if as_run and one:
        made = [*Together.where_possible(made)]
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for _ in range(steps):
        for each in made:
            each.step()
    taken = time.perf_counter() - start
    gc.enable()
    return taken / (count * steps)


def optimizer_of(groups: int) -> Optimizer:
    """Return an optimizer of so many groups."""
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)], lr=0.1)


def race_schedules(rounds: int, schedules: int = 1000, steps: int = 1000) -> dict[str, dict[str, float]]:
    """Let everybody step the same schedules in turns.

    Returns:
        By shape and number of optimizers: microseconds of a step by library, and torch's times ours.
    """
    results: dict[str, dict[str, float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody steps the optimizers
        for shape, makes in contestants(steps).items():
            groups = 2 if shape == PAIR else 1
            for one in (False,) if shape == PAIR else (False, True):
                runs = [(library, make, False) for library, make in makes.items()]
                if shape == PAIR or one:
                    runs.append(("treenail in a run", makes["treenail"], True))
                best = {name: float("inf") for name, _, _ in runs}
                for _ in range(rounds):  # taking turns, so that what else the machine does meets all of them
                    for name, make, as_run in runs:
                        taken = seconds(make, schedules, steps, one=one, as_run=as_run, groups=groups)
                        best[name] = min(best[name], taken)
                row = {f"{name} µs": round(least * 1e6, 3) for name, least in best.items()}
                ratios = {
                    f"torch / {name}": round(best["torch"] / best[name], 2) for name in best if "treenail" in name
                }
                results[f"{shape}, {'one optimizer' if one else 'own optimizers'}"] = row | ratios
    return results

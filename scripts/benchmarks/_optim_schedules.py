"""How long a step of a schedule takes: Treenail's beside torch's and, where it is installed, mmengine's.

1,000 schedules step 1,000 times, each on an optimizer of its own and all on the same one; the best of several rounds.
Run as ``python scripts/benchmarks/_optim_schedules.py [schedules] [steps] [rounds]``; prints JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch.optim import Optimizer, lr_scheduler

from treenail.adapters.schedule import cosine, exponential, linear, step


class Stepped(Protocol):
    """What is measured."""

    def step(self) -> object: ...


Make = Callable[[Optimizer], Stepped]


def contestants(steps: int) -> dict[str, dict[str, Make]]:
    """Return by shape and by library how a schedule is made."""
    found: dict[str, dict[str, Make]] = {
        "exponential": {
            "treenail": lambda o: exponential(o, gamma=0.9999),
            "torch": lambda o: lr_scheduler.ExponentialLR(o, 0.9999),
        },
        "cosine": {
            "treenail": lambda o: cosine(o, period=10 * steps),
            "torch": lambda o: lr_scheduler.CosineAnnealingLR(o, 10 * steps),
        },
        "linear": {
            "treenail": lambda o: linear(o, end=10 * steps + 1),
            "torch": lambda o: lr_scheduler.LinearLR(o, total_iters=10 * steps),
        },
        "step": {
            "treenail": lambda o: step(o, step_size=100, gamma=0.99),
            "torch": lambda o: lr_scheduler.StepLR(o, 100, 0.99),
        },
    }
    try:
        from mmengine.optim import scheduler as theirs
    except ImportError:
        return found
    found["exponential"]["mmengine"] = lambda o: theirs.ExponentialLR(o, 0.9999)
    found["cosine"]["mmengine"] = lambda o: theirs.CosineAnnealingLR(o, T_max=10 * steps)
    found["linear"]["mmengine"] = lambda o: theirs.LinearLR(o, end=10 * steps + 1)
    found["step"]["mmengine"] = lambda o: theirs.StepLR(o, 100, 0.99)
    return found


def seconds(make: Make, schedules: int, steps: int, *, together: bool) -> float:
    """Return how long a step of one schedule takes."""
    count = 1 if together else schedules
    optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(count)]
    made = [make(optimizers[index % count]) for index in range(schedules)]
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for _ in range(steps):
        for each in made:
            each.step()
    taken = time.perf_counter() - start
    gc.enable()
    return taken / (schedules * steps)


def main(schedules: int = 1000, steps: int = 1000, rounds: int = 3) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")  # nobody steps the optimizers
    results: dict[str, dict[str, float]] = {}
    for shape, makes in contestants(steps).items():
        for together in (False, True):
            best = dict.fromkeys(makes, float("inf"))
            for _ in range(rounds):  # taking turns, so that what else the machine does meets all of them
                for library, make in makes.items():
                    best[library] = min(best[library], seconds(make, schedules, steps, together=together))
            row = {f"{library} µs": round(taken * 1e6, 3) for library, taken in best.items()}
            ratio = {"torch / treenail": round(best["torch"] / best["treenail"], 2)}
            results[f"{shape}, {'one optimizer' if together else 'own optimizers'}"] = row | ratio
    print(json.dumps(results, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

"""The benchmark `runtime`: what a smoothed value of the log costs a step, by the size of its window."""

# mmengine is untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from mmengine.logging import HistoryBuffer as Theirs

from treenail.adapters.logging.compat import HistoryBuffer

WINDOWS = (10, 1000, 100_000)
METHOD = "At each step a value is added, and the mean of a window of that size is asked for. The best of the rounds."


def race_windows(rounds: int, steps: int = 300) -> dict[str, dict[str, float]]:
    """Return microseconds of a step, by library and window."""
    makers: dict[str, Callable[[], HistoryBuffer | Theirs]] = {"treenail": HistoryBuffer, "mmengine": Theirs}
    results: dict[str, dict[str, float]] = {name: {} for name in makers}
    for window in WINDOWS:
        filled = {name: make() for name, make in makers.items()}
        for buffer in filled.values():
            for value in range(2 * max(WINDOWS)):
                buffer.update(value % 97, 1)
            buffer.mean(window)
        for _ in range(rounds):
            for name, buffer in filled.items():
                begin = perf_counter()
                for value in range(steps):
                    buffer.update(value, 1)
                    buffer.mean(window)
                taken = (perf_counter() - begin) / steps * 1e6
                results[name][str(window)] = min(taken, results[name].get(str(window), taken))
    return results

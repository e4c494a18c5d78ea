"""Running means between two log lines; a step only appends, the reduction happens when somebody reads."""

from __future__ import annotations

from collections.abc import Callable
from math import fsum
from typing import SupportsFloat

from treenail.kernel.errors import StateError


class Meters:
    """Named weighted means over a window, and gauges read when the window is.

    Values are kept as they come (a 0-dim tensor stays where it is, so that a GPU is not waited for) and become numbers
    in `drain` and `state_dict`.
    """

    def __init__(self) -> None:
        self._windows: dict[str, list[tuple[SupportsFloat, float]]] = {}
        self.gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, value: SupportsFloat, weight: float = 1.0) -> None:
        """Add a value to a window; `weight` is what it counts in the mean (samples of a batch, tokens …)."""
        window = self._windows.get(name)
        if window is None:
            self._windows[name] = window = []
        window.append((value, weight))

    def drain(self) -> dict[str, float]:
        """Return the weighted mean of every window and the value of every gauge, and begin new windows."""
        means = {name: _mean(window) for name, window in self._windows.items() if window}
        self._windows.clear()
        return means | {name: gauge() for name, gauge in self.gauges.items()}

    def state_dict(self) -> dict[str, object]:
        """Return the windows as lists of [value, weight]."""
        return {name: [[float(value), weight] for value, weight in window] for name, window in self._windows.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the windows of `state_dict`.

        Raises:
            StateError: The state has another form.
        """
        windows: dict[str, list[tuple[SupportsFloat, float]]] = {}
        for name, window in state_dict.items():
            if not isinstance(window, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in window):
                raise StateError("expected a list of [value, weight]", where=f"meters.{name}")
            windows[name] = [(value, weight) for value, weight in window]
        self._windows = windows


def _mean(window: list[tuple[SupportsFloat, float]]) -> float:
    total = fsum(weight for _, weight in window)
    if total == 0.0:
        return float("nan")
    return fsum(float(value) * weight for value, weight in window) / total

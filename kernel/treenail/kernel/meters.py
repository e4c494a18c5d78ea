"""Running means between two records; a step only adds, the division happens when somebody reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsFloat

from treenail.kernel.errors import StateError


class Meters:
    """Named weighted means over a window, and gauges read when the window is.

    A float is added up at once. Anything else (a 0-dim tensor) is kept as it is, so that a GPU is not waited for, and
    becomes a number in `drain` and `state_dict`; the sum is the same, addition by addition.

    Attributes:
        gauges: By name, what to call for a value when the window is read.
    """

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}
        self.gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, value: SupportsFloat, weight: SupportsFloat = 1.0) -> None:
        """Add a value to a window; `weight` is what it counts in the mean (samples of a batch, tokens …)."""
        window = self._windows.get(name)
        if window is None:
            self._windows[name] = window = _Window()
        if type(value) is float and isinstance(weight, float | int) and not window.waiting:
            window.total += value * weight
            window.weight += weight
        else:
            window.waiting.append((value, weight))

    def drain(self) -> dict[str, float]:
        """Return the weighted mean of every window and the value of every gauge, and begin new windows."""
        means = {name: window.mean() for name, window in self._windows.items()}
        self._windows.clear()
        return means | {name: gauge() for name, gauge in self.gauges.items()}

    def state_dict(self) -> dict[str, object]:
        """Return each window as [sum of weighted values, sum of weights]."""
        for window in self._windows.values():
            window.settle()
        return {name: [window.total, window.weight] for name, window in self._windows.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the windows of `state_dict`.

        Raises:
            StateError: The state has another form.
        """
        windows: dict[str, _Window] = {}
        for name, pair in state_dict.items():
            if not isinstance(pair, list) or [type(each) for each in pair] != [float, float]:
                raise StateError("expected [sum, weight]", where=f"meters.{name}")
            windows[name] = _Window()
            windows[name].total, windows[name].weight = pair
        self._windows = windows


class _Window:
    __slots__ = ("total", "waiting", "weight")

    def __init__(self) -> None:
        self.total = 0.0
        self.weight = 0.0
        self.waiting: list[tuple[SupportsFloat, SupportsFloat]] = []

    def settle(self) -> None:
        for value, weight in self.waiting:
            self.total += float(value) * float(weight)
            self.weight += float(weight)
        self.waiting.clear()

    def mean(self) -> float:
        self.settle()
        return self.total / self.weight if self.weight else float("nan")

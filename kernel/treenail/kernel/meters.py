"""Running means between two records; a step only notes its values, the sums are made when somebody reads."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, nan
from typing import SupportsFloat

from treenail.kernel.errors import StateError

_MOST_WAITING = 4096


class Meters:
    """Named weighted means over a window, and gauges read when the window is.

    What is added is kept as it is, and becomes numbers when somebody reads (or some thousands wait): a step costs next to
    nothing, and a GPU whose 0-dim tensors are added is not waited for. The sum is the same, addition by addition.

    Attributes:
        gauges: By name, what to call for a value when the window is read; NaN where nothing was measured in it.
    """

    def __init__(self) -> None:
        self._windows: dict[str, list[float]] = {}
        self._waiting: list[tuple[str, SupportsFloat, SupportsFloat]] = []
        self.gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, value: SupportsFloat, weight: SupportsFloat = 1.0) -> None:
        """Add a value to a window; `weight` is what it counts in the mean (samples of a batch, tokens …)."""
        self._waiting.append((name, value, weight))
        if len(self._waiting) >= _MOST_WAITING:
            self._settle()

    def _settle(self) -> None:
        for name, value, weight in self._waiting:
            window = self._windows.get(name)
            if window is None:
                self._windows[name] = window = [0.0, 0.0]
            counted = float(weight)
            window[0] += float(value) * counted
            window[1] += counted
        self._waiting.clear()

    def drain(self) -> dict[str, float]:
        """Return the weighted mean of every window and the value of every gauge that has one, and begin new windows."""
        self._settle()
        means = {name: total / weight if weight else nan for name, (total, weight) in self._windows.items()}
        self._windows.clear()
        return means | {name: value for name, gauge in self.gauges.items() if not isnan(value := gauge())}

    def state_dict(self) -> dict[str, object]:
        """Return each window as [sum of weighted values, sum of weights]."""
        self._settle()
        return {name: [total, weight] for name, (total, weight) in self._windows.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the windows of `state_dict`.

        Raises:
            StateError: The state has another form.
        """
        windows: dict[str, list[float]] = {}
        for name, pair in state_dict.items():
            if not isinstance(pair, list) or [type(each) for each in pair] != [float, float]:
                raise StateError("expected [sum, weight]", where=f"meters.{name}")
            windows[name] = [*pair]
        self._windows = windows
        self._waiting.clear()

"""What a vis backend may be able to do besides its port."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable


class Histogram(NamedTuple):
    """How often values lay in each of some intervals.

    Args:
        edges: Of the intervals, ascending; one more than there are counts.
        counts: Values in each interval.
        total: Sum of the values.
        squares: Sum of their squares.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    squares: float


@runtime_checkable
class TakesHistograms(Protocol):
    """A `VisBackend` that shows distributions."""

    @abstractmethod
    def histogram(self, name: str, histogram: Histogram, *, step: int) -> None:
        """Add a distribution; as scalars, those of committed steps only."""

"""What the results of metrics are called, before there are any."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class NamesResults(Protocol):
    """A metric that knows what its results will be called, so that a misspelt name is found before the training.

    Where a class overrides `compute`, what its base says does not count; it may say its own names.
    """

    @property
    @abstractmethod
    def result_names(self) -> Iterable[str] | None:
        """The names, as `compute` gives them; None where only the data tell."""
        ...


def result_names(metric: object) -> tuple[str, ...] | None:
    """Return what the results of a metric will be called; None where it does not know.

    Args:
        metric: Any metric.
    """
    if not isinstance(metric, NamesResults):
        return None
    for each in type(metric).__mro__:
        if "result_names" in vars(each):
            break
        if "compute" in vars(each) or "compute_metrics" in vars(each):
            return None
    names = metric.result_names
    return None if names is None else tuple(names)


__all__ = ["NamesResults", "result_names"]

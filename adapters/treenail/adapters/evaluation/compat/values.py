"""Looking results up by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def get_metric_value(indicator: str, metrics: Mapping[str, T]) -> T:
    """Return a result by its name.

    Args:
        indicator: The whole name with its prefix (``"COCO/AP"``), or without prefixes (``"AP"``) where only one metric has it.
        metrics: Results by name.

    Raises:
        ValueError: No result has the name, or several have it.
    """
    if "/" in indicator:
        matching = [indicator] if indicator in metrics else []
    else:
        matching = [name for name in metrics if name.rsplit("/", 1)[-1] == indicator]
    if not matching:
        raise ValueError(f"no metric is called '{indicator}'; there are {', '.join(metrics) or 'none'}")
    if len(matching) > 1:
        raise ValueError(f"'{indicator}' is the name of several metrics; say which: {', '.join(matching)}")
    return metrics[matching[0]]

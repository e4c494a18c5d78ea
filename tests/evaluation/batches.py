"""What tests of metrics have in common: data in batches of any sizes, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from treenail.kernel import Metric


def splits(rows: int) -> st.SearchStrategy[list[list[int]]]:
    """Yield the numbers of rows in any order, cut into batches, some of them empty."""
    orders = st.permutations(range(rows))
    cuts = st.lists(st.integers(0, rows), max_size=6).map(sorted)
    return st.builds(lambda order, at: [order[i:j] for i, j in zip([0, *at], [*at, rows], strict=True)], orders, cuts)


def measured(metric: Metric, outputs: Tensor, targets: Tensor, split: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return what a metric says of data that it is given in batches, after it was used for something else."""
    metric.update(outputs[:1], targets[:1])
    metric.reset()
    for rows in split:
        metric.update(outputs[list(rows)], targets[list(rows)])
    return dict(metric.compute())


def scores(rows: int, classes: int, seed: int) -> Tensor:
    """Return float32[rows, classes], with equal scores in some rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator).mul(2).round().div(2)


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    """Return the message of the error that a call raises."""
    try:
        result = call()
    except kind as error:
        return str(error)
    raise AssertionError(f"gave {result!r} in place of an error")

"""Classes that were predicted and those that are right, one row a sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from treenail.kernel import TrainingError


class Labels(NamedTuple):
    """Samples, pixels or tokens below each other.

    Args:
        outputs: float[rows, classes] scores, or int64[rows] predicted classes.
        targets: int64[rows], 0 … classes-1; `classes` where a class, the target or the predicted one, does not exist.
        counts: int64[rows]: 1, or 0 where the target is the ignored one.
        classes: How many there are.
    """

    outputs: Tensor
    targets: Tensor
    counts: Tensor
    classes: int

    def predictions(self) -> Tensor:
        """Return int64[rows]: the class with the highest score, the first of several; `classes` where a score is NaN."""
        if not self.outputs.is_floating_point():
            return self.outputs
        best = self.outputs.max(dim=1)
        return torch.where(best.values.isnan(), self.classes, best.indices)

    def tally(self, indices: Tensor, size: int) -> Tensor:
        """Return int64[size]: how many rows that count have each index.

        Args:
            indices: int64[rows], 0 … size-1.
            size: How many indices there are.
        """
        # Unlike torch.bincount it neither waits for a GPU nor is refused by torch.use_deterministic_algorithms.
        return torch.zeros(size, dtype=torch.int64, device=indices.device).index_add_(0, indices, self.counts)


def labels(
    what: str, outputs: Tensor, targets: Tensor, ignore_index: int | None = None, num_classes: int | None = None
) -> Labels:
    """Bring outputs and targets into rows; nothing waits for a GPU, so what is in `targets` is judged by `refuse_strays`.

    Args:
        what: The metric, for messages.
        outputs: float[batch, …, classes] scores; or int[batch, …] classes where their number is told.
        targets: int[batch, …]: the right classes.
        ignore_index: Target of rows that do not count.
        num_classes: How many classes there are; scores tell it.

    Raises:
        TrainingError: Shapes or dtypes do not fit.
    """
    scored = outputs.is_floating_point()
    shape = outputs.shape[:-1] if scored else outputs.shape
    if not _is_integral(targets) or not (scored or _is_integral(outputs)) or not targets.ndim or targets.shape != shape:
        raise TrainingError(
            f"{what} of outputs {_form(outputs)} and targets {_form(targets)}",
            mend="it takes scores float[batch, …, classes] (or, with num_classes, classes int[batch, …]) and int[batch, …]",
        )
    classes = outputs.shape[-1] if scored else num_classes
    if classes is None:
        raise TrainingError(f"{what} of predicted classes, without their number", mend="say num_classes")
    if not classes or num_classes not in {None, classes}:
        raise TrainingError(f"{what} of {classes} classes", mend=f"num_classes is {num_classes}")
    numbers = targets.reshape(-1).long()
    strays = (numbers < 0) | (numbers >= classes)
    if scored:
        rows = outputs.detach().reshape(-1, classes)
    else:
        rows = outputs.reshape(-1).long()
        strange = (rows < 0) | (rows >= classes)
        rows, strays = rows.masked_fill(strange, classes), strays | strange
    counts = torch.ones_like(numbers) if ignore_index is None else (numbers != ignore_index).long()
    return Labels(rows, numbers.masked_fill(strays, classes), counts, classes)


def refuse_strays(what: str, strays: int, classes: int) -> None:
    """Refuse rows whose target, or predicted class, is none.

    Raises:
        TrainingError: There are some.
    """
    if strays:
        raise TrainingError(
            f"{what}: {strays} samples have a target, or a predicted class, that is not 0 … {classes - 1}",
            mend="look at the dataset's classes; targets that do not count are told by ignore_index",
        )


def refuse_empty(what: str, count: int) -> None:
    """Refuse to measure nothing.

    Raises:
        TrainingError: Nothing was seen.
    """
    if not count:
        raise TrainingError(f"{what} of no samples", mend="is the dataset empty, or is every target the ignored one?")


def _is_integral(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"

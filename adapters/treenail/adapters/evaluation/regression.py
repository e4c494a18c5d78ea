"""The errors of a regression."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from treenail.adapters.evaluation.labels import refuse_empty
from treenail.adapters.evaluation.widening import wide
from treenail.kernel import TrainingError


class RegressionErrors:
    """Mean absolute error, mean squared error, its root, and the coefficient of determination R².

    Everything is added up in float64, whatever the dtypes; the variance of the targets by the update of Chan, Golub and LeVeque
    (1983), which keeps its digits where the targets' mean is large. Each output beyond the batch is measured by itself and
    all weigh alike, as in scikit-learn: ``rmse`` is the mean of the outputs' roots. R² of constant targets is 1 where they are
    met and else 0; of less than two samples it is NaN.

    Args:
        measures: Which of them; their names are those of the results.

    Raises:
        ValueError: One of them does not exist or is given twice, or there is none.
    """

    def __init__(
        self,
        measures: tuple[Literal["mae", "mse", "rmse", "r2"], ...] = ("mae", "mse", "rmse", "r2"),
    ) -> None:
        if not measures or len(set(measures)) < len(measures) or set(measures) - {"mae", "mse", "rmse", "r2"}:
            raise ValueError(f"measures is {measures!r}, must be some of ('mae', 'mse', 'rmse', 'r2')")
        self.measures = measures
        self.reset()

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of the results."""
        return self.measures

    def reset(self) -> None:
        """Forget everything seen."""
        self._count = 0
        self._shape: torch.Size | None = None
        self._sums = torch.zeros(
            ()
        )  # then float64[4, outputs]: |error|, error², mean of targets, their squared deviations

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take predictions [batch, …] and targets of the same shape, real numbers.

        Raises:
            TrainingError: The shapes differ, from each other or from those before.
        """
        known = targets.shape[1:] if self._shape is None else self._shape
        if not targets.ndim or outputs.shape != targets.shape or targets.shape[1:] != known:
            before = "" if self._shape is None else f", after samples {list(self._shape)}"
            raise TrainingError(
                f"errors of outputs {list(outputs.shape)} and targets {list(targets.shape)}{before}",
                mend="both are [batch, …], of one shape: give [batch] targets to [batch, 1] outputs a dimension, or squeeze it",
            )
        if outputs.is_complex() or targets.is_complex():
            raise TrainingError(f"errors of {outputs.dtype} and {targets.dtype}", mend="measure real numbers")
        if not len(targets):
            return
        rows = wide(targets).reshape(len(targets), -1)
        errors = wide(outputs).reshape(len(targets), -1) - rows
        mean = rows.mean(dim=0)
        fresh = [errors.abs().sum(dim=0), errors.square().sum(dim=0), mean, (rows - mean).square().sum(dim=0)]
        if self._count:
            earlier, total = self._sums.to(rows.device), self._count + len(rows)
            apart = mean - earlier[2]
            fresh[0] = fresh[0] + earlier[0]
            fresh[1] = fresh[1] + earlier[1]
            fresh[2] = earlier[2] + apart * (len(rows) / total)
            fresh[3] = fresh[3] + earlier[3] + apart.square() * (self._count * len(rows) / total)
        self._sums = torch.stack(fresh)
        self._count += len(rows)
        self._shape = known

    def compute(self) -> dict[str, float]:
        """Return the errors over everything seen since `reset`, by name.

        Raises:
            TrainingError: Nothing was seen.
        """
        refuse_empty("regression errors", self._count)
        absolute, squared, _, deviations = self._sums.cpu()
        constant = torch.where(squared == 0, 1.0, squared * 0)  # NaN stays NaN
        determination = torch.where(deviations == 0, constant, 1 - squared / deviations)
        found = {
            "mae": absolute / self._count,
            "mse": squared / self._count,
            "rmse": (squared / self._count).sqrt(),
            "r2": determination if self._count > 1 else torch.full_like(determination, math.nan),
        }
        return {name: float(found[name].mean()) for name in self.measures}

"""Metrics of torchmetrics behind the port."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from treenail.kernel import Metric, TrainingError

if TYPE_CHECKING:
    import torchmetrics


class TorchMetric:
    """A metric of torchmetrics, or a collection of them.

    It goes to the device of the outputs, and measures what it is given: it does not bring ranks together by itself, since an
    evaluation on many ranks does so, and only one of them would call it.

    One number has the name of the metric's class, or `name`; several have ``name/0``, ``name/1`` …; those of a mapping (and the
    metrics of a collection) have their own names, under ``name/`` where one is given.

    Args:
        metric: A `torchmetrics.Metric` that takes (outputs, targets) in its `update`, or a `MetricCollection` of such.
        name: Of its results.

    Raises:
        TypeError: It is something else.
    """

    def __init__(self, metric: nn.Module, name: str | None = None) -> None:
        from torchmetrics import Metric as Foreign
        from torchmetrics import MetricCollection

        if not isinstance(metric, Foreign | MetricCollection):
            raise TypeError(f"a {type(metric).__name__} is no metric of torchmetrics")
        self.metric: torchmetrics.Metric | torchmetrics.MetricCollection = metric
        self.name = name
        self._seen = False
        for part in metric.modules():
            if isinstance(part, Foreign):
                part.distributed_available_fn = _alone

    def reset(self) -> None:
        """Forget everything seen."""
        self._seen = False
        self.metric.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch as the metric takes it; one without samples, which some metrics refuse, changes nothing.

        Raises:
            TrainingError: The metric refuses it.
        """
        if targets.ndim and not len(targets):
            return
        try:
            self.metric.to(outputs.device).update(outputs, targets)
        except torch.cuda.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise TrainingError(
                f"{type(self.metric).__name__} of outputs {list(outputs.shape)} and targets {list(targets.shape)}: {error}",
                mend="see what it takes in the documentation of torchmetrics",
            ) from error
        self._seen = True

    def compute(self) -> dict[str, float]:
        """Return the results of everything seen since `reset`, by name.

        Raises:
            TrainingError: Nothing was seen, or a result is no number.
        """
        kind = type(self.metric).__name__
        if not self._seen:
            raise TrainingError(f"{kind} of no samples")
        found = self.metric.compute()
        return _numbers(found, self.name if isinstance(found, Mapping) else self.name or kind)


def as_metric(metric: object) -> Metric:
    """Return a metric as the port has it: one of torchmetrics in a `TorchMetric`, any other as it is.

    Args:
        metric: A `treenail.kernel.Metric`, or one of torchmetrics.

    Raises:
        TypeError: It is neither.
    """
    library = sys.modules.get("torchmetrics")  # where it was not imported there is no metric of it
    if library is not None and isinstance(metric, library.Metric | library.MetricCollection):
        return TorchMetric(metric)
    if isinstance(metric, Metric) and not isinstance(metric, type):
        return metric
    raise TypeError(f"{metric!r} is no metric; it needs reset, update and compute")


def _alone() -> bool:
    return False


def _numbers(value: object, name: str | None) -> dict[str, float]:
    """Return the numbers in tensors, mappings and sequences, named by where they are."""
    if isinstance(value, Tensor) and value.ndim:
        value = value.tolist()
    if isinstance(value, Tensor | bool | int | float):
        return {name or "": float(value)}
    if isinstance(value, Mapping):
        parts = {str(key): each for key, each in value.items()}
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = {str(place): each for place, each in enumerate(value)}
    else:
        raise TrainingError(f"the result '{name}' is a {type(value).__name__}, no number", mend="leave the metric out")
    found: dict[str, float] = {}
    for key, each in parts.items():
        found |= _numbers(each, f"{name}/{key}" if name else key)
    return found

"""What passes between the assembly of a run and its loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from treenail.kernel import BatchSource, Engine


class StepOutput(NamedTuple):
    """What a training step reports.

    Args:
        loss: The mean loss over the batch: a number where that is at hand, else a detached 0-dim tensor.
        weight: What the batch counts in a mean over batches: its number of samples (or tokens), a 0-dim tensor where that is
            not at hand.
        stepped: False when the optimizer skipped this step; schedulers then stay where they are.
        logs: What else it tells, by name: 0-dim tensors or numbers, such as ``grad_norm``.
    """

    loss: Tensor | float
    weight: Tensor | float
    stepped: bool = True
    logs: Mapping[str, Tensor | float] = MappingProxyType({})


@runtime_checkable
class TrainsItself(Protocol):
    """A model that says what it trains in a step, with one optimizer or several."""

    def train_step(self, data: Any, optim_wrapper: Any) -> Mapping[str, Tensor]:  # Any: each model says what it takes
        """Update the model.

        Args:
            data: A batch, on the model's device.
            optim_wrapper: What updates its parameters: an `Updater`, or several by name.

        Returns:
            What is logged, by name: 0-dim tensors. Names with ``loss`` in them are added up, where none is just that.
        """
        ...


@runtime_checkable
class EvaluationLoop(Protocol):
    """A pass over evaluation data; a `Loop` without state of its own."""

    @property
    def metrics(self) -> Mapping[str, float] | None:
        """The results by name (``"val/accuracy"``); None before the first pass and after an interrupted one."""
        ...

    def run(self, engine: Engine) -> None:
        """Evaluate; return early, with `metrics` None, when the engine is asked to stop meanwhile."""
        ...


class TrainWork(NamedTuple):
    """What a training loop gets as its first argument.

    Args:
        step: Takes a batch, updates the model once, and reports.
        batches: The training data.
        validation: What to run between epochs, if anything.
    """

    step: Callable[[object], StepOutput]
    batches: BatchSource
    validation: EvaluationLoop | None = None

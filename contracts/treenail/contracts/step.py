"""What passes between the assembly of a run and its loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from treenail.kernel import BatchSource, Engine, Hook


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
class HasValStep(Protocol):
    """A model that says itself what it predicts in a validation."""

    def val_step(self, data: Any, /) -> Any:  # Any: each model says what it takes and predicts
        """Return the predictions for a batch, on the model's device: a list of one a sample, or tensors [batch, …]."""
        ...


@runtime_checkable
class HasTestStep(Protocol):
    """A model that says itself what it predicts in a test, and for `treenail predict`."""

    def test_step(self, data: Any, /) -> Any:  # Any: as in `HasValStep`
        """Return the predictions for a batch, on the model's device: a list of one a sample, or tensors [batch, …]."""
        ...


@runtime_checkable
class MeasuresSamples(Protocol):
    """A metric that keeps results of samples and measures the whole, as those of mmengine do.

    On many ranks each keeps results of its own samples; those of all are then measured on rank 0.

    Attributes:
        results: What `process` kept: one item a sample, in their order.
        prefix: Put before the names of the results, with a ``/``.
    """

    results: list[Any]  # Any: each metric keeps what it needs
    prefix: str | None

    def process(
        self, data_batch: Any, data_samples: Any, /
    ) -> None:  # Any: the loader and the model say what these are
        """Keep what is needed of a batch and of what was predicted for it."""
        ...

    def compute_metrics(self, results: list[Any], /) -> Mapping[str, Any]:  # Any: as above
        """Return values by name, of the results of all ranks in the order of the data."""
        ...


@runtime_checkable
class TakesPredictions(Protocol):
    """What gets the predictions of all ranks with their samples' indices, in the order of the data, on rank 0."""

    def reset(self) -> None:
        """Forget everything taken."""
        ...

    def take(self, indices: Tensor | None, predictions: object, /) -> None:
        """Take the predictions for a batch.

        Args:
            indices: The samples' indices in the dataset, int64[batch]; None where the batches do not tell them.
            predictions: Tensors [batch, …], lists of one a sample, or mappings and tuples of such.
        """
        ...

    def compute(self) -> Mapping[str, float]:
        """Finish, and return what was measured, by name."""
        ...


class PredictHook(Hook):
    """Hook points of a prediction, besides those of `Hook`: for an `Engine` with ``points=PredictHook``."""

    def before_predict(self, engine: Engine, /) -> None:
        """Before the first batch."""

    def before_predict_iter(self, engine: Engine, batch_index: int, batch: object, /) -> None:
        """Before a batch."""

    def after_predict_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object, /) -> None:
        """After a batch; `outputs` is what the model returned for this rank's samples."""

    def after_predict(self, engine: Engine, /) -> None:
        """After the last batch, when all predictions are written."""


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

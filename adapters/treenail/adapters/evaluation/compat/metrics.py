"""Metrics as mmengine has them: results of samples are kept, gathered from all ranks, and measured as a whole on rank 0."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from treenail.adapters import files
from treenail.adapters.comm import broadcast_object, collect_results, current_communicator
from treenail.adapters.evaluation.samples import score_and_target, stacked, to_cpu
from treenail.kernel import Metric, TrainingError

_LOG = logging.getLogger("mmengine")


class BaseMetric(ABC):
    """A metric to derive from: `process` appends to `results`, `compute_metrics` measures those of all ranks.

    Args:
        collect_device: Results travel through the memory of hosts, or of GPUs.
        prefix: Put before the names of the results, with a ``/``; `default_prefix` when None.
        collect_dir: A directory that all ranks share, through which results travel in place of the network.

    Attributes:
        default_prefix: That of the class.
        results: What this rank's `process` kept: one item a sample, in their order, so that padding can be told from samples.
        dataset_meta: What the dataset tells of itself, the names of its classes for instance.

    Raises:
        ValueError: There is no such device, or GPUs and a directory are asked for.
    """

    default_prefix: str | None = None

    def __init__(
        self,
        collect_device: Literal["cpu", "gpu"] = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        if collect_device not in {"cpu", "gpu"}:
            raise ValueError(f"collect_device is {collect_device!r}, must be 'cpu' or 'gpu'")
        if collect_dir is not None and collect_device == "gpu":
            raise ValueError("results on GPUs do not go through a directory; leave collect_dir out")
        self.collect_device = collect_device
        self.collect_dir = collect_dir
        self.prefix = self.default_prefix if prefix is None else prefix
        self.results: list[Any] = []  # Any: what a result is, the subclass says
        self.dataset_meta: dict[str, Any] | None = None  # Any: each dataset has its own

    @abstractmethod
    def process(self, data_batch: Any, data_samples: Any) -> None:  # Any: the loader and the model say what these are
        """Keep in `results` what `compute_metrics` needs of a batch; called by position, so that names are free.

        Args:
            data_batch: The batch as the loader gave it.
            data_samples: What the model returned for it.
        """

    @abstractmethod
    def compute_metrics(self, results: list[Any]) -> Mapping[str, Any]:  # Any: results are what `process` kept
        """Measure the whole; called on rank 0.

        Args:
            results: Of all ranks, in the order of the dataset, on the CPU.

        Returns:
            Values by name, without prefix.
        """

    def evaluate(self, size: int) -> dict[str, Any]:  # Any: as in compute_metrics
        """Gather the results of all ranks, measure them on rank 0, tell every rank, and begin anew.

        Args:
            size: Samples of the dataset; what is beyond, was repeated to give all ranks equally many, and is left out.

        Returns:
            Values by name with the prefix, on every rank.

        Raises:
            TrainingError: Measuring failed on rank 0; there its own exception is raised.
            ValueError: size is negative.
            CommunicationError: Results cannot be sent, or the ranks disagree.
        """
        ranks = current_communicator()
        try:
            if ranks.world_size == 1:
                if size < 0:
                    raise ValueError(f"size is {size}, must be how many samples the dataset has")
                return self._measure(self.results[:size])  # of any type: they are not sent
            whole = collect_results(ranks, self.results, size, self.collect_device, self.collect_dir)
            told: tuple[dict[str, Any], str | None] = ({}, None)
            failure: Exception | None = None
            if whole is not None:
                try:
                    told = (self._measure(whole), None)
                except Exception as error:  # the other ranks wait for this one, and must hear of it
                    failure, told = error, ({}, f"{type(error).__name__}: {error}")
            values, problem = broadcast_object(ranks, told)
            if failure is not None:
                raise failure
            if problem is not None:
                raise TrainingError(f"{type(self).__name__} failed on rank 0: {problem}")
            return values
        finally:
            self.results.clear()

    def _measure(self, results: list[Any]) -> dict[str, Any]:
        if not results:
            _LOG.warning("%s has no results: does its process append to self.results?", type(self).__name__)
        values = self.compute_metrics(to_cpu(results))
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in values.items()}


class DumpResults(BaseMetric):
    """Writes predictions to a pickle, for `Evaluator.offline_evaluate`.

    Args:
        out_file_path: Path or URI of the file, which ends in .pkl or .pickle.
        collect_device: Results travel through the memory of hosts, or of GPUs.
        collect_dir: A directory that all ranks share, through which results travel in place of the network.

    Raises:
        ValueError: The file has another suffix.
    """

    def __init__(
        self,
        out_file_path: str | os.PathLike[str],
        collect_device: Literal["cpu", "gpu"] = "cpu",
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, collect_dir=collect_dir)
        if not os.fspath(out_file_path).endswith((".pkl", ".pickle")):
            raise ValueError(f"out_file_path is {os.fspath(out_file_path)!r}, must end in .pkl or .pickle")
        self.out_file_path = out_file_path

    @property
    def result_names(self) -> tuple[str, ...]:
        """It measures nothing."""
        return ()

    def process(self, data_batch: object, predictions: Sequence[object]) -> None:
        """Keep the predictions, one of each sample, with their tensors on the CPU.

        Raises:
            TrainingError: They are no sequence of samples.
        """
        if isinstance(predictions, Mapping):  # its keys would be dumped
            raise TrainingError(
                f"predictions are a dict of {', '.join(map(str, predictions))}",
                mend="let the model return a list, one a sample",
            )
        self.results.extend(to_cpu(list(predictions)))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        """Write the predictions of all ranks; there is nothing to measure.

        Raises:
            FileError: The store refused or failed, or a prediction cannot be pickled; an earlier file is as it was.
        """
        files.dump(results, self.out_file_path, "pickle", allow_pickle=True)
        _LOG.info("the predictions are in %s", self.out_file_path)
        return {}


class SampleMetric(BaseMetric):
    """A `treenail.kernel.Metric` in an `Evaluator`: scores and targets of samples are kept, and measured as a whole.

    A data sample is a mapping, or a pair (scores, target).

    Args:
        metric: What measures.
        outputs: Key of the scores in a mapping.
        targets: Key of the target in a mapping.
        collect_device: Results travel through the memory of hosts, or of GPUs.
        prefix: Put before the names of the results, with a ``/``.
        collect_dir: A directory that all ranks share, through which results travel in place of the network.
        batch_size: Samples that are measured at a time.

    Raises:
        ValueError: batch_size is less than 1.
    """

    def __init__(
        self,
        metric: Metric,
        outputs: str = "pred_score",
        targets: str = "gt_label",
        collect_device: Literal["cpu", "gpu"] = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        batch_size: int = 256,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        self.metric = metric
        self._keys = (outputs, targets)
        self._batch_size = batch_size

    def process(self, data_batch: object, data_samples: Sequence[object]) -> None:
        """Keep the scores and the target of each sample.

        Raises:
            TrainingError: A sample has none.
        """
        for sample in data_samples:
            self.results.append(score_and_target(sample, *self._keys))

    def compute_metrics(self, results: list[Any]) -> Mapping[str, float]:
        """Measure all samples.

        Raises:
            TrainingError: There are none, or shapes do not fit.
        """
        self.metric.reset()
        for begin in range(0, len(results), self._batch_size):
            outputs, targets = zip(*results[begin : begin + self._batch_size], strict=True)
            self.metric.update(stacked(outputs, self._keys[0]), stacked(targets, self._keys[1]))
        return self.metric.compute()

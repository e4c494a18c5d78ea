"""Several metrics together, during a run or over predictions that were written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

from treenail.adapters.data import collate_lists
from treenail.adapters.evaluation.compat.metrics import BaseMetric, SampleMetric
from treenail.adapters.evaluation.samples import as_plain
from treenail.adapters.evaluation.torchmetrics import as_metric
from treenail.adapters.registries import mmengine


class Evaluator:
    """Gives batches to metrics, and puts their results together.

    Args:
        metrics: One or several: a `BaseMetric`; a `treenail.kernel.Metric` or one of torchmetrics, in a `SampleMetric`; or a
            config ``{"type": …}`` of either.
        registry: Where a config's type is looked up; that of the installed adapters when None.

    Attributes:
        metrics: The metrics, built.

    Raises:
        TypeError: Something is no metric.
        RegistryError: A config names none.
        SpecError: A metric does not take the arguments of its config.
    """

    def __init__(self, metrics: object, registry: mmengine.Registry[Any] | None = None) -> None:
        listed = metrics if isinstance(metrics, Sequence) else [metrics]
        self.metrics: list[BaseMetric] = []
        for metric in listed:
            built = metric
            if isinstance(metric, Mapping):
                registry = _installed() if registry is None else registry
                built = registry.build(metric)
            self.metrics.append(built if isinstance(built, BaseMetric) else SampleMetric(as_metric(built)))
        self._dataset_meta: dict[str, Any] | None = None

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """What the dataset tells of itself; whoever sets it sets it for all metrics."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any] | None) -> None:
        self._dataset_meta = dataset_meta
        for metric in self.metrics:
            metric.dataset_meta = dataset_meta

    def process(
        self, data_samples: Any, data_batch: Any = None
    ) -> None:  # Any: the model and the loader say what it is
        """Give a batch to every metric's `process`, which takes the two the other way round.

        Args:
            data_samples: What the model returned. Data elements in a list or tuple become dicts (by their `to_dict`);
                anything else reaches the metrics as it is.
            data_batch: The batch as the loader gave it.
        """
        plain = as_plain(data_samples)
        for metric in self.metrics:
            metric.process(data_batch, plain)

    def evaluate(self, size: int) -> dict[str, Any]:  # Any: as in `BaseMetric`
        """Measure everything that was processed, on all ranks, and begin anew.

        Args:
            size: Samples of the dataset; what was repeated beyond them to give all ranks equally many is left out.

        Raises:
            ValueError: Two metrics give the same name.
        """
        found: dict[str, Any] = {}
        try:
            # All are asked before names are compared, so that every rank takes part in the same gathering.
            for results in [metric.evaluate(size) for metric in self.metrics]:
                if twice := found.keys() & results.keys():
                    raise ValueError(f"two metrics give '{min(twice)}'; give each of them a prefix of its own")
                found |= results
        finally:
            for metric in self.metrics:  # where one failed, the others were not asked
                metric.results.clear()
        return found

    def offline_evaluate(
        self, data_samples: Iterable[Any], data: Iterable[Any] | None = None, chunk_size: int = 1
    ) -> dict[str, Any]:  # Any: as in `process`
        """Measure predictions that were written down, a chunk at a time.

        Args:
            data_samples: Predictions, with the truth where the metrics look for it there; may be an iterator.
            data: The samples of the dataset, as many, where the metrics look for the truth there.
            chunk_size: How many are processed together.

        Raises:
            ValueError: There are more of one than of the other, the chunk size is less than 1, or two metrics give the same name.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}, must be at least 1")
        given: tuple[object, object] = (data_samples, data)
        lengths = [len(each) for each in given if isinstance(each, Sized)]
        if len(set(lengths)) > 1:
            raise ValueError(f"there are {lengths[0]} data_samples and {lengths[1]} data; give one of each sample")
        samples, batches = iter(data_samples), None if data is None else iter(data)
        size = 0
        while chunk := list(islice(samples, chunk_size)):
            batch = None
            if batches is not None:
                batch = list(islice(batches, len(chunk)))
                if len(batch) < len(chunk):
                    raise ValueError(
                        f"data ended after {size + len(batch)}, before data_samples; give one of each sample"
                    )
            size += len(chunk)
            self.process(chunk, None if batch is None else collate_lists(batch))
        if batches is not None and next(batches, collate_lists) is not collate_lists:
            raise ValueError(f"data_samples ended after {size}, before data; give one of each sample")
        return self.evaluate(size)


def _installed() -> mmengine.Registry[Any]:
    """Return the metrics that configs can name; made anew, so that nothing is registered for others."""
    return mmengine.RootRegistries().METRICS

"""The kinds of metrics that an evaluation feeds, and what each of them is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from treenail.adapters.comm import gather_object
from treenail.adapters.evaluation import as_metric, as_plain, score_and_target, stacked, to_cpu
from treenail.adapters.loops.gathering import RankBatch, in_turns
from treenail.contracts import MeasuresSamples, TakesPredictions
from treenail.kernel import Communicator, Metric, TrainingError

Measure = Metric | MeasuresSamples | TakesPredictions


def as_measure(metric: object) -> Measure:
    """Return what an evaluation can feed: one of torchmetrics behind the port, any other as it is.

    Raises:
        TypeError: It is no metric.
    """
    if isinstance(metric, MeasuresSamples | TakesPredictions) and not isinstance(metric, type):
        return metric
    return as_metric(metric)


def inputs_of(batch: object) -> Tensor:
    """Return what a model without a step is given of a batch: all of it, or the inputs of (inputs, targets).

    Raises:
        TrainingError: That is no tensor.
    """
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(inputs, Tensor):
        raise TrainingError(
            f"the inputs of a batch are a {type(inputs).__name__}",
            mend="let the dataset return an input, or (input, target); or give the model a test_step",
        )
    return inputs


def tell_samples(outputs: Any, targets: Tensor | None) -> Any:  # Any: the model says what it predicts
    """Return predictions as a `MeasuresSamples` takes them.

    Args:
        outputs: What the model returned.
        targets: [batch, …] where the model only computes scores; each sample is then a mapping.
    """
    if targets is None:
        return as_plain(outputs)
    return [{"pred_score": score, "gt_label": target} for score, target in zip(outputs, targets, strict=True)]


def scored(outputs: Any, targets: Tensor | None, batch: object) -> tuple[Any, Tensor]:  # Any: as in `tell_samples`
    """Return (scores, targets), both [batch, …], of what a model returned for a batch.

    Args:
        outputs: What the model returned.
        targets: [batch, …] where the model only computes scores.
        batch: What it was given.

    Raises:
        TrainingError: There are none in it.
    """
    if targets is not None:
        return outputs, targets
    if isinstance(outputs, Tensor):
        right = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
        right = batch.get("data_samples") if isinstance(batch, Mapping) else right
        if isinstance(right, Tensor):
            return outputs, right.to(outputs.device)
    elif isinstance(outputs, tuple) and len(outputs) == 2 and all(isinstance(each, Tensor) for each in outputs):
        return outputs[0], outputs[1]
    elif isinstance(outputs, list | tuple) and outputs:
        scores, rights = zip(*(score_and_target(each) for each in as_plain(outputs)), strict=True)
        return stacked(scores, "pred_score"), stacked(rights, "gt_label")
    raise TrainingError(
        f"the model predicts a {type(outputs).__name__}, in which there are no scores and targets to measure",
        mend="let it return (scores, targets), or mappings with pred_score and gt_label, one a sample; or take a metric "
        "that processes what it returns",
    )


class KeptResults:
    """What a metric keeps of samples, batch by batch, so that the results of all ranks can be put in order.

    Args:
        metric: Keeps results of this rank's samples.
        ranks: The ranks; None: only this process.
    """

    def __init__(self, metric: MeasuresSamples, ranks: Communicator | None) -> None:
        self._metric = metric
        self._ranks = ranks
        self._batches: list[tuple[int, list[int] | None]] = []  # of each: how many results, of which samples
        self._shared = False
        metric.results.clear()

    def process(self, mine: RankBatch, samples: Any) -> None:  # Any: as in `tell_samples`
        """Let the metric process a batch, unless none of its samples counts."""
        results, before = self._metric.results, len(self._metric.results)
        counting, indices = mine.counting, mine.indices
        self._shared = mine.shared
        if counting is None or len(counting):
            self._metric.process(mine.batch, samples)
        if counting is not None and indices is not None:
            if len(results) - before == len(indices):  # one of each sample, those of padding included
                results[before:] = [results[before + row] for row in counting.tolist()]
            indices = indices[counting]
        self._batches.append((len(results) - before, None if indices is None else indices.tolist()))

    def merged(self) -> object:
        """Return what the metric measures of the results of all ranks, on rank 0; nothing elsewhere."""
        metric = self._metric
        try:
            results = self._ordered(list(metric.results))
            return {} if results is None else metric.compute_metrics(to_cpu(results))
        finally:
            metric.results.clear()

    def _ordered(self, own: list[Any]) -> list[Any] | None:
        if self._ranks is None:
            return own
        told = gather_object(self._ranks, (own, self._batches, self._shared))
        if told is None:
            return None
        # Ranks that share batches have their samples in turn; others have stretches, which the samples' numbers put in order.
        if not any(shared for _, _, shared in told):
            numbers = [number for _, batches, _ in told for _, indices in batches for number in indices or ()]
            whole = [result for results, _, _ in told for result in results]
            if len(numbers) == len(whole):
                return [whole[place] for place in sorted(range(len(whole)), key=numbers.__getitem__)]
        split = [_split(results, [size for size, _ in batches]) for results, batches, _ in told]
        rounds = max(len(batches) for batches in split)
        return [
            result
            for number in range(rounds)
            for result in in_turns([batches[number] for batches in split if number < len(batches)])
        ]


def _split(results: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    return [results[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]


def numbers(values: object, metric: object) -> tuple[dict[str, float], list[str]]:
    """Return what a metric measured: (numbers by name, names of texts and of what it had nothing to say of).

    Args:
        values: What it gave.
        metric: The metric; its prefix is put before the names.

    Raises:
        TrainingError: It is no mapping, or a value is neither a number nor a text nor None.
    """
    giver = type(metric).__name__
    if not isinstance(values, Mapping):
        raise TrainingError(
            f"{giver} gives a {type(values).__name__}", mend="let it return a mapping of names to numbers"
        )
    lead = f"{metric.prefix}/" if isinstance(metric, MeasuresSamples) and metric.prefix else ""
    found: dict[str, float] = {}
    others: list[str] = []
    for name, value in values.items():
        if value is None or isinstance(value, str):
            others.append(f"{lead}{name}")
            continue
        try:
            found[f"{lead}{name}"] = float(value)
        except (TypeError, ValueError):  # one of torch's or numpy's may hold several
            raise TrainingError(
                f"{giver} gives a {type(value).__name__} for '{name}', no number",
                mend="let it return numbers, and write the rest to a file",
            ) from None
    return found, others

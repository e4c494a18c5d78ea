"""Evaluation: a pass over one or several sets of data without gradients, that leaves the training as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum, nan
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from treenail.adapters.comm import broadcast_object
from treenail.adapters.evaluation import DumpPredictions, result_names
from treenail.adapters.files import redacted
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops.gathering import RankBatch, RankBatches
from treenail.adapters.loops.inference import Precision, autocast, inference, model_of, own_step
from treenail.adapters.loops.measures import KeptResults, as_measure, numbers, scored, tell_samples
from treenail.adapters.loops.passes import refuse_unasked
from treenail.adapters.optim import as_pair, check_loss, moved
from treenail.contracts import Loss, LossSum, MeasuresSamples, TakesPredictions
from treenail.kernel import BatchSource, Communicator, Engine, Metric, TrainingError, mix


class _Measured(NamedTuple):
    """The loss of a batch: ``loss · times`` is its sum over `weight`. Numbers are read when all have been computed."""

    loss: Tensor
    weight: Tensor | float
    times: int = 1


class EvalLoop:
    """Measures a model on data, for validation or test.

    The model (and a loss that is a module) is in eval mode meanwhile and each module gets its own mode back; the generators
    are shielded, so that how often one validates does not change a training.

    Without a loss, a model that has a `val_step` (`test_step` in a test) is given whole batches, and predicts what it likes.
    A `Metric` then needs tensors (scores, targets), a tensor of scores for batches (inputs, targets) or batches with
    ``data_samples``, or one mapping a sample with ``pred_score`` and ``gt_label``; a `MeasuresSamples` takes any predictions.
    Of a model without such a step it gets mappings of that form.

    Args:
        mode: Which hook points fire and how results are prefixed.
        model: Takes the inputs, or has a step.
        loss: (outputs, targets) → 0-dim mean loss, or a sum; None measures only metrics.
        batches: The data.
        metrics: What to measure besides the loss.
        device: Where the model is.
        seed: Seed of anything random in the evaluation.
        communicator: On many ranks, each of which has every world_size-th sample of each batch: what they compute is
            gathered on rank 0 in the order of the batch, and measured there as one process would; all get the results.
        averaged: A second module, built and parallelised as the model, that takes averages of a model that cannot be copied.
        precision: What the model and the loss compute in, by automatic mixed precision.
        name: Of the data, where there are several sets; results are then called ``val/NAME/accuracy``.

    Attributes:
        metrics: The results by name; None before the first pass and after an interrupted one.
        batches: As given.
        measures: The metrics, as they measure.
        mode: As given.
        prefix: Of the results' names: ``val``, or ``val/NAME``.

    Raises:
        ValueError: There is no such precision on this device, or the name is empty or has a slash in it.
        TypeError: Something is no metric.
    """

    def __init__(
        self,
        mode: Literal["val", "test"],
        model: nn.Module,
        loss: Loss | None,
        batches: BatchSource,
        metrics: Sequence[Metric | MeasuresSamples | TakesPredictions] = (),
        device: torch.device | None = None,
        seed: int = 0,
        communicator: Communicator | None = None,
        averaged: nn.Module | None = None,
        precision: Precision = "float32",
        name: str | None = None,
    ) -> None:
        if name is not None and (not name or "/" in name):
            raise ValueError(f"the {mode} data are called '{name}'; a name is not empty and has no slash")
        self.metrics: dict[str, float] | None = None
        self.mode: Literal["val", "test"] = mode
        self.prefix = mode if name is None else f"{mode}/{name}"
        self._model = model
        self._averaged = averaged
        self._loss = loss
        self.batches = batches
        self.measures = [as_measure(metric) for metric in metrics]
        self._takers = [each for each in self.measures if isinstance(each, TakesPredictions)]
        self._metrics = [each for each in self.measures if isinstance(each, Metric)]
        self._device = device if device is not None and device.type != "cpu" else None
        self._seed = mix(seed, mode) if name is None else mix(seed, mode, name)
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._autocast = autocast(precision, self._device)
        self._left_out: set[str] = set()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        refuse_unasked(cls, "give the model a val_step, or a test_step, which predicts for a batch")

    @property
    def result_names(self) -> frozenset[str] | None:
        """What its results will be called; None where one of its metrics does not know that before."""
        found = [] if self._loss is None else ["loss"]
        for measure in self.measures:
            if (names := result_names(measure)) is None:
                return None
            lead = f"{measure.prefix}/" if isinstance(measure, MeasuresSamples) and measure.prefix else ""
            found += [f"{lead}{name}" for name in names]
        return frozenset(f"{self.prefix}/{name}" for name in found)

    @property
    def outputs(self) -> list[str]:
        """The files that its predictions are written to."""
        return [each.output for each in self.measures if isinstance(each, DumpPredictions)]

    def run(self, engine: Engine) -> None:
        """Evaluate, unless the engine is asked to stop meanwhile.

        Raises:
            TrainingError: There is no data, or two metrics share a name.
        """
        _evaluate(engine, self.mode, [self])

    def measure(self, engine: Engine, begin: int = 0) -> int | None:
        """Go through the data once and set `metrics`, without the hook points around it.

        Args:
            engine: Its hooks are told of each batch.
            begin: Index of the first batch for hooks.

        Returns:
            The index after the last batch; None when the engine was asked to stop, with `metrics` None.
        """
        self.metrics = None
        model = model_of(engine, self._model, self._averaged)
        with inference(model, self._loss, self._seed, self._ranks):
            losses: list[_Measured] = []
            kept = [KeptResults(each, self._ranks) for each in self.measures if isinstance(each, MeasuresSamples)]
            for measure in self.measures:
                if not isinstance(measure, MeasuresSamples):
                    measure.reset()
            index = self._pass(engine, model, losses, kept, begin)
            if index is None:
                return None
            merged = [each.merged() for each in kept]
            results = self._results(losses, merged) if self._ranks is None or self._ranks.rank == 0 else {}
        self.metrics = results if self._ranks is None else broadcast_object(self._ranks, results)
        return index

    def _pass(
        self, engine: Engine, model: nn.Module, losses: list[_Measured], kept: Sequence[KeptResults], index: int
    ) -> int | None:
        points, validating = engine.points, self.mode == "val"
        source = RankBatches(self.batches, self._ranks, self.prefix)
        step = own_step(model, self.mode) if self._loss is None else None
        for mine in source:
            if engine.check_stop():
                return None
            if mine is None:  # another rank has one more batch
                self._take(source, None, None, None, losses)
                continue
            if before := points.before_val_iter if validating else points.before_test_iter:
                before(engine, index, mine.batch)
            outputs, targets = self._outputs(mine.batch, model, step)
            for each in kept:
                each.process(mine, tell_samples(outputs, targets))
            self._take(source, mine, outputs, targets, losses)
            if after := points.after_val_iter if validating else points.after_test_iter:
                after(engine, index, mine.batch, outputs)
            index += 1
        return index

    def _outputs(
        self, batch: object, model: nn.Module, step: Callable[[object], object] | None
    ) -> tuple[object, Tensor | None]:
        """Return what the model returns for a batch, and the targets where the batch, and not the model, has them."""
        with self._autocast:
            if step is not None:
                return step(batch if self._device is None else moved(batch, self._device)), None
            inputs, targets = as_pair(batch, self._device)
            return model(inputs), targets

    def _take(
        self,
        source: RankBatches,
        mine: RankBatch | None,
        outputs: object,
        targets: Tensor | None,
        losses: list[_Measured],
    ) -> None:
        """Measure on rank 0 what all ranks computed for a batch."""
        if self._takers:
            predictions = source.merge(mine, outputs)
            indices = source.merge(mine, None if mine is None else mine.indices)
            for taker in self._takers if predictions is not None else ():
                taker.take(indices, predictions)
        if self._loss is None and not self._metrics:
            return
        pair = (None, None) if mine is None else scored(outputs, targets, mine.batch)
        scores, right = source.merge(mine, pair[0]), source.merge(mine, pair[1])
        if scores is None or right is None:
            return
        if self._loss is not None:
            with self._autocast:
                losses.append(_measured(self._loss(scores, right), len(right)))
        for metric in self._metrics:
            metric.update(scores, right)

    def _results(self, losses: Sequence[_Measured], merged: Sequence[object]) -> dict[str, float]:
        results: dict[str, float] = {}
        givers: dict[str, str] = {}
        if self._loss is not None:
            weight = fsum(float(each.weight) for each in losses)
            total = fsum(float(each.loss) * each.times for each in losses)
            results[f"{self.prefix}/loss"] = total / weight if weight else nan
            givers[f"{self.prefix}/loss"] = "the loss"
        of_samples = iter(merged)
        for number, measure in enumerate(self.measures):
            giver = f"{type(measure).__name__} (metrics.{number})"
            told = next(of_samples) if isinstance(measure, MeasuresSamples) else measure.compute()
            values, others = numbers(told, measure)
            self._leave_out(others, giver)
            for name, value in values.items():
                whole = f"{self.prefix}/{name}"
                if whole in results:
                    raise TrainingError(
                        f"two metrics give '{whole}': {givers[whole]} and {giver}",
                        mend="leave one out, or give it a name or prefix of its own",
                    )
                results[whole], givers[whole] = value, giver
        return results

    def _leave_out(self, names: Sequence[str], giver: str) -> None:
        """Say, once of each, what are no results for being no numbers."""
        if new := [name for name in names if name not in self._left_out]:
            self._left_out.update(new)
            terminal_logger().warning(
                f"{giver} gives no number for {', '.join(new)}: only numbers are {self.mode} results"
            )

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""


class EvalSets:
    """Measures a model on several sets of data, as one validation or test.

    The hook points around an evaluation fire once, ``after_val_epoch`` with the results of all sets; the index of a batch
    goes on from set to set.

    Args:
        loops: One for each set, in their order, all of one mode.

    Attributes:
        metrics: The results of all sets by name; None before the first pass and after an interrupted one.
        loops: As given.

    Raises:
        ValueError: There is no set, the loops are of different modes, or two have the same name or write the same file.
    """

    def __init__(self, loops: Sequence[EvalLoop]) -> None:
        if not loops or len({loop.mode for loop in loops}) > 1:
            raise ValueError(
                f"{len(loops)} sets are no evaluation: give at least one loop, all for val or all for test"
            )
        if len({loop.prefix for loop in loops}) < len(loops):
            raise ValueError(f"sets share a name: {', '.join(loop.prefix for loop in loops)}")
        outputs = [output for loop in loops for output in loop.outputs]
        if twice := [output for output in outputs if outputs.count(output) > 1]:
            raise ValueError(f"predictions of several sets go to {redacted(twice[0])}: give each set a file of its own")
        self.metrics: dict[str, float] | None = None
        self.mode: Literal["val", "test"] = loops[0].mode
        self.loops = tuple(loops)

    @property
    def result_names(self) -> frozenset[str] | None:
        """What the results of all sets will be called; None where a metric does not know that before."""
        found: frozenset[str] = frozenset()
        for loop in self.loops:
            if (names := loop.result_names) is None:
                return None
            found |= names
        return found

    def run(self, engine: Engine) -> None:
        """Evaluate on all sets, unless the engine is asked to stop meanwhile.

        Raises:
            TrainingError: There is no data, or two metrics share a name.
        """
        self.metrics = None
        self.metrics = _evaluate(engine, self.mode, self.loops)

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew, with the first set."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""


def _evaluate(engine: Engine, mode: Literal["val", "test"], loops: Sequence[EvalLoop]) -> dict[str, float] | None:
    """Run loops as one evaluation; return the results of all, None when the engine was asked to stop meanwhile."""
    points, validating = engine.points, mode == "val"
    if fire := points.before_val if validating else points.before_test:
        fire(engine)
    if fire := points.before_val_epoch if validating else points.before_test_epoch:
        fire(engine)
    results: dict[str, float] = {}
    begin = 0
    for loop in loops:
        end = loop.measure(engine, begin)
        if end is None:
            return None
        begin = end
        results |= loop.metrics or {}
    engine.publish(results)
    if fire_metrics := points.after_val_epoch if validating else points.after_test_epoch:
        fire_metrics(engine, results)
    if fire := points.after_val if validating else points.after_test:
        fire(engine)
    if not validating:
        engine.commit()  # a validation is committed by the training around it
    return results


def _measured(loss: Tensor | LossSum, samples: int) -> _Measured:
    check_loss(loss)
    return _Measured(*loss) if isinstance(loss, LossSum) else _Measured(loss, samples, samples)

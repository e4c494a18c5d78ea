"""Evaluation: one pass over the data without gradients, that leaves the training as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import fsum, nan
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from treenail.adapters.comm import broadcast_object
from treenail.adapters.optim import as_pair
from treenail.adapters.seeding import seed_process, shielded_rng
from treenail.contracts import Loss, LossSum
from treenail.contracts.averaging import Averager
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

    Args:
        mode: Which hook points fire and how results are prefixed.
        model: Takes the inputs.
        loss: (outputs, targets) → 0-dim mean loss, or a sum; None measures only metrics.
        batches: The data.
        metrics: What to measure besides the loss.
        device: Where the model is.
        seed: Seed of anything random in the evaluation.
        communicator: On many ranks, each of which has every world_size-th sample of each batch: what they compute is
            gathered on rank 0 in the order of the batch, and measured there as one process would; all get the results.
        averaged: A second module, built and parallelised as the model, that takes averages of a model that cannot be copied.

    Attributes:
        metrics: The results by name; None before the first pass and after an interrupted one.
    """

    def __init__(
        self,
        mode: Literal["val", "test"],
        model: nn.Module,
        loss: Loss | None,
        batches: BatchSource,
        metrics: Sequence[Metric] = (),
        device: torch.device | None = None,
        seed: int = 0,
        communicator: Communicator | None = None,
        averaged: nn.Module | None = None,
    ) -> None:
        self.metrics: dict[str, float] | None = None
        self._mode: Literal["val", "test"] = mode
        self._model = model
        self._averaged = averaged
        self._loss = loss
        self._batches = batches
        self._measures = metrics
        self._device = device if device is not None and device.type != "cpu" else None
        self._seed = seed
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None

    def run(self, engine: Engine) -> None:
        """Evaluate, unless the engine is asked to stop meanwhile.

        Raises:
            TrainingError: There is no data, or two metrics share a name.
        """
        points, validating = engine.points, self._mode == "val"
        self.metrics = None
        if fire := points.before_val if validating else points.before_test:
            fire(engine)
        if fire := points.before_val_epoch if validating else points.before_test_epoch:
            fire(engine)
        averages = engine.parts.get("averages")
        model = averages.view(self._averaged) if isinstance(averages, Averager) else self._model
        measured = [part for part in (model, self._loss) if isinstance(part, nn.Module)]
        modes = {module: module.training for part in measured for module in part.modules()}
        for part in measured:
            part.eval()
        try:
            with shielded_rng(devices=True), torch.no_grad(), _buffers_of_rank_0(model, self._ranks):
                seed_process(mix(self._seed, self._mode))
                results = self._pass(engine, model)
        finally:
            for module, training in modes.items():
                module.training = training
        if results is None:
            return
        self.metrics = results
        engine.publish(results)
        if fire_metrics := points.after_val_epoch if validating else points.after_test_epoch:
            fire_metrics(engine, results)
        if fire := points.after_val if validating else points.after_test:
            fire(engine)
        if not validating:
            engine.commit()  # a validation is committed by the training around it

    def _pass(self, engine: Engine, model: nn.Module) -> dict[str, float] | None:
        points, validating = engine.points, self._mode == "val"
        for measure in self._measures:
            measure.reset()
        losses: list[_Measured] = []
        seen = 0
        self._batches.set_epoch(0)
        for index, batch in enumerate(self._batches):
            if engine.check_stop():
                return None
            if before := points.before_val_iter if validating else points.before_test_iter:
                before(engine, index, batch)
            inputs, targets = as_pair(batch, self._device)
            outputs = model(inputs)
            seen += 1
            whole = (outputs, targets) if self._ranks is None else self._merge(self._ranks, outputs, targets)
            if whole is not None:
                if self._loss is not None:
                    losses.append(_measured(self._loss(*whole), len(whole[1])))
                for measure in self._measures:
                    measure.update(*whole)
            if after := points.after_val_iter if validating else points.after_test_iter:
                after(engine, index, batch, outputs)
        if not seen or seen != len(self._batches):
            raise TrainingError(
                f"the {self._mode} data ended after {seen} of {len(self._batches)} batches",
                mend="is the dataset empty, does it raise StopIteration, or have another length than it says?",
            )
        if self._ranks is None:
            return self._results(losses)
        return broadcast_object(self._ranks, self._results(losses) if self._ranks.rank == 0 else {})

    def _results(self, losses: Sequence[_Measured]) -> dict[str, float]:
        results: dict[str, float] = {}
        if self._loss is not None:
            weight = fsum(float(each.weight) for each in losses)
            total = fsum(float(each.loss) * each.times for each in losses)
            results[f"{self._mode}/loss"] = total / weight if weight else nan
        for measure in self._measures:
            for name, value in measure.compute().items():
                if f"{self._mode}/{name}" in results:
                    raise TrainingError(f"two metrics give '{self._mode}/{name}'", mend="rename one")
                results[f"{self._mode}/{name}"] = float(value)
        return results

    def _merge(self, ranks: Communicator, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what all ranks computed of a batch, in its order, on rank 0; None elsewhere."""
        share = getattr(self._batches, "share", None)
        mine = len(targets) if share is None else share[0]  # a rank without a sample was given one that does not count
        parts = [ranks.gather(each[:mine]) for each in (outputs, targets)]
        merged = [None if part is None else interleave(part) for part in parts]
        return None if merged[0] is None or merged[1] is None else (merged[0], merged[1])

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""


def _measured(loss: Tensor | LossSum, samples: int) -> _Measured:
    return _Measured(*loss) if isinstance(loss, LossSum) else _Measured(loss, samples, samples)


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Return rows in the order in which ranks drew them: the first of each part, the second of each, and so on.

    Args:
        parts: [rows, …] of each rank; no part has more rows than one before it.
    """
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


@contextmanager
def _buffers_of_rank_0(model: nn.Module, ranks: Communicator | None) -> Iterator[None]:
    """Let every rank have the buffers of rank 0 meanwhile, whose checkpoint has them; its own are of its samples only."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in model.buffers() if ranks is not None else ():
        groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    own = [(group, _packed(group)) for group in groups.values()]
    try:
        for group, before in own:
            if ranks is not None:  # one message for all buffers of a dtype
                _unpack(ranks.broadcast(before), group)
        yield
    finally:
        for group, before in own:
            _unpack(before, group)


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unpack(packed: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, packed.split_with_sizes([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))

"""Evaluation: one pass over the data without gradients, that leaves the training as it was."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Literal

import torch
from torch import Tensor, nn

from treenail.adapters.optim import as_pair
from treenail.adapters.seeding import seed_process, shielded_rng
from treenail.contracts import Loss
from treenail.kernel import BatchSource, Engine, Metric, TrainingError, mix


class EvalLoop:
    """Measures a model on data, for validation or test.

    The model (and a loss that is a module) is in eval mode meanwhile and each module gets its own mode back; the generators
    are shielded, so that how often one validates does not change a training.

    Args:
        mode: Which hook points fire and how results are prefixed.
        model: Takes the inputs.
        loss: (outputs, targets) → 0-dim mean loss.
        batches: The data.
        metrics: What to measure besides the loss.
        device: Where the model is.
        seed: Seed of anything random in the evaluation.

    Attributes:
        metrics: The results by name; None before the first pass and after an interrupted one.
    """

    def __init__(
        self,
        mode: Literal["val", "test"],
        model: nn.Module,
        loss: Loss,
        batches: BatchSource,
        metrics: Sequence[Metric] = (),
        device: torch.device | None = None,
        seed: int = 0,
    ) -> None:
        self.metrics: dict[str, float] | None = None
        self._mode: Literal["val", "test"] = mode
        self._model = model
        self._loss = loss
        self._batches = batches
        self._measures = metrics
        self._device = device if device is not None and device.type != "cpu" else None
        self._seed = seed

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
        measured = [part for part in (self._model, self._loss) if isinstance(part, nn.Module)]
        modes = {module: module.training for part in measured for module in part.modules()}
        for part in measured:
            part.eval()
        try:
            with shielded_rng(devices=True), torch.no_grad():
                seed_process(mix(self._seed, self._mode))
                results = self._pass(engine)
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

    def _pass(self, engine: Engine) -> dict[str, float] | None:
        points, validating = engine.points, self._mode == "val"
        for measure in self._measures:
            measure.reset()
        losses: list[tuple[Tensor, int]] = []
        self._batches.set_epoch(0)
        for index, batch in enumerate(self._batches):
            if engine.stop_reason is not None:
                return None
            if before := points.before_val_iter if validating else points.before_test_iter:
                before(engine, index, batch)
            inputs, targets = as_pair(batch, self._device)
            outputs = self._model(inputs)
            losses.append((self._loss(outputs, targets), len(targets)))
            for measure in self._measures:
                measure.update(outputs, targets)
            if after := points.after_val_iter if validating else points.after_test_iter:
                after(engine, index, batch, outputs)
        if not losses or len(losses) != len(self._batches):
            raise TrainingError(
                f"the {self._mode} data ended after {len(losses)} of {len(self._batches)} batches",
                mend="is the dataset empty, does it raise StopIteration, or have another length than it says?",
            )
        weight = sum(size for _, size in losses)
        results = {f"{self._mode}/loss": fsum(float(loss) * size for loss, size in losses) / weight}
        for measure in self._measures:
            for name, value in measure.compute().items():
                if f"{self._mode}/{name}" in results:
                    raise TrainingError(f"two metrics give '{self._mode}/{name}'", mend="rename one")
                results[f"{self._mode}/{name}"] = float(value)
        return results

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""

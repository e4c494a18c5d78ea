"""Prediction: one pass over data, whose results are handed on batch by batch."""

from __future__ import annotations

import torch
from torch import nn

from treenail.adapters.loops.gathering import RankBatches
from treenail.adapters.loops.inference import Precision, autocast, inference, model_of, own_step
from treenail.adapters.loops.measures import inputs_of
from treenail.adapters.optim import moved
from treenail.contracts import TakesPredictions
from treenail.kernel import BatchSource, Communicator, Engine, TrainingError, mix


class PredictLoop:
    """Hands on what a model predicts for data, in their order, on many ranks as on one.

    A model with a `test_step` is given whole batches; any other one the inputs: a batch, or the first part of a batch
    (inputs, targets).

    The engine has ``points=PredictHook``.

    Args:
        model: What predicts.
        batches: The data.
        taker: Takes the predictions, on rank 0.
        device: Where the model is.
        seed: Seed of anything random.
        communicator: The ranks, each of which has a share of the data.
        precision: What the model computes in, by automatic mixed precision.

    Attributes:
        done: Whether the last pass went through all the data, and was not stopped.

    Raises:
        ValueError: There is no such precision on this device.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: BatchSource,
        taker: TakesPredictions,
        device: torch.device | None = None,
        seed: int = 0,
        communicator: Communicator | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.done = False
        self._model = model
        self._batches = batches
        self._taker = taker
        self._device = device if device is not None and device.type != "cpu" else None
        self._seed = mix(seed, "predict")
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None
        self._autocast = autocast(precision, self._device)

    def run(self, engine: Engine) -> None:
        """Predict, unless the engine is asked to stop meanwhile; what was predicted until then is dropped.

        Raises:
            TrainingError: There is no data, or a prediction is not one a sample.
        """
        self.done = False
        self._taker.reset()
        engine.fire("before_predict")
        model = model_of(engine, self._model)
        step = own_step(model, "test")
        source = RankBatches(self._batches, self._ranks, "predict")
        index = 0
        with inference(model, None, self._seed, self._ranks):
            for mine in source:
                if engine.check_stop():
                    self._taker.reset()
                    return
                outputs: object = None
                if mine is not None:
                    engine.fire("before_predict_iter", index, mine.batch)
                    batch = mine.batch if self._device is None else moved(mine.batch, self._device)
                    with self._autocast:
                        outputs = model(inputs_of(batch)) if step is None else step(batch)
                    if outputs is None:
                        raise TrainingError(
                            f"the model predicts None for batch {index}",
                            mend="does its test_step return what it found?",
                        )
                predictions = source.merge(mine, outputs)
                indices = source.merge(mine, None if mine is None else mine.indices)
                if predictions is not None:
                    self._taker.take(indices, predictions)
                if mine is not None:
                    engine.fire("after_predict_iter", index, mine.batch, outputs)
                    index += 1
        if self._ranks is None or self._ranks.rank == 0:
            self._taker.compute()
        if self._ranks is not None:
            self._ranks.barrier()  # no rank tells of a file that is not written yet
        self.done = True
        engine.fire("after_predict")

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: an interrupted pass begins anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take nothing."""

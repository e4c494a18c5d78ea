"""Averages of the model's weights, after each step that its optimizer made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import nn

from treenail.adapters.averaging import (
    Curve,
    Rule,
    WeightAverages,
    annealed_rule,
    constant_rule,
    layers_with_statistics,
    uniform_rule,
)
from treenail.adapters.seeding import shielded_rng
from treenail.contracts import StepOutput
from treenail.contracts.averaging import Averager
from treenail.kernel import Engine, Hook, HookError, TrainingError

PART = "averages"
"""Name of the engine's part whose view is evaluated."""

_CURVES: Mapping[str, Curve] = {"MomentumAnnealingEMA": "hyperbolic", "ExpMomentumEMA": "exponential"}
_KINDS = ("ExponentialMovingAverage", "StochasticWeightAverage", *_CURVES)


class AveragingHook(Hook):
    """Updates the engine's part ``averages`` after each training step.

    A step that the optimizer skipped is no update. The averages are saved as a part of each checkpoint. Where they have buffers
    of their own, the statistics of batch normalisation are measured for them, as means over batches, before each validation
    and test and at the end of the training.

    Args:
        batches: Returns what to measure statistics on: batches whose first item is a tensor [batch, …].
        device: Where the model is, if the batches are elsewhere.
    """

    priority = 60  # behind what looks at a step's weights, before schedules and persistence

    def __init__(
        self, batches: Callable[[], Iterable[object]] | None = None, device: torch.device | None = None
    ) -> None:
        self._averages: Averager | None = None
        self._batches = batches
        self._device = device

    def before_train(self, engine: Engine) -> None:
        """Look the averages up.

        Raises:
            TrainingError: They would begin after the end of the training, or be evaluated with batch normalisation's
                statistics of its beginning.
        """
        averages = self._averages = engine.part(PART, Averager)
        if isinstance(averages, WeightAverages):
            if self._to_measure(engine) is not None and (self._batches is None or _is_sharded(engine)):
                why = "FSDP2 has sharded the model" if self._batches else "the hook has no batches to measure them on"
                raise TrainingError(
                    "averages with buffers 'ignore' keep the statistics that batch normalisation had at the first of them: "
                    f"they cannot be measured anew, since {why}",
                    mend="let buffers be average or copy",
                )
            epochs = getattr(engine.parts.get("loop"), "max_epochs", None)
            for name, begin, last in (
                ("begin_step", averages.begin_step, engine.total_steps),
                ("begin_epoch", averages.begin_epoch, epochs),
            ):
                if isinstance(last, int) and begin > last:
                    raise TrainingError(
                        f"averages with {name}={begin} never begin, the training ends with {last}", mend=f"lower {name}"
                    )

    def before_val(self, engine: Engine) -> None:
        """Measure statistics."""
        self._measure(engine)

    def before_test(self, engine: Engine) -> None:
        """Measure statistics."""
        self._measure(engine)

    def after_train(self, engine: Engine) -> None:
        """Measure statistics, for the last checkpoint; where the training was stopped there may be no time."""
        if engine.stop_reason is None:
            self._measure(engine)

    def _to_measure(self, engine: Engine) -> WeightAverages | None:
        """Return the averages, where statistics belong to them that nothing else keeps."""
        averages, model = engine.parts.get(PART), engine.parts.get("model")
        if not isinstance(averages, WeightAverages) or averages.buffers != "ignore":
            return None
        return averages if isinstance(model, nn.Module) and layers_with_statistics(model) else None

    def _measure(self, engine: Engine) -> None:
        averages = self._to_measure(engine)
        if averages is not None and self._batches is not None and averages.measured != averages.averaged:
            with shielded_rng(devices=True):
                averages.measure(self._batches(), self._device)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Update the averages, if the optimizer made its step."""
        if self._averages is not None and not (isinstance(outputs, StepOutput) and not outputs.stepped):
            self._averages.update(engine.step + 1, engine.epoch + 1)


def _is_sharded(engine: Engine) -> bool:
    model = engine.parts.get("model")
    return isinstance(model, nn.Module) and any(hasattr(each, "set_requires_gradient_sync") for each in model.modules())


class EMAHook(AveragingHook):
    """Averages of the part ``model`` under mmengine's name and with its arguments.

    Evaluation sees a view of them, and the checkpoint holds them as the part ``averages`` beside the trained weights: nothing is
    ever swapped. For models that are sharded over ranks the run's own ``averaging`` is right, which is made with the model.

    Args:
        ema_type: The kind of averages.
        strict_load: Whether a checkpoint without averages is an error; else averages begin at the next step.
        begin_iter: The first training step, from 1, after which weights are averaged; 0: from the beginning.
        begin_epoch: The first epoch, from 1, in which weights are averaged; 0: from the beginning.
        momentum: Weight of the new weights; of no meaning to StochasticWeightAverage. None: 0.0002.
        gamma: How slowly the momentum falls, for the two kinds that anneal it. None: 100, ExpMomentumEMA 2000.
        interval: Average at every so many steps.
        update_buffers: Average the buffers of floating point, too; else a view has the model's.
        device: Where averages are kept, where not with the weights.

    Raises:
        ValueError: Both a step and an epoch to begin at are given, or an argument has no meaning for the kind.
    """

    def __init__(
        self,
        ema_type: Literal[
            "ExponentialMovingAverage", "MomentumAnnealingEMA", "ExpMomentumEMA", "StochasticWeightAverage"
        ] = "ExponentialMovingAverage",
        strict_load: bool = False,
        begin_iter: Annotated[int, Meta(ge=0)] = 0,
        begin_epoch: Annotated[int, Meta(ge=0)] = 0,
        *,
        momentum: Annotated[float, Meta(gt=0, lt=1)] | None = None,
        gamma: Annotated[float, Meta(gt=0)] | None = None,
        interval: Annotated[int, Meta(ge=1)] = 1,
        update_buffers: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        if ema_type not in _KINDS:  # written in Python, where nothing checked it
            raise ValueError(f"ema_type is {ema_type!r}, must be {', '.join(_KINDS)}")
        uniform, curve = ema_type == "StochasticWeightAverage", _CURVES.get(ema_type)
        for name, value, meant in (("momentum", momentum, not uniform), ("gamma", gamma, curve is not None)):
            if value is not None and not meant:
                raise ValueError(f"{ema_type} has no {name}; leave it out")
        if begin_iter and begin_epoch:
            raise ValueError(f"{begin_iter=} and {begin_epoch=} exclude each other; leave out one of them")
        momentum = 0.0002 if momentum is None else momentum
        rule: Rule = constant_rule(momentum) if curve is None else annealed_rule(momentum, gamma, curve)
        self.strict_load = strict_load
        self._make = partial(
            WeightAverages,
            rule=uniform_rule if uniform else rule,
            interval=interval,
            begin_step=begin_iter,
            begin_epoch=begin_epoch,
            buffers="average" if update_buffers else "copy",
            device=device,
        )

    def before_run(self, engine: Engine) -> None:
        """Make the averages, and a part of the engine.

        Raises:
            HookError: The engine has other averages already.
        """
        if self._averages is not None and engine.parts.get(PART) is self._averages:
            return  # the engine runs again
        if PART in engine.parts:
            raise HookError(
                f"the engine has a part '{PART}' already", mend="leave out this hook, or the other averages"
            )
        self._averages = engine.parts[PART] = self._make(engine.part("model", nn.Module))

    def after_load_checkpoint(self, engine: Engine, checkpoint: dict[str, object]) -> None:
        """Begin anew where a checkpoint has no averages, unless that is an error."""
        if not self.strict_load and PART not in checkpoint and PART in engine.parts:
            checkpoint[PART] = self._make(engine.part("model", nn.Module)).state_dict()

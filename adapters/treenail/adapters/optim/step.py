"""The training step of a plain module with a loss, and of a module that has a step of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.adapters.optim.anomalies import parameters_outside
from treenail.adapters.optim.batches import as_pair, batch_size, describe, equal_parts, micro_batches, moved
from treenail.adapters.optim.losses import check_loss
from treenail.adapters.optim.several import OptimWrapperDict
from treenail.adapters.optim.wrapper import OptimWrapper
from treenail.adapters.parallel import bare, needs_closure
from treenail.contracts import Loss, LossSum, Outcome, Skipped, StepOutput, Stepped, TrainsItself, Updater
from treenail.kernel import Communicator, TrainingError


class SupervisedStep:
    """Forward, loss, backward and update for a batch of (inputs, targets).

    The batch is split into as many micro-batches as the updater accumulates. Every sample counts alike, whatever the split
    into micro-batches and ranks; where the loss is a `LossSum`, everything that it was summed over does.

    Args:
        model: Takes the inputs.
        loss: (outputs, targets) → 0-dim mean loss, or a `LossSum`.
        optimizer: Updates the model's parameters; one of torch's, or what it is wrapped in.
        device: Where the model is; batches are moved there.
        share: On many ranks, whose gradients the model averages: (how many samples of the whole batch are this rank's, how
            many it has), so that every sample counts as much as every other; None where the ranks' batches are alike.
        ranks: The ranks; None: only this process.
        detect_anomalous_params: Warn in the first step of parameters that its loss does not depend on.

    Raises:
        ValueError: The optimizer evaluates the loss several times a step (LBFGS), and there are several ranks, which
            would not agree how often.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        loss: Loss,
        optimizer: Optimizer | Updater,
        device: torch.device | None = None,
        share: Callable[[], tuple[int, int] | None] | None = None,
        ranks: Communicator | None = None,
        *,
        detect_anomalous_params: bool = False,
    ) -> None:
        self._looks = detect_anomalous_params
        self._model = model
        self._module = model if isinstance(model, nn.Module) else nn.Module()
        self._loss = loss
        self._updater: Updater = OptimWrapper(optimizer) if isinstance(optimizer, Optimizer) else optimizer
        self._takes_closure = needs_closure(self._updater.optimizer)
        self._ranks = ranks if ranks is not None and ranks.world_size > 1 else None
        self._world_size = self._ranks.world_size if self._ranks else 1
        if self._takes_closure and self._ranks:
            name = type(self._updater.optimizer).__name__
            raise ValueError(f"{name} evaluates the loss several times a step: train in one process")
        self._device = device if device is not None and device.type != "cpu" else None
        self._share = share if self._ranks else None
        self._sums = is_sum(loss)
        plain = (
            isinstance(self._updater, OptimWrapper)
            and self._updater.precision == "float32"
            and type(self._updater).optim_context is OptimWrapper.optim_context  # which has nothing to do then
        )
        alone = self._ranks is None and self._updater.accumulative_counts == 1
        self._is_plain = plain and alone and not self._takes_closure and not detect_anomalous_params

    def __call__(self, batch: object) -> StepOutput:
        """Update once.

        Raises:
            TrainingError: The batch is not a pair of tensors, or the loss cannot be differentiated.
        """
        inputs, targets = as_pair(batch, self._device)
        if self._is_plain:  # what the rest comes to with one micro-batch of one process, at a fraction of its cost
            updater = self._updater
            updater.zero_grad()
            loss, weight = self._mean_loss(inputs, targets)
            updater.backward(loss)
            return _output(self._number(loss), weight, updater.step())
        if self._takes_closure:
            return self._step_by_closure(inputs, targets)
        share = self._share() if self._share is not None else None
        if share is None:
            mine = targets.shape[0] if targets.ndim else 1
            share = mine, mine * self._world_size
        if not share[1]:
            raise TrainingError(
                "there is a batch without samples", mend="let the dataset, or its collation, leave it out"
            )
        updater = self._updater
        updater.zero_grad()
        number, counted, scale = self._gradients(inputs, targets, share)
        return _output(number, counted, updater.step(scale=scale))

    def _mean_loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return (mean loss, what it was averaged over)."""
        loss = self._loss(self._model(inputs), targets)
        if isinstance(loss, LossSum):
            check_loss(loss)
            return loss.total / _positive(loss.weight), loss.weight
        shape = targets.shape
        return loss, shape[0] if shape else 1

    def _step_by_closure(self, inputs: Tensor, targets: Tensor) -> StepOutput:
        outputs: list[StepOutput] = []

        def closure() -> float:
            self._updater.zero_grad()
            with self._updater.optim_context(self._module, last=True):
                loss, weight = self._mean_loss(inputs, targets)
            self._updater.backward(loss)
            outputs.append(StepOutput(self._number(loss), weight))
            return loss.item()

        self._updater.step(closure)
        return outputs[0]

    def _gradients(
        self, inputs: Tensor, targets: Tensor, share: tuple[int, int]
    ) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """Return (mean loss of this rank, what it was averaged over, what gradients must be multiplied with)."""
        mine, whole = share
        counts = self._updater.accumulative_counts
        if counts == 1:
            loss, weight = self._add_gradient(inputs, targets, mine, whole, last=True)
            if weight is None:
                return self._number(loss), mine, 1.0
            total, own = [loss], [weight]
        else:
            # All ranks make as many passes: that many shares of the largest have samples.
            passes = min(counts, max(1, -(-whole // self._world_size)))
            total, own = [], []
            for part in micro_batches(inputs, targets, mine, passes):
                loss, weight = self._add_gradient(part.inputs, part.targets, part.samples, whole, last=part.last)
                counted = part.samples if weight is None and not self._sums else 1
                total.append(loss if counted == 1 else loss * counted)
                if weight is not None:
                    own.append(weight)
        sum_of_losses = torch.stack(total).sum() if len(total) > 1 else total[0]
        if not own:
            return self._number(sum_of_losses if self._sums or not mine else sum_of_losses / mine), mine, 1.0
        weight = sum(own[1:], start=own[0])
        if self._device is None:
            weight = float(weight)
        return self._number(sum_of_losses / _positive(weight)), weight, self._correction(weight, whole)

    def _add_gradient(
        self, inputs: Tensor, targets: Tensor, samples: int, whole: int, *, last: bool
    ) -> tuple[Tensor, Tensor | float | None]:
        """Return (loss, weight of a `LossSum`) of a part of a batch, and add its gradient."""
        with self._updater.optim_context(self._module, last=last):
            loss = self._loss(self._model(inputs), targets)
            check_loss(loss)
            if self._looks:
                self._looks = False
                self._warn_of_parameters_outside(loss.total if isinstance(loss, LossSum) else loss)
            if isinstance(loss, LossSum):
                # As of a mean over samples: what it was really summed over is known when all parts are.
                self._updater.backward(loss.total * (self._world_size / whole if samples else 0.0))
                return loss.total.detach(), loss.weight if samples else 0.0
            # The ranks' gradients are averaged: of means by their samples, of sums as if they were added.
            factor = (self._world_size if samples else 0) if self._sums else samples * self._world_size / whole
            counted = loss if factor == 1 else loss * factor
            self._updater.backward(counted)
            return (counted if self._sums else loss).detach(), None

    def _warn_of_parameters_outside(self, loss: Tensor) -> None:
        names = parameters_outside(loss, bare(self._module))
        if names:
            more = f" and {len(names) - 10} more" if names[10:] else ""
            warnings.warn(f"the loss does not depend on {', '.join(names[:10])}{more}", stacklevel=2)

    def _correction(self, weight: Tensor | float, whole: int) -> Tensor | float:
        if self._ranks is not None:
            precise = self._device is None or self._device.type != "mps"  # which has no float64
            own = torch.as_tensor(weight, dtype=torch.float64 if precise else torch.float32, device=self._device)
            weight = self._ranks.all_reduce(own.reshape(1))[0]
            if self._device is None:
                weight = float(weight)
        return whole / _positive(weight)

    def _number(self, loss: Tensor) -> Tensor | float:
        # Reading the number from a GPU would wait for the step. On the CPU a detached tensor would cost more than its number.
        return loss.item() if self._device is None else loss.detach()


class OwnStep:
    """The step of a model that says itself what it trains, with one optimizer or several.

    It gets whole batches; where updaters accumulate, it is called for as many equal parts of each, and reports their means.
    Gradients live from step to step where an updater accumulates those of losses that it was given, or where no updater made
    an update: the model then accumulates by itself. Others, such as a generator's loss leaves in the discriminator, are
    forgotten before each step.

    Args:
        model: Has ``train_step(data, optim_wrapper) -> {name: 0-dim tensor}``.
        updaters: What it gets as ``optim_wrapper``.
        device: Where the model is; tensors of batches are moved there.
        share: On many ranks, whose gradients the model averages: (how many samples of the whole batch are this rank's, how
            many it has); None where the ranks' batches are alike.
        world_size: Number of ranks.

    Raises:
        ValueError: Updaters accumulate different numbers of micro-batches, or an optimizer evaluates the loss several times
            a step.
    """

    def __init__(
        self,
        model: TrainsItself,
        updaters: OptimWrapper | OptimWrapperDict,
        device: torch.device | None = None,
        share: Callable[[], tuple[int, int] | None] | None = None,
        world_size: int = 1,
    ) -> None:
        named = dict(updaters) if isinstance(updaters, OptimWrapperDict) else {"": updaters}
        counts = {updater.accumulative_counts for updater in named.values()}
        if len(counts) > 1:
            raise ValueError(
                f"accumulative_counts are {' and '.join(map(str, sorted(counts)))}: a train_step gets the same micro-batches "
                "for all optimizers, so give all of them as many"
            )
        for updater in named.values():
            if needs_closure(updater.optimizer):
                name = type(updater.optimizer).__name__
                raise ValueError(f"{name} evaluates the loss several times a step, which a train_step does once")
        self._model = model
        self._updaters = updaters
        self._named = named
        self._parts = max(counts, default=1)
        self._device = device if device is not None and device.type != "cpu" else None
        self._share = share if world_size > 1 else None
        self._world_size = world_size

    def __call__(self, batch: object) -> StepOutput:
        """Let the model do its step.

        Raises:
            TrainingError: It returned something else than numbers by name, with a loss among them; or ranks have different
                numbers of samples, which it would average as equals.
        """
        share = self._share() if self._share is not None else None
        if share is not None and share[0] * self._world_size != share[1]:
            raise TrainingError(
                f"{share[1]} samples of a batch are no equal shares of {self._world_size} ranks, whose gradients a "
                "train_step averages as equals",
                mend=f"let batch_size be a multiple of {self._world_size}, with drop_last: true",
            )
        updaters = self._updaters
        made, skipped = updaters.steps, updaters.skipped
        for updater in self._named.values():
            updater.outcome = None
            if not updater.is_accumulating:
                updater.zero_grad()  # what other optimizers' losses left, which no checkpoint holds
        data = batch if self._device is None else moved(batch, self._device)
        if self._parts == 1:
            logs = self._train(data)
        else:
            told: dict[str, list[Tensor | float]] = {}
            for part in equal_parts(data, self._parts):
                for name, value in self._train(part).items():
                    told.setdefault(name, []).append(value)
            logs = {name: sum(values) / len(values) for name, values in told.items()}
        losses = [value for name, value in logs.items() if "loss" in name]
        if not losses:
            raise TrainingError(
                f"train_step of {type(self._model).__name__} returned {', '.join(logs) or 'nothing'}, no loss",
                mend='return {"loss": loss} or {"loss_…": …}',
            )
        loss = logs.pop("loss") if "loss" in logs else sum(losses[1:], start=losses[0])
        for name, updater in self._named.items():
            if isinstance(updater.outcome, Stepped) and updater.outcome.grad_norm is not None:
                logs[f"grad_norm_{name}" if name else "grad_norm"] = updater.outcome.grad_norm
        if updaters.steps == made and updaters.skipped == skipped:
            for updater in self._named.values():
                updater.keep_gradients()
        # One that updates by itself, past its optim_wrapper, makes steps that nobody counts.
        stepped = updaters.steps > made or updaters.skipped == skipped
        return StepOutput(loss, batch_size(batch), stepped, logs)

    def _train(self, data: object) -> dict[str, Tensor | float]:
        try:
            returned = self._model.train_step(data, self._updaters)
        except RuntimeError as error:
            if "mixed torch.Tensor and DTensor" not in str(error):
                raise
            raise TrainingError(
                f"train_step of {type(self._model).__name__} calls a module whose parameters are gathered only when the model "
                "that holds it is called",
                where="distributed.parallel",
                mend="let the modules that it calls be units of fully_sharded, by classes: […] or min_parameters",
            ) from error
        if not isinstance(returned, Mapping):
            raise TrainingError(
                f"train_step of {type(self._model).__name__} returned a {describe(returned)}",
                mend='return a mapping of names to numbers: {"loss": loss}',
            )
        return {str(name): self._scalar(name, value) for name, value in returned.items()}

    def _scalar(self, name: object, value: object) -> Tensor | float:
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.detach().reshape(())
            return value if self._device is not None else float(value)
        if isinstance(value, int | float):
            return float(value)
        raise TrainingError(
            f"train_step of {type(self._model).__name__} returned a {describe(value)} as '{name}'",
            mend="return numbers, or tensors of one",
        )


def is_sum(loss: Loss) -> bool:
    """Return whether a loss of torch's is a sum over samples, as its ``reduction`` says, where others are means."""
    loss = getattr(loss, "module", loss)  # of a wrapper
    keywords = loss.keywords if isinstance(loss, partial) else {}
    return keywords.get("reduction", getattr(loss, "reduction", None)) == "sum"


def _output(loss: Tensor | float, weight: Tensor | float, outcome: Outcome) -> StepOutput:
    if isinstance(outcome, Skipped):
        return StepOutput(loss, weight, stepped=False)
    norm = outcome.grad_norm
    # Past the constructor in Python that a named tuple has: every step comes here.
    return tuple.__new__(StepOutput, (loss, weight, True, _NO_LOGS if norm is None else {"grad_norm": norm}))


_NO_LOGS: Mapping[str, Tensor | float] = MappingProxyType({})


def _positive(weight: Tensor | float) -> Tensor | float:
    """Return a divisor: of nothing at all the sum is 0, too."""
    if not isinstance(weight, Tensor):
        return weight or 1.0
    divisor = weight.clamp(min=1e-30)
    # A GPU is not waited for to know the sign: of a negative weight the loss is NaN, which is looked for.
    return divisor if weight.is_cpu else torch.where(weight < 0, torch.nan, divisor)

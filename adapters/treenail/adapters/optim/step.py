"""The training step of a plain module with a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from treenail.contracts import Loss, StepOutput
from treenail.kernel import TrainingError


class SupervisedStep:
    """Forward, loss, backward and update for a batch of (inputs, targets).

    Args:
        model: Takes the inputs.
        loss: (outputs, targets) → 0-dim mean loss.
        optimizer: Updates the model's parameters.
        device: Where the model is; batches are moved there.
        share: On many ranks, whose gradients the model averages: (how many samples of the whole batch are this rank's, how
            many it has), so that every sample counts as much as every other; None where the ranks' batches are alike.
        world_size: Number of ranks.

    Raises:
        ValueError: The optimizer evaluates the loss several times a step (LBFGS), and there are several ranks, which
            would not agree how often.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        loss: Loss,
        optimizer: Optimizer,
        device: torch.device | None = None,
        share: Callable[[], tuple[int, int] | None] | None = None,
        world_size: int = 1,
    ) -> None:
        self._model = model
        self._loss = loss
        self._optimizer = optimizer
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        self._takes_closure = closure is not None and closure.default is closure.empty  # LBFGS evaluates several times
        if self._takes_closure and world_size > 1:
            raise ValueError(
                f"{type(optimizer).__name__} evaluates the loss several times a step: train in one process"
            )
        self._device = device if device is not None and device.type != "cpu" else None
        self._share = share if world_size > 1 else None
        self._world_size = world_size
        self._sums = is_sum(loss)

    def __call__(self, batch: object) -> StepOutput:
        """Update once.

        Raises:
            TrainingError: The batch is not a pair of tensors, or the loss cannot be differentiated.
        """
        inputs, targets = as_pair(batch, self._device)
        if self._takes_closure:
            loss = self._step_by_closure(inputs, targets)
        else:
            loss = self._backward(inputs, targets)
            self._optimizer.step()
        weight = targets.shape[0] if targets.ndim else 1
        if self._share is not None and (share := self._share()) is not None:
            weight = share[0]  # a rank without a sample of this batch was given one that does not count
        if self._device is not None:  # reading the number from a GPU would wait for the step
            return StepOutput(loss.detach(), weight)
        # Of a 0-dim tensor tolist() gives the number; unlike item() it takes one that requires a gradient.
        return StepOutput(cast("float", loss.tolist()), weight)

    def _step_by_closure(self, inputs: Tensor, targets: Tensor) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> float:
            losses.append(self._backward(inputs, targets))
            return float(losses[-1].detach())

        self._optimizer.step(closure)
        return losses[0]

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self._optimizer.zero_grad()
        loss = self._loss(self._model(inputs), targets)
        if not loss.requires_grad or loss.ndim != 0:
            raise TrainingError(
                f"the loss is a tensor of shape {list(loss.shape)} with requires_grad={loss.requires_grad}",
                mend="a loss must be one number that depends on the model's parameters",
            )
        counted = loss
        if self._share is not None and (share := self._share()) is not None:
            mine, whole = share
            # The ranks' gradients are averaged: of means by their samples, of sums as if they were added.
            factor = (self._world_size if mine else 0) if self._sums else mine * self._world_size / whole
            counted = loss if factor == 1 else loss * factor
        counted.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return counted if self._sums else loss


def as_pair(batch: object, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Check that a batch is (inputs, targets) and move it.

    Raises:
        TrainingError: It is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TrainingError(f"a batch is a {describe(batch)}", mend="let the dataset return (input, target) pairs")
    inputs, targets = batch
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise TrainingError(
            f"a batch is ({describe(inputs)}, {describe(targets)})",
            mend="let the dataset return pairs that collate to two tensors",
        )
    if device is not None:
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    return inputs, targets


def is_sum(loss: Loss) -> bool:
    """Return whether a loss of torch's is a sum over samples, as its ``reduction`` says, where others are means."""
    loss = getattr(loss, "module", loss)  # of a wrapper
    keywords = loss.keywords if isinstance(loss, partial) else {}
    return keywords.get("reduction", getattr(loss, "reduction", None)) == "sum"


def describe(value: object) -> str:
    """Name a value's type, with the length of a sequence."""
    size = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return type(value).__name__ + size

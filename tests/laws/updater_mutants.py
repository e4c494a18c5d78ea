"""Updaters that break one law each, and an honest one that they derive from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from treenail.contracts.updates import Outcome, Skipped, Stepped
from treenail.kernel import TrainingError


class PlainUpdater:
    """The least that an updater does."""

    def __init__(self, optimizer: Optimizer, accumulative_counts: int = 1) -> None:
        self._optimizer = optimizer
        self._counts = accumulative_counts
        self.steps = 0

    @property
    def optimizer(self) -> Optimizer:
        return self._optimizer

    @property
    def accumulative_counts(self) -> int:
        return self._counts

    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            raise TrainingError("this is no loss")
        torch.autograd.backward(loss)

    def gradients(self) -> list[Tensor]:
        parameters = (each for group in self._optimizer.param_groups for each in group["params"])
        return [each.grad for each in parameters if each.grad is not None]

    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        for gradient in self.gradients():
            gradient.mul_(scale)
        self._optimizer.step()
        self.steps += 1
        return Stepped()

    def zero_grad(self) -> None:
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.steps = int(str(state_dict["steps"]))


class SkipsNonfinite(PlainUpdater):
    """Honest, too."""

    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        if not all(bool(gradient.isfinite().all()) for gradient in self.gradients()):
            return Skipped("a gradient is not finite")
        return super().step(closure, scale=scale)


class HasAnotherOptimizer(PlainUpdater):
    @property
    def optimizer(self) -> Optimizer:
        return SGD([parameter for group in self._optimizer.param_groups for parameter in group["params"]], lr=0.1)


class SaysOneMicroBatch(PlainUpdater):
    @property
    def accumulative_counts(self) -> int:
        return 1


class ClipsInSecret(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        for gradient in self.gradients():
            gradient.clamp_(-0.01, 0.01)
        return super().step(closure, scale=scale)


class StepsTwice(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        super().step(closure, scale=scale)
        return super().step(closure)


class ReplacesGradients(PlainUpdater):
    def backward(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        super().backward(loss)


class ForgetsNothing(PlainUpdater):
    def zero_grad(self) -> None:
        """Keep all."""


class IgnoresTheScale(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        return super().step(closure)


class ScalesTheRateInstead(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= float(scale)
        outcome = super().step(closure)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        return outcome


class SkipsAndSaysStepped(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        finite = all(bool(gradient.isfinite().all()) for gradient in self.gradients())
        return super().step(closure, scale=scale) if finite else Stepped()


class StepsAndSaysSkipped(PlainUpdater):
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        finite = all(bool(gradient.isfinite().all()) for gradient in self.gradients())
        outcome = super().step(closure, scale=scale)
        return outcome if finite else Skipped("a gradient is not finite")


class TakesVectors(PlainUpdater):
    def backward(self, loss: Tensor) -> None:
        if isinstance(loss, Tensor) and loss.requires_grad:
            torch.autograd.backward(loss.sum())
        else:
            super().backward(loss)


class LetsTorchComplain(PlainUpdater):
    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)


class TurnsGradientsOff(PlainUpdater):
    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        return nullcontext() if last else torch.no_grad()


class LeavesItsPrecisionOn(PlainUpdater):
    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        model.to(torch.bfloat16 if last else torch.float32)
        return nullcontext()


class OneContextForAll(PlainUpdater):
    def __init__(self, optimizer: Optimizer, accumulative_counts: int = 1) -> None:
        super().__init__(optimizer, accumulative_counts)
        self._context = self._once()

    @contextmanager
    def _once(self) -> Iterator[None]:
        yield

    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        return self._context


class WarmsUpAnew(PlainUpdater):
    """Counts steps for what it does, and forgets them when it is saved."""

    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        return super().step(closure, scale=scale * min(1.0, (self.steps + 1) / 3))

    def state_dict(self) -> dict[str, object]:
        return {"steps": 0}

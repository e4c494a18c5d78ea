"""Updates of parameters: what a training step asks of whatever holds its optimizer, and what it gets to know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from treenail.kernel import Stateful


class LossSum(NamedTuple):
    """A loss that says what it was summed over, so that any split of a batch gives the same gradient.

    Args:
        total: Sum over all that counts, a 0-dim tensor.
        weight: How much that is: samples, tokens, valid pixels …; a number, or a 0-dim tensor.
    """

    total: Tensor
    weight: Tensor | float


class Stepped(NamedTuple):
    """The optimizer made its step.

    Args:
        grad_norm: Norm of all gradients before they were clipped, float[]; None where nothing asked for it.
    """

    grad_norm: Tensor | None = None


class Skipped(NamedTuple):
    """The optimizer made no step: schedules, averages and counters of updates stay where they are.

    Args:
        reason: Why, for people.
    """

    reason: str


Outcome: TypeAlias = Stepped | Skipped


@runtime_checkable
class Updater(Stateful, Protocol):
    """An optimizer, and how gradients come to it: precision, accumulation, clipping.

    A step of several micro-batches is ``optim_context`` and ``backward`` for each, then ``step`` and ``zero_grad``.
    """

    @property
    @abstractmethod
    def optimizer(self) -> Optimizer:
        """The optimizer; it is saved by whoever made it."""
        ...

    @property
    @abstractmethod
    def accumulative_counts(self) -> int:
        """How many micro-batches make an update."""
        ...

    @abstractmethod
    def optim_context(self, model: nn.Module, *, last: bool | None = None) -> AbstractContextManager[object]:
        """Return the context of a forward and backward pass: precision, and no communication but in the last one.

        Args:
            model: As it is called in training.
            last: Whether an update follows; None leaves that to what was counted.
        """
        ...

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there.

        Raises:
            TrainingError: It is not one number that can be differentiated.
        """
        ...

    @abstractmethod
    def step(self, closure: Callable[[], float] | None = None, *, scale: Tensor | float = 1.0) -> Outcome:
        """Update the parameters.

        Args:
            closure: Evaluates the loss again, for optimizers that do so.
            scale: What gradients are multiplied with first.

        Raises:
            TrainingError: There is nothing to update with.
        """
        ...

    @abstractmethod
    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

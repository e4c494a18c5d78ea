"""Averages of a model's weights: what keeps them during a training, and what evaluation sees of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import nn

from treenail.kernel import Stateful


@runtime_checkable
class Averager(Stateful, Protocol):
    """Averages of the weights that a model had in the course of its training.

    It is made with the model, as it is without what makes it parallel. It reads the model and never writes to it: neither to
    its weights nor to its buffers, gradients or modes; and it draws no random numbers. Two averagers of equal state that are
    updated with equal weights have equal averages, bit for bit.

    Averaged are numbers of floating point, those of 16 bits in float32 at least, since their small steps would be rounded
    away; integers never are. Parameters that share their memory have one average. Tensors of the model may be replaced
    meanwhile: the averager looks at those that the model has at each update.

    A state is a tree of dicts and lists of tensors, numbers, strings and None. Loading takes copies of its tensors, leaves the
    model as it is, and raises `StateError` for a state of something else, which changes nothing.
    `treenail.contracts.laws.averaging` has all that as executable laws.
    """

    @abstractmethod
    def update(self, step: int, epoch: int = 1) -> None:
        """Look at the model's weights after a step of its optimizer; one that was skipped is no update.

        Args:
            step: Number of the training step, from 1.
            epoch: Number of its epoch, from 1.
        """
        ...

    @abstractmethod
    def view(self, into: nn.Module | None = None) -> nn.Module:
        """Return a module in eval mode with the averages for weights; the model is left as it is.

        It holds until the next update. As long as nothing has been averaged its weights are the model's own. Whatever is
        done to it, its mode and its buffers, does not reach the model.

        Args:
            into: A second module built and parallelised as the model was, which takes the averages and is returned: for
                models that torch cannot copy. None copies the model's structure.

        Raises:
            TrainingError: The model cannot be copied; or `into` is built otherwise, or has tensors of the model.
        """
        ...

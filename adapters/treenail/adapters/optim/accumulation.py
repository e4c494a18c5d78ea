"""The weights of the losses whose gradients make one update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from treenail.contracts.updates import LossSum
from treenail.kernel import Communicator, StateError, TrainingError


class Window:
    """The losses of one update: gradients are added up as if their sum of weights were `expected`.

    Where all weights are equal that is what they are in the end, and nothing is left to correct.
    """

    __slots__ = ("count", "expected", "weight", "weighted")

    def __init__(self) -> None:
        self.count = 0
        self.weight: Tensor | float = 0.0
        self.expected: Tensor | float = 1.0
        self.weighted = False

    def add(self, loss: Tensor | LossSum, weight: Tensor | float | None, length: int, *, shared: bool) -> Tensor:
        """Return what to differentiate.

        Args:
            loss: A mean over `weight`, or a sum.
            weight: As given.
            length: Losses of a whole window.
            shared: Ranks have weights of their own, so that what is expected must be the same for all.
        """
        weighted = weight is not None or isinstance(loss, LossSum)
        if self.count and weighted != self.weighted:
            raise TrainingError("some losses of an update have weights, others none", mend="give all of them weights")
        total = loss.total if isinstance(loss, LossSum) else None
        own = loss.weight if isinstance(loss, LossSum) else 1.0 if weight is None else weight
        if isinstance(own, float | int) and not own >= 0:
            raise TrainingError(f"a loss has the weight {own}", mend="weights are counts of samples, tokens …")
        if not self.count:
            self.expected = float(length) if shared or (isinstance(own, float | int) and own == 0) else length * own
            self.weighted = weighted
        self.count += 1
        self.weight = self.weight + own
        if total is not None:
            return total / self.expected
        mean = cast("Tensor", loss)
        if isinstance(own, float | int):
            if own == 0:
                return mean * 0.0
            divisor = self.expected / own
            return mean if isinstance(divisor, float | int) and divisor == 1 else mean / divisor
        return mean * (own / self.expected)

    def scale(self, ranks: Communicator | None) -> Tensor | float:
        """Return what corrects the gradients for the weights that there were."""
        if ranks is None or not self.weighted:
            if isinstance(self.weight, float | int) and self.weight == 0:
                return 1.0
            return self.expected / self.weight
        own = torch.as_tensor(self.weight, dtype=torch.float64)
        whole = ranks.all_reduce(own.reshape(1).clone())
        return float(self.expected) * ranks.world_size / max(float(whole), 1e-300)

    def state_dict(self) -> dict[str, object]:
        """Return what an unfinished update needs to go on."""
        return {"count": self.count, "weight": self.weight, "expected": self.expected, "weighted": self.weighted}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take a state.

        Raises:
            StateError: It has another form.
        """
        count, weight, expected = state.get("count"), state.get("weight"), state.get("expected")
        if (
            not isinstance(count, int)
            or not isinstance(weight, Tensor | float | int)
            or not isinstance(expected, Tensor | float | int)
        ):
            raise StateError("expected the weights of an accumulation", where="updates.accumulation")
        self.count, self.weight, self.expected = count, weight, expected
        self.weighted = state.get("weighted") is True

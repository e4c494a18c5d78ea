"""Which losses make an update together, and what each of them weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from treenail.contracts.updates import LossSum
from treenail.kernel import Communicator, StateError, TrainingError


class Counts:
    """Backward passes, and which of them complete an update.

    Args:
        every: How many make an update.
    """

    __slots__ = ("done", "end", "every")

    def __init__(self, every: int) -> None:
        self.every = every
        self.done = 0
        self.end: int | None = None
        """How many there are in the end; None: nobody knows."""

    def begin(self, done: int, end: int) -> None:
        """Say where in the training it is.

        Raises:
            ValueError: There are more now than in the end.
        """
        if not 0 <= done <= end:
            raise ValueError(f"init_counts={done} and max_counts={end} must be 0 <= init_counts <= max_counts")
        self.done, self.end = done, end

    def completes(self, count: int) -> bool:
        """Tell whether the pass of this number, from 1, completes an update."""
        return count % self.every == 0 or count == self.end

    def length(self) -> int:
        """Return how many passes the update has that the next one belongs to."""
        if self.end is not None and self.done >= self.end - self.end % self.every:
            return max(self.end % self.every, 1)
        return self.every

    def pending(self) -> int:
        """Return how many passes of an update there were."""
        return self.done % self.every or self.every

    def round_up(self) -> None:
        """Let an update begin with the next pass, unless it is known how many there are."""
        if self.end is None:
            self.done += -self.done % self.every


class Window:
    """The losses of one update: gradients are added up as if their sum of weights were `expected`.

    Where all weights are equal that is what they are in the end, and nothing is left to correct.
    """

    __slots__ = ("count", "expected", "weight", "weighted")

    def __init__(self) -> None:
        self.count = 0
        self.weight: Tensor | float = 0.0
        self.expected = 1.0
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
            # A tensor may be 0, and is not waited for to know that; ranks must expect the same.
            known = isinstance(own, float | int) and own > 0 and not shared
            self.expected = float(length * own) if known else float(length)
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
            return mean if divisor == 1 else mean / divisor
        return mean * (own / self.expected)

    def scale(self, ranks: Communicator | None) -> Tensor | float:
        """Return what corrects the gradients for the weights that there were."""
        weight = self.weight
        if ranks is not None and self.weighted:
            whole = ranks.all_reduce(torch.as_tensor(weight, dtype=torch.float64).reshape(1))
            weight = float(whole) / ranks.world_size
        if isinstance(weight, Tensor):  # of nothing at all gradients are 0, and stay so
            return torch.where(weight > 0, self.expected / weight, 1.0)
        return self.expected / weight if weight else 1.0

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
            or not isinstance(expected, float | int)
        ):
            raise StateError("expected the weights of an accumulation", where="updates.accumulation")
        self.count, self.weight, self.expected = count, weight, expected
        self.weighted = state.get("weighted") is True

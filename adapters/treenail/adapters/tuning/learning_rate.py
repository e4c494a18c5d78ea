"""Finds a learning rate: the range test, a short training whose learning rate grows until the loss diverges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf, isfinite
from typing import Annotated, NamedTuple

from msgspec import Meta
from torch.optim import Optimizer

from treenail.adapters.tuning.scaling import set_lr
from treenail.adapters.tuning.trials import left_unchanged
from treenail.contracts import StepOutput
from treenail.kernel import Stateful, TrainingError


class LrSweep(NamedTuple):
    """Losses by learning rate, in the order in which they were seen.

    What it suggests leaves out the first ten points, of less than thirty the first third: their averages are of few losses.

    Args:
        lrs: Learning rates of the group whose one is largest, growing by the same factor each step.
        losses: The mean loss of each step's batch, before its update.
        smoothed: Their exponential moving average.
        diverged: Whether the loss grew past all bounds before the highest learning rate was reached.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def _settled(self) -> int:
        return min(10, (len(self.lrs) - 3) // 3)

    @property
    def _least(self) -> int:
        return min(range(self._settled, len(self.lrs)), key=self.smoothed.__getitem__)

    @property
    def steepest(self) -> float:
        """The learning rate below the least smoothed loss at which it falls fastest along the logarithm of the learning rate."""
        first = self._settled + 1
        inner = range(first, max(first, min(self._least, len(self.lrs) - 2)) + 1)
        return self.lrs[min(inner, key=lambda at: self.smoothed[at + 1] - self.smoothed[at - 1])]

    @property
    def minimum_tenth(self) -> float:
        """A tenth of the learning rate at which the smoothed loss is least: there it is about to rise again."""
        return self.lrs[self._least] / 10


def find_lr(
    step: Callable[[object], StepOutput],
    batches: Iterable[object],
    optimizer: Optimizer,
    parts: Mapping[str, Stateful],
    *,
    lowest: Annotated[float, Meta(gt=0)] = 1e-7,
    highest: Annotated[float, Meta(gt=0)] = 10.0,
    steps: Annotated[int, Meta(ge=10)] = 100,
    smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.9,
    diverged: Annotated[float, Meta(gt=1)] = 4.0,
) -> LrSweep:
    """Train a few steps with a learning rate that grows exponentially, and leave everything as it was.

    Source: the learning rate range test of Smith 2015, https://arxiv.org/abs/1506.01186, section 3.3.

    Args:
        step: Takes a batch and updates the model, as `SupervisedStep`.
        batches: From where they stand; begun again where they are fewer than the steps. Nothing is consumed.
        optimizer: Other groups than the one with the largest learning rate keep their ratio to it.
        parts: What gets its state back afterwards: the model, the optimizer, and whatever else the step changes.
        lowest: The first learning rate.
        highest: The last one.
        steps: How many.
        smoothing: Weight of what was before in the moving average of the losses, whose bias towards 0 is corrected.
        diverged: The sweep ends when the smoothed loss is above so many times its least value, or not finite.

    Raises:
        ValueError: An argument is out of its range, or all learning rates of the optimizer are 0.
        TrainingError: There is no batch, or the loss is not finite within the first steps.
    """
    if not 0 < lowest < highest < inf or steps < 10 or not 0 <= smoothing < 1 or diverged <= 1:
        raise ValueError(
            f"{lowest=} and {highest=} must be 0 < lowest < highest < inf, {steps=} at least 10, {smoothing=} in [0, 1) and "
            f"{diverged=} above 1"
        )
    groups = optimizer.param_groups
    largest = max(float(group["lr"]) for group in groups)
    if largest == 0:
        raise ValueError("all learning rates of the optimizer are 0")
    ratios = [float(group["lr"]) / largest for group in groups]
    curve = _Curve(smoothing, diverged)
    with left_unchanged(parts):
        for index, batch in zip(range(steps), _repeated(batches), strict=False):
            lr = lowest * (highest / lowest) ** (index / (steps - 1))
            for group, ratio in zip(groups, ratios, strict=True):
                set_lr(group, lr * ratio)
            if not curve.add(lr, float(step(batch).loss)):
                break
    if len(curve.lrs) < 3:
        raise TrainingError(
            f"the loss is not finite, or {diverged:g} times larger than before, within three steps at learning rates from "
            f"{lowest:g} on",
            mend="begin with a lower one, or check the data and the loss",
        )
    return LrSweep(tuple(curve.lrs), tuple(curve.losses), tuple(curve.smoothed), curve.has_diverged)


class _Curve:
    def __init__(self, smoothing: float, diverged: float) -> None:
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.has_diverged = False
        self._smoothing = smoothing
        self._diverged = diverged
        self._average = 0.0

    def add(self, lr: float, loss: float) -> bool:
        """Take a point; return whether to go on."""
        self._average = self._smoothing * self._average + (1 - self._smoothing) * loss
        smoothed = self._average / (1 - self._smoothing ** (len(self.lrs) + 1))
        self.has_diverged = not isfinite(smoothed) or (
            bool(self.smoothed) and smoothed > self._diverged * abs(min(self.smoothed))
        )
        if isfinite(smoothed):
            self.lrs.append(lr)
            self.losses.append(loss)
            self.smoothed.append(smoothed)
        return not self.has_diverged


def _repeated(batches: Iterable[object]) -> Iterator[object]:
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise TrainingError(
                "there is no batch to train on",
                mend="is the dataset empty, or, with drop_last, smaller than a batch?",
            )

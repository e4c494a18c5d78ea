"""The steps of a training, and passes over its data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treenail.contracts import TrainWork
from treenail.kernel import BatchSource, Engine, EngineError, StateError, TrainingError


def train_steps(engine: Engine, work: TrainWork, batches: Iterable[object], index: int) -> int:
    """Train with each batch and commit each step, until there is none left or the run is asked to stop.

    Args:
        engine: Whose hook points are fired.
        work: The step, and the source of the batches.
        batches: What to train with.
        index: What hooks get as the first batch's index.

    Returns:
        The index of the batch that would be next.
    """
    step, source, points = work.step, work.batches, engine.points
    for batch in batches:
        if before := points.before_train_iter:
            before(engine, index, batch)
        outputs = step(batch)
        if after := points.after_train_iter:
            after(engine, index, batch, outputs)
        source.advance()
        engine.commit(steps=1)
        index += 1
        if engine.stop_reason is not None:
            break
    return index


def refuse_unasked(loop: type, mend: str) -> None:
    """Refuse a class with methods that loops elsewhere are made of (mmengine's), and that none of ours would ask.

    Args:
        loop: A subclass of one of our loops.
        mend: What to do instead.

    Raises:
        EngineError: It has one.
    """
    found = [name for name in ("run_epoch", "run_iter") if name in vars(loop)]
    if found:
        raise EngineError(
            f"{' and '.join(found)} of a {loop.__bases__[0].__name__} is never called",
            where=f"{loop.__module__}:{loop.__qualname__}",
            mend=mend,
        )


def length_of(batches: BatchSource) -> int | None:
    """Return how many batches a pass over the data has; None where its `len` raises a TypeError: nobody knows.

    Raises:
        TrainingError: It has none.
    """
    try:
        length = len(batches)
    except TypeError:
        return None
    if length == 0:
        raise TrainingError(
            "there is no batch to train on",
            mend="is the dataset empty, or, with drop_last, smaller than a batch (or is each bucket of a batch sampler)?",
        )
    return length


def check_end(index: int, length: int | None) -> None:
    """Check that a pass over the data had as many batches as it should.

    Raises:
        TrainingError: It had not.
    """
    if length is not None and index != length:
        raise TrainingError(
            f"the epoch ended after {index} of {length} batches",
            mend="does the dataset raise StopIteration, or have another length than it says?",
        )
    if index == 0:
        raise TrainingError("the data gave no batch at all", mend="is it empty, or can it be iterated only once?")


class Begun:
    """Remembers at which step an epoch, or a pass over the data, began."""

    def __init__(self) -> None:
        self._number, self._step = -1, 0

    def steps(self, number: int, step: int) -> int:
        """Return how many steps of epoch `number` were made when `step` steps of the run were; a new number begins there."""
        if self._number != number:
            self._number, self._step = number, step
        return step - self._step

    def state(self) -> list[int]:
        """Return the epoch's number and the step."""
        return [self._number, self._step]

    def load(self, state: object) -> None:
        """Take what `state` returned.

        Raises:
            StateError: It is something else.
        """
        if not isinstance(state, list) or [type(each) for each in state] != [int, int]:
            raise StateError(f"expected the numbers of an epoch and of a step, got {state!r}", where="loop")
        self._number, self._step = state


class Passes:
    """Passes over data, and where they began.

    Args:
        batches: The data.

    Attributes:
        number: Of the pass at hand, from 0.
        begun: The step at which it began.
    """

    def __init__(self, batches: BatchSource) -> None:
        self._batches = batches
        self.number = 0
        self.begun = Begun()

    def begin(self, number: int, engine: Engine, length: int | None) -> int:
        """Go to a pass, unless the data stands in it already, and return how many of its batches were consumed.

        Args:
            number: Of the pass.
            engine: Whose steps are counted.
            length: Batches of a pass, where that is known.
        """
        self.number = number
        self._batches.set_epoch(number)
        consumed = self._batches.consumed
        if self.begun.steps(number, engine.step) and consumed == 0 and length is not None:
            return length  # data whose passes follow each other by themselves stands in the next one already
        return consumed

    def stream(self, engine: Engine) -> Iterator[object]:
        """Yield batches from where consumption stands, pass after pass without end; each is consumed before the next.

        Raises:
            TrainingError: A pass ends early, or has no batch.
        """
        length = length_of(self._batches)
        while True:
            index = self.begin(self.number, engine, length)
            for batch in self._batches if index != length else ():
                yield batch
                index += 1
            check_end(index, length)
            self.number += 1

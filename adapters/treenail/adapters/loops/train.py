"""Training by epoch: the whole flow of a training, top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated

from msgspec import Meta

from treenail.adapters.loops.intervals import Count, DynamicIntervals, ValidationIntervals
from treenail.adapters.loops.passes import Begun, Passes, check_end, length_of, refuse_unasked, train_steps
from treenail.contracts import TrainWork
from treenail.kernel import Engine, StateError


class EpochLoop:
    """Trains for a number of epochs, with a validation between them.

    It resumes in the middle of an epoch, after an epoch's last step, and in front of a validation that was interrupted.

    An epoch is a pass over the data, unless `epoch_length` says otherwise. Then the data goes on where the epoch before ended,
    pass after pass, each shuffled anew: the order of samples is the same as without, and none is left out.

    Args:
        work: The step, the training batches and the validation.
        max_epochs: Epochs of the whole run, those before a resume included.
        val_begin: The first epoch, from 1, after which is validated.
        val_interval: Validate after the epochs that are multiples of it, and after the last one in any case.
        dynamic_intervals: (begin, interval) pairs: from the epoch `begin` on, the interval is another one.
        epoch_length: Steps of an epoch, for data without a length, or epochs that shall be shorter or longer than a pass.

    Raises:
        ValueError: A number is below 1, or the dynamic intervals do not ascend.
    """

    def __init__(
        self,
        work: TrainWork,
        *,
        max_epochs: Count,
        val_begin: Count = 1,
        val_interval: Count = 1,
        dynamic_intervals: DynamicIntervals | None = None,
        epoch_length: Annotated[int, Meta(ge=1)] | None = None,
    ) -> None:
        if max_epochs < 1 or (epoch_length is not None and epoch_length < 1):
            raise ValueError(f"max_epochs={max_epochs} and epoch_length={epoch_length} must be at least 1")
        self._intervals = ValidationIntervals(max_epochs, val_begin, val_interval, dynamic_intervals)
        self._work = work
        self.max_epochs = max_epochs
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.validation = work.validation
        self.epoch_length = epoch_length
        self._passes = Passes(work.batches)
        self._epoch = Begun()
        self._trained = False  # whether the current epoch's steps are done and its validation is not

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        refuse_unasked(cls, "wrap work.step, which makes of a batch a step, or override run")

    def run(self, engine: Engine) -> None:
        """Train until `max_epochs` are done or the engine is asked to stop.

        Raises:
            TrainingError: There is no batch to train on, or a pass over the data ends early.
        """
        validation = self._work.validation
        length = length_of(self._work.batches)
        steps = length if self.epoch_length is None else self.epoch_length
        engine.total_steps = None if steps is None else self.max_epochs * steps
        stream = None if self.epoch_length is None else self._passes.stream(engine)
        if fire := engine.points.before_train:
            fire(engine)
        while engine.epoch < self.max_epochs and engine.stop_reason is None:
            if not self._trained and not self._train_epoch(engine, steps, stream):
                break
            done = engine.epoch + 1
            if validation is not None and done in self._intervals:
                validation.run(engine)
                if validation.metrics is None:  # interrupted; it begins anew after a resume
                    break
            self._trained = False
            if stream is None:
                self._passes.number = done
                self._work.batches.set_epoch(done)
            engine.commit(epochs=1)
        if fire := engine.points.after_train:
            fire(engine)
        engine.commit()  # carries out what was requested since the last commit

    def _train_epoch(self, engine: Engine, steps: int | None, stream: Iterator[object] | None) -> bool:
        """Run the rest of the current epoch; return whether it came to its end and the run goes on."""
        source: Iterable[object]
        if stream is None:
            index = self._passes.begin(engine.epoch, engine, steps)
            source = () if index == steps else self._work.batches
        else:
            index = self._epoch.steps(engine.epoch, engine.step)
            source = islice(stream, max(0, (steps or 0) - index))
        if fire := engine.points.before_train_epoch:
            fire(engine)
        index = train_steps(engine, self._work, source, index)
        if engine.stop_reason is not None and index != steps:
            return False
        check_end(index, steps)
        if fire := engine.points.after_train_epoch:
            fire(engine)
        self._trained = True
        engine.commit()
        return engine.stop_reason is None

    def state_dict(self) -> dict[str, object]:
        """Return where the epoch and its data stand; counters are the engine's, the cursor is the batches'."""
        began = {"epoch": self._epoch.state(), "pass": self._passes.begun.state()}
        return {"trained": self._trained, "pass": self._passes.number, "began": began}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state.

        Raises:
            StateError: It is not of this loop.
        """
        trained, number, began = (state_dict.get(name) for name in ("trained", "pass", "began"))
        if not isinstance(trained, bool):
            raise StateError(f"expected 'trained' to be true or false, got {trained!r}", where="EpochLoop")
        if not isinstance(number, int) or not isinstance(began, dict):
            raise StateError(
                f"expected 'pass' to be a number and 'began' a mapping, got {number!r} and {began!r}", where="EpochLoop"
            )
        self._epoch.load(began.get("epoch"))
        self._passes.begun.load(began.get("pass"))
        self._trained, self._passes.number = trained, number

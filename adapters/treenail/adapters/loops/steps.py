"""Training by step: for a number of steps, however many passes over the data they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from treenail.adapters.loops.intervals import Count, DynamicIntervals, ValidationIntervals
from treenail.adapters.loops.passes import Passes, check_end, length_of, refuse_unasked, train_steps
from treenail.contracts import TrainWork
from treenail.kernel import Engine, StateError


class StepLoop:
    """Trains for a number of steps, with a validation every so many of them.

    Epochs are passes over the data: they roll on, each shuffled anew, and their hook points fire where a pass begins and ends,
    not where the training ends within one. Validation counts steps and comes right after a step, before the end of an epoch.
    It resumes anywhere: within a pass, at its end, and in front of a validation that was interrupted.

    Args:
        work: The step, the training batches and the validation.
        max_steps: Steps of the whole run, those before a resume included.
        val_begin: The first step, from 1, after which is validated.
        val_interval: Validate after the steps that are multiples of it, and after the last one in any case.
        dynamic_intervals: (begin, interval) pairs: from the step `begin` on, the interval is another one.

    Raises:
        ValueError: A number is below 1, or the dynamic intervals do not ascend.
    """

    def __init__(
        self,
        work: TrainWork,
        *,
        max_steps: Count,
        val_begin: Count = 1,
        val_interval: Count = 1000,
        dynamic_intervals: DynamicIntervals | None = None,
    ) -> None:
        self._intervals = ValidationIntervals(max_steps, val_begin, val_interval, dynamic_intervals)
        self._work = work
        self.max_steps = max_steps
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.validation = work.validation
        self._passes = Passes(work.batches)
        self._validated = 0  # the last step after which was validated

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        refuse_unasked(cls, "wrap work.step, which makes of a batch a step, or override run")

    def run(self, engine: Engine) -> None:
        """Train until `max_steps` are done or the engine is asked to stop.

        Raises:
            TrainingError: There is no batch to train on, or a pass over the data ends early.
        """
        length = length_of(self._work.batches)
        engine.total_steps = self.max_steps
        if fire := engine.points.before_train:
            fire(engine)
        goes_on = self._validate_if_due(engine)  # a resumed run may stand in front of a validation
        while goes_on and engine.stop_reason is None:
            index = self._passes.begin(engine.epoch, engine, length)
            if engine.step >= self.max_steps and index != length:
                break
            goes_on = self._train_epoch(engine, index, length)
        if fire := engine.points.after_train:
            fire(engine)
        engine.commit()  # carries out what was requested since the last commit

    def _train_epoch(self, engine: Engine, index: int, length: int | None) -> bool:
        """Run the rest of a pass over the data, from batch `index` on; return whether it came to its end."""
        batches = self._work.batches
        iterator: Iterator[object] = iter(()) if index == length else iter(batches)
        if fire := engine.points.before_train_epoch:
            fire(engine)
        while True:
            due = self._intervals.following(engine.step)
            index = train_steps(engine, self._work, islice(iterator, max(0, due - engine.step)), index)
            if engine.step < due:  # the pass is over, or the run stops
                break
            if not self._validate_if_due(engine):
                return False
            if engine.step == self.max_steps or engine.stop_reason is not None:
                break
        if index != length and (engine.step == self.max_steps or engine.stop_reason is not None):
            return False
        check_end(index, length)
        if fire := engine.points.after_train_epoch:
            fire(engine)
        batches.set_epoch(engine.epoch + 1)
        engine.commit(epochs=1)
        return True

    def _validate_if_due(self, engine: Engine) -> bool:
        """Validate where the steps made ask for it; return whether that was not interrupted."""
        validation = self._work.validation
        if validation is None or engine.step == self._validated or engine.step not in self._intervals:
            return True
        if engine.stop_reason is not None:
            return False
        validation.run(engine)
        if validation.metrics is None:  # interrupted; it begins anew after a resume
            return False
        self._validated = engine.step
        engine.commit()
        return True

    def state_dict(self) -> dict[str, object]:
        """Return where the epoch began and what was validated; counters are the engine's, the cursor is the batches'."""
        return {"began": self._passes.begun.state(), "validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state.

        Raises:
            StateError: It is not of this loop.
        """
        validated = state_dict.get("validated")
        if not isinstance(validated, int):
            raise StateError(f"expected 'validated' to be a step, got {validated!r}", where="StepLoop")
        self._passes.begun.load(state_dict.get("began"))
        self._validated = validated

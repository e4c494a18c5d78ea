"""Training by epoch: the whole flow of a training, top to bottom."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from treenail.contracts import TrainWork
from treenail.kernel import Engine, StateError, TrainingError


class EpochLoop:
    """Trains for a number of epochs, with a validation between them.

    It resumes in the middle of an epoch, after an epoch's last step, and in front of a validation that was interrupted.

    Args:
        work: The step, the training batches and the validation.
        max_epochs: Epochs of the whole run, those before a resume included.
        val_interval: Validate after every so many epochs, and after the last one.
    """

    def __init__(
        self, work: TrainWork, *, max_epochs: Annotated[int, Meta(ge=1)], val_interval: Annotated[int, Meta(ge=1)] = 1
    ) -> None:
        if max_epochs < 1 or val_interval < 1:
            raise ValueError(f"max_epochs={max_epochs} and val_interval={val_interval} must be at least 1")
        self._work = work
        self.max_epochs = max_epochs
        self.val_interval = val_interval
        self._trained = False  # whether the current epoch's steps are done and its validation is not

    def run(self, engine: Engine) -> None:
        """Train until `max_epochs` are done or the engine is asked to stop.

        Raises:
            TrainingError: There is no batch to train on.
        """
        batches, validation = self._work.batches, self._work.validation
        if len(batches) == 0:
            raise TrainingError(
                "there is no batch to train on",
                mend="is the dataset empty, or, with drop_last, smaller than a batch (or is each bucket of a batch sampler)?",
            )
        engine.total_steps = self.max_epochs * len(batches)
        if fire := engine.points.before_train:
            fire(engine)
        while engine.epoch < self.max_epochs and engine.stop_reason is None:
            if not self._trained:
                batches.set_epoch(engine.epoch)
                if not self._train_epoch(engine):
                    break
            done = engine.epoch + 1
            if validation is not None and (done % self.val_interval == 0 or done == self.max_epochs):
                validation.run(engine)
                if validation.metrics is None:  # interrupted; it begins anew after a resume
                    break
            self._trained = False
            batches.set_epoch(done)
            engine.commit(epochs=1)
        if fire := engine.points.after_train:
            fire(engine)
        engine.commit()  # carries out what was requested since the last commit

    def _train_epoch(self, engine: Engine) -> bool:
        """Run the rest of the current epoch; return whether it came to its end."""
        step, batches, points = self._work.step, self._work.batches, engine.points
        if fire := points.before_train_epoch:
            fire(engine)
        index = batches.consumed
        for batch in batches:
            if before := points.before_train_iter:
                before(engine, index, batch)
            outputs = step(batch)
            if after := points.after_train_iter:
                after(engine, index, batch, outputs)
            batches.advance()
            engine.commit(steps=1)
            index += 1
            if engine.stop_reason is not None and index < len(batches):
                return False
        if index != len(batches):
            raise TrainingError(
                f"the epoch ended after {index} of {len(batches)} batches",
                mend="does the dataset raise StopIteration, or have another length than it says?",
            )
        if fire := points.after_train_epoch:
            fire(engine)
        self._trained = True
        engine.commit()
        return engine.stop_reason is None

    def state_dict(self) -> dict[str, object]:
        """Return whether an epoch waits for its validation; counters are the engine's, the cursor is the batches'."""
        return {"trained": self._trained}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state.

        Raises:
            StateError: It is not of this loop.
        """
        trained = state_dict.get("trained")
        if not isinstance(trained, bool):
            raise StateError(f"expected 'trained' to be true or false, got {trained!r}", where="EpochLoop")
        self._trained = trained

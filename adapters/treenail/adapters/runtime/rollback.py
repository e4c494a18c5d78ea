"""Goes back to the last checkpoint of a training when one of its steps failed, and leaves that step's batch out."""

from __future__ import annotations

from collections.abc import Callable

from treenail.adapters.hooks import RollbackError
from treenail.kernel import BatchSource, CheckpointError, Engine, Hook, Loop, TrainingError


class RollbackLoop:
    """A training loop that goes back when a hook raises `RollbackError`: a resume within the same process.

    The batches between the checkpoint and the step that failed are trained again. Its own batch is consumed untrained: the
    step counts, and no hook sees it. Attempts count as those of resumes do.

    Args:
        loop: Trains; its batches are the engine's part ``batches``.
        load: Returns the state tree of the last checkpoint of this run, on every rank.
    """

    def __init__(self, loop: Loop, load: Callable[[], dict[str, object]]) -> None:
        self._loop = loop
        self._load = load
        self._leaves_out = _LeavesOut()

    def run(self, engine: Engine) -> None:
        """Train, as often as it takes.

        Raises:
            TrainingError: There is nothing to go back to.
        """
        while True:
            try:
                self._loop.run(engine)
                return
            except RollbackError as error:
                # As at the end and the beginning of a process: hooks close their files, and open them again.
                if tell := engine.points.on_exception:
                    tell(engine, error)
                failure = None if isinstance(error, _LeaveOutError) else (error.step, error.message)
            if fire := engine.points.before_run:
                fire(engine)
            if failure is None:
                engine.part("batches", BatchSource).advance()
                engine.commit(steps=1)
            else:
                self._go_back(engine, *failure)

    def _go_back(self, engine: Engine, step: int, why: str) -> None:
        if not self._leaves_out.steps:
            engine.attach(self._leaves_out, "left-out batches")
        self._leaves_out.steps.add(step)
        try:
            state = self._load()
        except CheckpointError as error:
            raise TrainingError(
                f"{why}; the run cannot go back: {error.message}",
                where=error.where,
                mend="let the hook 'checkpoint' save more often, lower the learning rate, or check the data",
            ) from error
        own = state.get("engine")
        if isinstance(own, dict):
            own["attempt"] = engine.attempt  # going back twice to one checkpoint makes two attempts
        engine.load_state_dict(state)

    def state_dict(self) -> dict[str, object]:
        """Return the loop's state."""
        return self._loop.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state of the loop."""
        self._loop.load_state_dict(state_dict)


class _LeaveOutError(RollbackError):
    """The batch at hand shall not be trained."""


class _LeavesOut(Hook):
    """Ends the loop in front of steps whose batches are left out."""

    priority = 0

    def __init__(self) -> None:
        self.steps: set[int] = set()

    def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        if engine.step in self.steps:
            raise _LeaveOutError(f"the batch of step {engine.step + 1} is left out", step=engine.step)


__all__ = ["RollbackLoop"]

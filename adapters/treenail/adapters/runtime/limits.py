"""What ends a run before its own end, and what is looked at before it begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from treenail.adapters.data import DataError, Loader
from treenail.adapters.runtime.assemble import Assembly
from treenail.adapters.runtime.monitors import MissingMetricError
from treenail.adapters.seeding import shielded_rng
from treenail.contracts import EvaluationLoop
from treenail.kernel import ConfigError, Engine, Hook, Loop

LIMIT = "limit"
"""What the reason begins with for which a run stops at one of its limits."""


@contextmanager
def time_limit(engine: Engine, seconds: float | None, *, save: bool) -> Iterator[None]:
    """While inside, request a stop when the time is over; steps cost nothing more for it.

    Args:
        engine: What to stop.
        seconds: From now on; None: no limit.
        save: Request a checkpoint, too; not needed where a hook does so at the end of training.
    """
    if seconds is None:
        yield
        return

    def stop() -> None:
        reason = f"{LIMIT} of time"
        engine.request_stop(reason)
        if save:
            engine.request_checkpoint(reason)

    timer = threading.Timer(max(0.0, seconds), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def workers_ended(assembly: Assembly) -> Iterator[None]:
    """End the loader processes of the training with it, whatever still refers to the loader."""
    try:
        yield
    finally:
        if isinstance(batches := assembly.parts["batches"], Loader):
            batches.close()


class StepLimit(Hook):
    """Stops a run after so many steps, unless it ends with them by itself; all ranks know that without a vote.

    Args:
        max_steps: Steps of the whole run.
        save: Request a checkpoint, too; not needed where a hook does so at the end of training.
    """

    priority = 95  # behind those that may raise and have the step made anew

    def __init__(self, max_steps: int, *, save: bool) -> None:
        self._reason = f"{LIMIT} of {max_steps} step{'s' if max_steps > 1 else ''}"
        self._max_steps = max_steps
        self._save = save

    def before_train(self, engine: Engine) -> None:
        """Stop at once where a resumed run has made them already."""
        self._look(engine, engine.step)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Stop after this step if it is the last one."""
        self._look(engine, engine.step + 1)

    def _look(self, engine: Engine, step: int) -> None:
        if step >= self._max_steps and step != engine.total_steps and engine.stop_reason is None:
            engine.stop_reason = self._reason
            if self._save:
                engine.request_checkpoint(self._reason)


def check_validation(
    build: Callable[[Path], EvaluationLoop] | None, engine: Engine, check: Callable[[Mapping[str, float]], None]
) -> None:
    """Validate a few batches before a training, in an engine without hooks; the generators are left as they were.

    Args:
        build: Returns the validation, which writes its files below a directory; None: there is none.
        engine: The run's, whose stop ends the validation, too; averages of the weights may be among its parts.
        check: Takes the results.
    """
    if build is None:
        return
    try:
        with shielded_rng(devices=True), TemporaryDirectory(prefix="treenail-") as directory:
            validation = build(Path(directory))
            validation.run(Engine(engine.parts, agree=lambda _: engine.stop_reason if engine.check_stop() else None))
            if validation.metrics is not None:
                check(validation.metrics)
    except Exception as error:
        error.add_note("in the sanity validation, before the first step")
        raise


class SavedBetweenSteps:
    """A training `Loop` that ends as at a stop, with a checkpoint, where something between two steps goes wrong.

    Such is that data cannot be loaded, or that validation gives no metric of a name. After it a run goes on from there.

    Args:
        train: Trains; it asks for batches, and validates, between its commits only.
        alone: There is one rank. Of several, that which cannot load data knows it alone: the others are in the midst of a step.
    """

    def __init__(self, train: Loop, *, alone: bool) -> None:
        self._train = train
        self._failures = (DataError, MissingMetricError) if alone else (MissingMetricError,)

    def run(self, engine: Engine) -> None:
        """Train; the engine raises what was wrong once this is saved."""
        try:
            self._train.run(engine)
        except self._failures as error:
            engine.fail(error)
            if fire := engine.points.after_train:
                fire(engine)
            engine.commit()

    def state_dict(self) -> dict[str, object]:
        """Return the training's state."""
        return self._train.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take a state of the training."""
        self._train.load_state_dict(state_dict)


class DiscardedCheckpoints:
    """A `Checkpointer` that keeps nothing: what a run would save is made, and dropped."""

    def save(
        self, checkpoint: Mapping[str, object], *, step: int, epoch: int, reason: str, pointers: Sequence[str]
    ) -> str:
        """Drop a state tree."""
        return "nowhere"


def hook_points(assembly: Assembly) -> type[Hook]:
    """Return the class whose methods are the hook points of a run: the loop's attribute `hook_points`, or `Hook`.

    Raises:
        ConfigError: That is no class of hooks.
    """
    points = getattr(assembly.loop, "hook_points", Hook)
    if not isinstance(points, type) or not issubclass(points, Hook):
        raise ConfigError(
            f"hook_points of {type(assembly.loop).__name__} is {points!r}",
            where="loop",
            mend="let it be a subclass of Hook whose methods before_… and after_… are the points",
        )
    return points

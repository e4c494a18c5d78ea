"""Gives committed scalars to the places where people look at curves."""

from __future__ import annotations

from collections.abc import Sequence

from treenail.kernel import Engine, Hook, Record, VisBackend


class VisHook(Hook):
    """Starts the backends when training begins, gives them every committed record, and closes them.

    Args:
        backends: Where the curves go.
        run: Name of the run.
        config: The run's config as text.
    """

    priority = 20

    def __init__(self, backends: Sequence[VisBackend], *, run: str, config: str = "") -> None:
        self._backends = tuple(backends)
        self._run = run
        self._config = config
        self._started = self._subscribed = False

    def before_train(self, engine: Engine) -> None:
        """Start the backends at the step where this attempt begins."""
        for backend in self._backends:
            backend.start(run=self._run, attempt=engine.attempt, step=engine.step, commit=engine.commits)
            if self._config:
                backend.config(self._config)
        if not self._subscribed:
            engine.subscribe(self._write)
        self._started = self._subscribed = True

    def _write(self, record: Record) -> None:
        if self._started:
            for backend in self._backends:
                backend.scalars(record)

    def after_run(self, engine: Engine) -> None:
        """Close the backends."""
        self._close()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """Close the backends."""
        self._close()

    def _close(self) -> None:
        self._started = False
        for backend in self._backends:
            backend.close()

"""A save under way: in a thread of its own, which the end of the interpreter waits for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from threading import Event, Thread

from treenail.kernel import CheckpointError, TreenailError


class Flight:
    """Runs a save in the background, and keeps the error that it ended by.

    Args:
        work: The save; it gets an event, and gives up waiting for others once that is set.
        on_failure: Told of an error as soon as there is one, in the background.
    """

    def __init__(self, work: Callable[[Event], object], on_failure: Callable[[Exception], object] | None) -> None:
        self.cancelled = Event()
        self.error: TreenailError | None = None
        self._on_failure = on_failure
        # A thread whose `join` a signal interrupts counts as ended from then on (https://github.com/python/cpython/issues/90882).
        self._ended = Event()
        # Not a daemon: the interpreter's exit joins it, so that an exception elsewhere loses no checkpoint.
        Thread(target=copy_context().run, args=(self._run, work), name="treenail-save").start()

    def _run(self, work: Callable[[Event], object]) -> None:
        try:
            self._save(work)
        finally:
            self._ended.set()

    def _save(self, work: Callable[[Event], object]) -> None:
        try:
            work(self.cancelled)
        except TreenailError as error:
            self.error = error
        except Exception as error:  # it must reach the training, whatever it is
            self.error = CheckpointError(f"the checkpoint could not be written: {error!r}")
            self.error.__cause__ = error
        if self.error is not None and self._on_failure is not None:
            self._on_failure(self.error)

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it ended, for so long at most; return whether it did."""
        return self._ended.wait(seconds)

"""Ctrl-C and SIGTERM ask the engine to stop; the loop does so at its next commit, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from treenail.kernel import Engine


@contextmanager
def stop_on_signals(engine: Engine, *, save: bool) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM request a stop; another one, a second or more later, ends the process at once.

    A launcher passes a signal on that a terminal sent to all processes already, so that two come together.

    Python runs signal handlers in the main thread only; in another thread this does nothing.

    Args:
        engine: What to stop.
        save: Request a checkpoint, too; not needed where a hook does so at the end of training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is not None:
            if monotonic() - first >= 1:
                raise KeyboardInterrupt
            return
        first = monotonic()
        name = signal.Signals(number).name
        if save:
            engine.request_checkpoint(name)
        engine.request_stop(name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

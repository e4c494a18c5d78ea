"""Ctrl-C and SIGTERM ask the engine to stop; the loop does so at its next commit, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from treenail.kernel import Engine


@contextmanager
def stop_on_signals(engine: Engine, *, save: bool) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM request a stop; a second one ends the process at once.

    Python runs signal handlers in the main thread only; in another thread this does nothing.

    Args:
        engine: What to stop.
        save: Request a checkpoint, too; not needed where a hook does so at the end of training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if engine.stop_reason is not None:
            raise KeyboardInterrupt
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

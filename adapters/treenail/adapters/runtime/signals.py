"""Ctrl-C and SIGTERM ask the engine to stop; the loop does so at its next commit, with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from treenail.kernel import Engine


@contextmanager
def stop_on_signals(engine: Engine) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM request a stop; a second one ends the process at once.

    Python runs signal handlers in the main thread only, so this must be entered there.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if engine.stop_reason is not None:
            raise KeyboardInterrupt
        engine.request_stop(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

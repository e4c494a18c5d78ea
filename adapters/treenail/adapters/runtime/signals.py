"""Signals ask the engine to stop, or to save; it does so at its next commit, never in a handler.

SIGINT (Ctrl-C), SIGTERM and SIGUSR1 stop the run with a checkpoint; SIGUSR2 saves a checkpoint, and the run goes on. Slurm
sends SIGUSR1 some time before a job's end with ``--signal=USR1@90`` (sbatch(1)).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Final

from treenail.kernel import Engine

STOPS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals that stop a run with a checkpoint; those that the system has."""

SAVES: Final = tuple(getattr(signal, name) for name in ("SIGUSR2",) if hasattr(signal, name))
"""Signals that save a checkpoint; the run goes on."""

_WARNINGS: Final = STOPS[2:]
"""Stops that announce the end of a job: one more of them changes nothing."""


@contextmanager
def stop_on_signals(
    engine: Engine, *, save: bool, request_checkpoint: Callable[[str], None] | None = None
) -> Iterator[None]:
    """While inside, signals of `STOPS` request a stop, and those of `SAVES` a checkpoint.

    A second SIGINT or SIGTERM, a second or more after the first, ends the process at once. (A launcher passes a signal on
    that a terminal sent to all processes already, so that two come together.)

    Forked processes have the handlers, too, but not the run: there a signal does what it did before, and SIGUSR1 and
    SIGUSR2, which a job's processes may all get, do nothing. Python runs handlers in the main thread only; in
    another thread this does nothing.

    Args:
        engine: What to stop.
        save: Request a checkpoint with a stop, too; not needed where a hook does so at the end of training.
        request_checkpoint: Takes the reason for a checkpoint; on many ranks it lets all of them save at the same commit.
            The engine's own when None.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    ask = engine.request_checkpoint if request_checkpoint is None else request_checkpoint
    owner = os.getpid()
    before: dict[int, _Handler] = {}
    first: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if os.getpid() != owner:
            _leave_to(before[number], number)
            return
        name = signal.Signals(number).name
        if number in SAVES:
            ask(name)
            return
        if number not in _WARNINGS:
            if first is not None:
                if monotonic() - first >= 1:
                    raise KeyboardInterrupt
                return
            first = monotonic()
        if save:
            ask(name)
        engine.request_stop(name)

    for number in (*STOPS, *SAVES):
        before[number] = signal.getsignal(number)
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


def _leave_to(handler: _Handler, number: int) -> None:
    """Give a signal, in a forked process, to the handler that was there before ours."""
    if handler is None or handler == signal.SIG_DFL:
        handler = signal.SIG_DFL if number in (signal.SIGINT, signal.SIGTERM) else signal.SIG_IGN
    signal.signal(number, handler)
    os.kill(os.getpid(), number)

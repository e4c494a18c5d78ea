"""What every process makes for itself: connections and threads do not survive a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Holds what a function makes, made anew by each process that asks for it. Safe between threads; pickled empty.

    Args:
        make: Makes it; where it is to be pickled, so must this be.
        discard: Called with what a forked process inherited, before it makes its own.
    """

    def __init__(self, make: Callable[[], T], discard: Callable[[T], object] | None = None) -> None:
        self._make = make
        self._discard = discard
        self._held: tuple[int, T] | None = None
        # By process: a lock that another thread held at a fork is never released.
        self._locks: dict[int, threading.Lock] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return PerProcess, (self._make, self._discard)

    @property
    def held(self) -> T | None:
        """What was made last, perhaps by the process that this one was forked from; None before."""
        return None if self._held is None else self._held[1]

    def get(self) -> T:
        """Return this process's own; make it where there is none."""
        process, held = os.getpid(), self._held
        if held is not None and held[0] == process:
            return held[1]
        with self._locks.setdefault(process, threading.Lock()):
            held = self._held
            if held is None or held[0] != process:
                inherited = self.take()
                if inherited is not None and self._discard is not None:
                    self._discard(inherited)
                held = self._held = process, self._make()
        return held[1]

    def take(self) -> T | None:
        """Return what is held, and hold it no longer."""
        held, self._held = self._held, None
        return None if held is None else held[1]

"""Threads that a stalled store cannot make anybody wait for: neither Ctrl-C nor the end of the interpreter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import ParamSpec, TypeVar

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class Workers:
    """Threads that take calls for the time of a block.

    They are awaited where the block ends by itself. Where an exception ends it, Ctrl-C among them, calls that wait are
    cancelled, and those under way are left to themselves; `concurrent.futures` would await them, at the latest when the
    interpreter ends.

    Args:
        count: The most threads.
        name: What their names begin with.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, function: Callable[[T], R], item: T) -> Future[R]:
        """Call function(item) in a thread."""
        future: Future[R] = Future()
        self._calls.put(lambda: _settle(future, lambda: function(item)))
        if len(self._threads) < self._count:
            thread = threading.Thread(target=_work, args=(self._calls,), daemon=True)
            thread.name = f"{self._name}-{len(self._threads)}"
            self._threads.append(thread)
            thread.start()
        return future

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(Empty):
                while True:
                    self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()


def interruptible(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return function(…), which compiled code keeps waiting without a look at signals; Ctrl-C ends the wait, not the call."""
    if threading.current_thread() is not threading.main_thread():
        return function(*args, **kwargs)  # signals are the main thread's
    future: Future[R] = Future()
    context = copy_context()
    call = threading.Thread(
        target=_settle, args=(future, lambda: context.run(function, *args, **kwargs)), name="treenail-call", daemon=True
    )
    call.start()
    return future.result()


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while _done(calls.get()):
        pass


def _done(call: Callable[[], None] | None) -> bool:
    """Make a call; in a function of its own, so that nothing of it is kept while the next is awaited."""
    if call is not None:
        call()
    return call is not None


def _settle(future: Future[R], call: Callable[[], R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)

"""Waiting for ranks in other processes: who fails, dies or does something else is named by all that are alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import Protocol, TypeVar

import torch.distributed as dist

from treenail.adapters.comm import telling
from treenail.kernel import CommunicationError

T = TypeVar("T")

_SLICE = 1.0
"""Seconds between two looks at whether another rank has told of a failure; waiting itself costs nothing."""

_GRACE = 4.0
"""Seconds in which ranks that are alive report after a failure; all of them look every `_SLICE`."""

_ABORT = "treenail/abort"

_TORCHS = ("third_party/gloo/", "NCCL error", "ProcessGroup", "timeout caused pair closure")
"""What errors of torch's collectives have in common: a class of their own they have not."""


class _Store(Protocol):
    """What is used of torch's stores, whose own methods are not typed."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class Watch:
    """What a rank waits for, and who failed when it does not come.

    Args:
        store: Where ranks tell of failures, which works when their connections do not.
        name: The same on all ranks, and no other group's.
        rank: This process's rank.
        world_size: How many there are.
        timeout: Seconds that a rank waits for another one.
    """

    def __init__(self, store: _Store, name: str, rank: int, world_size: int, timeout: float) -> None:
        self._store = store
        self._name = name
        self._rank = rank
        self._world_size = world_size
        self._timeout = timeout
        self._last = "none"
        self._broken: str | None = None
        self.doing = "none"
        """What is under way, for messages."""

    def begin(self, doing: str) -> None:
        """Note which collective begins; the one before it is done."""
        self._last, self.doing = self.doing, doing

    def abort(self, reason: str) -> None:
        """Make what other ranks wait for, now or later, raise with the reason."""
        with suppress(RuntimeError):  # who cannot be told has failed, too
            if not self._store.check([_ABORT]):  # the first failure is the one to tell
                self._store.set(_ABORT, reason)

    def cause_of(self, error: BaseException) -> CommunicationError | None:
        """Return which rank's failure an error of torch.distributed comes from; None for any other error."""
        text = str(error)
        torchs = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(word in text for word in _TORCHS)
        )
        if not torchs:
            return None
        self.begin("a collective of torch's own")
        return self._failure(text)

    def run(self, start: Callable[[], dist.Work | None]) -> None:
        """Start something, and wait for it.

        Raises:
            CommunicationError: A rank failed; the message says which, and in what.
        """
        work = self.guard(start)
        if work is not None:
            self.wait(work)

    def guard(self, start: Callable[[], T]) -> T:
        """Return what is started.

        Raises:
            CommunicationError: As of `run`.
        """
        if self._broken is not None:
            raise CommunicationError(f"these ranks cannot communicate any more: {self._broken}")
        try:
            return start()
        except RuntimeError as error:
            raise self._failure(str(error)) from error

    def wait(self, work: dist.Work) -> None:
        """Wait for something that was started.

        Raises:
            CommunicationError: As of `run`.
        """
        deadline = monotonic() + self._timeout
        while True:
            left = deadline - monotonic()
            try:
                work.wait(timedelta(seconds=max(0.001, min(_SLICE, left))))
                return
            except RuntimeError as error:
                if "imed out" not in str(error):
                    raise self._failure(str(error)) from error
            if work.is_completed():  # between the end of that wait and now, or the backend's own timeout was shorter
                self.guard(work.wait)
                return
            if left <= 0:
                raise self._failure(f"not done within {self._timeout:g} s")
            if self._told():
                raise self._failure("another rank told of it")

    def _told(self) -> bool:
        try:
            return self._store.check([_ABORT]) or self._store.check([f"{self._name}/trouble"])
        except RuntimeError:
            return True

    def _failure(self, cause: str) -> CommunicationError:
        """Find out together with the ranks that are alive who is not, and return the error."""
        try:
            explanation = self._diagnose(cause)
        except RuntimeError as error:
            explanation = (
                f"{_short(cause)}; the store of the process group, often at rank 0, is gone: {_short(str(error))}"
            )
        first, _, frames = explanation.partition("\n")
        self._broken = f"{self.doing} failed: {first}"
        failure = CommunicationError(
            self._broken, mend="look at the first error of that rank; the processes must be started again"
        )
        if frames:
            failure.add_note(frames)
        return failure

    def _diagnose(self, cause: str) -> str:
        store, name = self._store, self._name
        if not store.check([_ABORT]):
            store.set(f"{name}/trouble/{self._rank}", self.doing)
            store.set(f"{name}/trouble", "")
            deadline = monotonic() + _GRACE
            while monotonic() < deadline and not store.check([_ABORT]) and self._silent():
                sleep(0.02)
        if store.check([_ABORT]):
            return store.get(_ABORT).decode(errors="replace")
        silent = self._silent()
        if not silent:
            doing = [store.get(f"{name}/trouble/{rank}").decode() for rank in range(self._world_size)]
            if len(set(doing)) > 1:
                return f"the ranks did different things: {telling.of_ranks(dict(enumerate(doing)))} ({_short(cause)})"
            return _short(cause)
        who = f"rank {silent[0]}" if len(silent) == 1 else f"ranks {', '.join(map(str, silent[:8]))}"
        return f"{who} did not take part, is gone or does something else; done before: {self._last} ({_short(cause)})"

    def _silent(self) -> list[int]:
        keys = [f"{self._name}/trouble/{rank}" for rank in range(self._world_size)]
        return [rank for rank, key in enumerate(keys) if not self._store.check([key])]


def _short(text: str) -> str:
    return " ".join(text.split())[:200]

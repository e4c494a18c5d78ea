"""When and how often a request that failed is made again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar

from treenail.kernel import FileError

T = TypeVar("T")
_JITTER = random.SystemRandom()  # has no state: global generators stay untouched, and forked workers do not wait alike


class PassingError(FileError):
    """A failure that may pass: a cut connection, a busy server.

    Args:
        message: What was wrong.
        where: The URI, without credentials.
        mend: What the user can do when it does not pass.
        wait: How long the server asked to wait, in seconds.
    """

    def __init__(self, message: str, *, where: str, mend: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, where=where, mend=mend)
        self.wait = wait


class RetryPolicy(NamedTuple):
    """How a failed request is made again: exponential back-off with full jitter.

    Before the n-th retry it waits a random time up to min(longest_wait, backoff · 2^(n-1)), or what the server asked
    for when that is longer (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        retries: How often a request is made again that brought nothing; progress begins the count anew.
        backoff: Longest wait before the first retry, in seconds.
        longest_wait: Longest wait before any retry that the server did not ask for, in seconds.
        patience: How long failures may go on without progress, waits included, in seconds.
    """

    retries: int = 5
    backoff: float = 0.5
    longest_wait: float = 30.0
    patience: float = 300.0

    def check(self, where: str | None = None) -> RetryPolicy:
        """Return the policy itself.

        Args:
            where: Whose policy it is, for the message.

        Raises:
            FileError: A number is negative or not finite.
        """
        for name, value in self._asdict().items():
            if not (math.isfinite(value) and value >= 0):
                raise FileError(f"{name} is {value}", where=where, mend="give a finite number of at least 0")
        return self

    def wait_before(self, retry: int, asked: float | None = None) -> float:
        """Return how many seconds to wait before a retry.

        Args:
            retry: Its number, from 1.
            asked: What the server asked for, in seconds.
        """
        most = min(self.longest_wait, self.backoff * 2.0 ** min(retry - 1, 60))
        return max(_JITTER.uniform(0.0, most), asked or 0.0)


class Tries:
    """Counts the failures of one operation, waits between them, and gives up when the policy says so.

    Args:
        policy: How often and how long.
        operation: What is done, for messages: "read".
        sleep: Waits; for tests of the waits.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        operation: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._operation = operation
        self._sleep = sleep
        self._clock = clock
        self.progressed()

    def progressed(self) -> None:
        """Begin to count anew: the operation came on."""
        self._failures = 0
        self._since = self._clock()

    def failed(self, error: PassingError) -> None:
        """Log a failure and wait before the next attempt.

        Raises:
            FileError: The retries or the patience are used up, or the server asks for a wait that is longer than that.
        """
        self._failures += 1
        policy, spent = self._policy, self._clock() - self._since
        wait = policy.wait_before(self._failures, error.wait)
        if self._failures > policy.retries:
            end = f"failed {self._failures} times without progress"
        elif spent + wait > policy.patience:
            asked = f", and the server asks for {error.wait:.0f} s more" if error.wait else ""
            end = f"failed for {spent:.1f} s{asked}"
        else:
            from treenail.adapters.logging import terminal_logger  # it brings rich, and is rarely needed

            terminal_logger().warning(
                "trying again",
                operation=self._operation,
                where=error.where,
                because=error.message,
                failures=self._failures,
                wait=round(wait, 3),
            )
            self._sleep(wait)
            return
        raise FileError(
            f"cannot {self._operation}: {error.message}; {end}",
            where=error.where,
            mend=error.mend or "look whether the server is up, or raise retries and patience",
        ) from error


def retried(policy: RetryPolicy, operation: str, action: Callable[[], T]) -> T:
    """Return what an action returns, which is called again when it raises a `PassingError`.

    Raises:
        FileError: It failed too often, or in another way.
    """
    tries = Tries(policy, operation)
    while True:
        try:
            return action()
        except PassingError as error:
            tries.failed(error)


def asked_wait(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None without a readable one.

    Args:
        retry_after: The header: a number of seconds or an HTTP date.
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # written as -0000, which is UTC without a place
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

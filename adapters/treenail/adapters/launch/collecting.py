"""What ranks answer whoever started them: a value each, or the failure that came first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from treenail.adapters.launch.failures import Failure, rank_failed

SETTLE: Final = 0.5
"""Seconds after a failure in which the other ranks may say theirs, so that the first is named."""


def collect(processes: int, arrivals: Callable[[float | None], Iterable[tuple[int, bytes | Failure]]]) -> list[bytes]:
    """Return what the ranks sent, in rank order.

    Args:
        processes: How many ranks there are.
        arrivals: Called with the seconds to wait, None for as long as it takes, as often as needed; returns ranks that have
            ended since, with their answers.

    Raises:
        RankFailedError: Of the rank that failed first.
    """
    answers: dict[int, bytes] = {}
    failures: list[Failure] = []
    deadline: float | None = None
    while len(answers) + len(failures) < processes and (deadline is None or time.monotonic() < deadline):
        for rank, answer in arrivals(None if deadline is None else max(deadline - time.monotonic(), 0)):
            if isinstance(answer, bytes):
                answers[rank] = answer
            else:
                failures.append(answer)
        if failures and deadline is None:
            deadline = time.monotonic() + SETTLE
    if failures:
        raise rank_failed(failures, processes)
    return [answers[rank] for rank in range(processes)]


__all__ = ["SETTLE", "collect"]

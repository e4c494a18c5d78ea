"""How the failure of a rank reaches whoever started it."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from treenail.kernel import CommunicationError, TreenailError

_REPORT: Final = "TORCHELASTIC_ERROR_FILE"  # where torch.distributed.elastic waits for a rank's last words


LAUNCHED: Final = "TREENAIL_RANK_PROCESS"
"""The environment variable with the number of the process whose last words `treenail launch` prints, once for all ranks.

Processes that a rank starts inherit it, and print their own.
"""

_NOTICED_AFTER: Final = 2.0
"""Seconds; a killed process is seen by its launcher only after its peers have noticed, and torchrun rounds to seconds."""


class RankFailedError(TreenailError):
    """A rank raised an error, was killed, or ended too early.

    Args:
        message: Which rank, and what happened to it.
        rank: The rank that failed first.
        exit_code: Its process's exit code, 128 + n after signal n.
        remote_traceback: Where it failed, as the rank's own process printed it; "" where it could not.
    """

    def __init__(
        self, message: str, *, rank: int, exit_code: int, remote_traceback: str = "", mend: str | None = None
    ) -> None:
        super().__init__(message, mend=mend)
        self.rank = rank
        self.exit_code = exit_code
        self.remote_traceback = remote_traceback


class Failure(NamedTuple):
    """What is known of a rank that failed.

    Args:
        rank: Its rank.
        exit_code: Of its process, -n after signal n.
        message: Its last error in one line; "" if it said nothing.
        remote_traceback: Where it failed.
        time: When, in seconds since the Unix epoch.
        consequence: It failed because another rank did.
    """

    rank: int
    exit_code: int
    message: str
    remote_traceback: str
    time: float
    consequence: bool = False


class RemoteTracebackError(Exception):
    """Shows the traceback of another process as the cause of an error."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe(error: BaseException) -> str:
    """Return an error in one line: ours say everything themselves, others with their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TreenailError) else f"{type(error).__name__}: {text}".rstrip(": ")


def is_consequence(error: BaseException) -> bool:
    """Return whether an error says only that another rank failed."""
    return isinstance(error, CommunicationError)


def report_failure(message: str, error: BaseException | None = None, when: float | None = None, code: int = 1) -> bool:
    """Leave a message for the launcher, if torch.distributed.elastic started this process; the first one counts.

    Args:
        message: In one line.
        error: What failed, for its traceback and for whether it is a consequence of another rank's failure.
        when: It failed, in seconds since the Unix epoch; now by default.
        code: With which the process is about to exit.

    Returns:
        Whether there is a launcher that shows it.
    """
    path = os.environ.get(_REPORT)
    if path is None or os.environ.get(LAUNCHED) != str(os.getpid()):
        return False
    frames = "".join(traceback.format_exception(error)) if error else ""
    when = time.time() if when is None else when
    extra = {
        "py_callstack": frames or message,
        "timestamp": str(int(when)),  # these two are torch's
        "time": when,
        "consequence": error is not None and is_consequence(error),
        "code": code,
    }
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            json.dump({"message": {"message": message, "extraInfo": extra}}, file)
    except FileExistsError:
        pass
    except OSError:
        return False
    return True


def read_report(path: str, rank: int, exit_code: int, seen: float) -> Failure:
    """Return what `report_failure` left, or torch's `record`; a failure without words where there is nothing.

    Args:
        path: Of the report.
        rank: Whose.
        exit_code: Of its process, -n after signal n.
        seen: When the process was seen to have ended.
    """
    try:
        message = json.loads(Path(path).read_text(encoding="utf-8"))["message"]
        if isinstance(message, str):
            return Failure(rank, exit_code, message, "", seen)
        extra = message["extraInfo"]
        when, consequence = float(extra.get("time", extra["timestamp"])), bool(extra.get("consequence", False))
        if exit_code == -signal.SIGTERM:  # it had failed, and the launcher did not wait for its end
            exit_code = int(extra.get("code", 1))
        return Failure(rank, exit_code, message["message"], extra["py_callstack"], when, consequence)
    except (OSError, ValueError, KeyError, TypeError):
        return Failure(rank, exit_code, "", "", seen - _NOTICED_AFTER, consequence=exit_code == -signal.SIGTERM)


def first_cause(failures: Iterable[Failure]) -> Failure:
    """Return the failure that the others follow from."""
    known = list(failures)
    first = min(failure.time for failure in known)

    def order(failure: Failure) -> tuple[bool, bool, float]:
        # Who did not end by itself after another one's failure was killed by the launcher.
        killed_after = failure.exit_code < 0 and failure.time > first + _SEEN
        ended = failure.exit_code == -signal.SIGTERM and not failure.message  # by the launcher
        return failure.consequence or killed_after, ended, failure.time

    return min(known, key=order)


_SEEN: Final = 3.0
"""Seconds within which a launcher sees that a process was killed; its peers may notice earlier."""


def rank_failed(failures: Iterable[Failure], world_size: int) -> RankFailedError:
    """Return the error that says which rank failed first, and how.

    Args:
        failures: At least one.
        world_size: How many ranks there were.
    """
    known = list(failures)
    cause = first_cause(known)
    if len(known) == world_size > 1 and len({failure.message for failure in known}) == 1 and cause.message:
        who = f"all {world_size} ranks"  # a mistake in what all of them were given
    else:
        who = f"rank {cause.rank} of {world_size}"
    code, mend = cause.exit_code, None
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        message = f"{who} was killed by {name}" + (f" after {cause.message}" if cause.message else "")
        if -code == signal.SIGKILL:
            mend = "nothing in it did that; where memory ran out, the system's log (dmesg) says so"
    elif cause.message:
        message = f"{who} failed: {cause.message}"
    else:
        message = f"{who} ended with exit code {code}"
        mend = "its own output says why"
    error = RankFailedError(
        message,
        rank=cause.rank,
        exit_code=128 - code if code < 0 else code,
        remote_traceback=cause.remote_traceback,
        mend=mend,
    )
    if cause.remote_traceback:
        error.__cause__ = RemoteTracebackError(cause.remote_traceback)
    return error


__all__ = [
    "LAUNCHED",
    "Failure",
    "RankFailedError",
    "RemoteTracebackError",
    "describe",
    "first_cause",
    "is_consequence",
    "rank_failed",
    "read_report",
    "report_failure",
]

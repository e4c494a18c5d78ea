"""SCEPTER's loggers, and times as its lines have them."""

from __future__ import annotations

import logging
from math import isfinite
from pathlib import Path
from typing import Final

from treenail.adapters.logging.compat.instances import Instances
from treenail.adapters.logging.compat.logger import LineFile, Lines, Terminal
from treenail.adapters.logging.rotating import RotatingFile

_UNITS: Final = (("days", 86400), ("hours", 3600), ("mins", 60))
_LOGGERS: Final = Instances[logging.Logger]("logger")


def get_logger(name: str = "scepter") -> logging.Logger:
    """Return the logger of a name in this context: the same one each time.

    Lines are ``NAME - MM/DD HH:MM:SS - LEVEL - message``, from INFO on, to standard output. It is in no hierarchy: other
    loggers neither repeat its lines nor settle its level.

    Args:
        name: What each line begins with.
    """
    return _LOGGERS.get_or_make(name, _make, {})


def _make(name: str) -> logging.Logger:
    logger = logging.Logger(name, logging.INFO)  # noqa: LOG001  # the program's other loggers shall not reach it
    logger.addHandler(Terminal(Lines(name_first=True)))
    return logger


def init_logger(
    in_logger: logging.Logger, log_file: str | Path = "", dist_launcher: str | None = "pytorch"
) -> logging.Logger:
    """Give a logger a file, and return it: rank 0 logs from INFO on and writes the file, other ranks log from ERROR on.

    Args:
        in_logger: The logger. A file that it was given here before gives way to this one.
        log_file: A local file, which is added to; its directory is made. Empty: none.
        dist_launcher: Of no meaning: the ranks are those of the current communicator, whoever launched them.

    Raises:
        FileError: The file cannot be opened.
        ValueError: The file is in a store, to which no line can be added.
    """
    from treenail.adapters.comm import get_dist_info  # it brings torch

    if "://" in str(log_file):
        raise ValueError(f"log_file is {log_file}; a log grows line by line, which no store has: give a local file")
    rank, _ = get_dist_info()
    path = Path(log_file) if log_file and rank == 0 else None
    for handler in [each for each in in_logger.handlers if isinstance(each, LineFile)]:
        in_logger.removeHandler(handler)
        handler.close()
    if path is not None:
        in_logger.addHandler(LineFile(RotatingFile(path), Lines(name_first=True)))
    in_logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    return in_logger


def as_time(s: float) -> str:
    """Return a time as ``1days 1hours 1mins 1secs``, without units of which there are none, but for the seconds.

    Args:
        s: Seconds; what is less than one is left out.

    Raises:
        ValueError: It is not finite.
    """
    if not isfinite(s):
        raise ValueError(f"{s} seconds are no time")
    rest, parts = int(abs(s)), []
    for unit, seconds in _UNITS:
        count, rest = divmod(rest, seconds)
        parts += [f"{count}{unit}"] if count else []
    return f"{'-' if s <= -1 else ''}{' '.join([*parts, f'{rest}secs'])}"


def time_since(since: float, percent: float) -> str:
    """Return ``ELAPSED PERCENT%(LEFT)``, such as ``1mins 40secs 50.00%(1mins 40secs)``.

    Args:
        since: Seconds that have elapsed.
        percent: The share that is done, from 0 to 1; at 0, nobody knows what is left.

    Raises:
        ValueError: One of them is out of its range.
    """
    if not 0 <= percent <= 1 or not since >= 0:
        raise ValueError(f"{since=} must not be negative, and {percent=} must be from 0 to 1")
    left = as_time(since / percent - since) if percent else "unknown"
    return f"{as_time(since)} {percent:.2%}({left})"


__all__ = ["as_time", "get_logger", "init_logger", "time_since"]

"""Structured logs: lines for people on a terminal, JSON lines in a file; no global configuration is touched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from treenail.adapters.logging.environment import ENVIRONMENT, collect_environment, record_environment
from treenail.adapters.logging.failures import describe_error, failure_facts, notes_of, place_of
from treenail.adapters.logging.rotating import RotatingFile, rotated
from treenail.adapters.logging.runs import Point, RunLog

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
"""Of a line: those of Python's logging."""


def terminal_logger(stream: TextIO | None = None, level: Level = "INFO") -> FilteringBoundLogger:
    """Make a logger that writes lines for people; colours where the stream is a terminal.

    Args:
        stream: Where to; what standard error is at that moment when None, since a progress bar wraps it.
        level: The least level that is written.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty(), pad_event_to=0, sort_keys=False),
    ]
    least = structlog.make_filtering_bound_logger(level)
    return _bind(structlog.wrap_logger(_Terminal(stream), processors=processors, wrapper_class=least))


class JsonLog:
    """A file of JSON lines, each an event with its time in UTC and its level; every line is written at once.

    Args:
        path: The file; it is appended to.
        max_bytes: How large it may become before it gives way to a new one, as `RotatingFile` does it; None: without end.
        keep: How many earlier files stay then.

    Attributes:
        logger: The logger that writes it.

    Raises:
        FileError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, keep: int = 5) -> None:
        self._file = RotatingFile(path, "a", max_bytes, keep)
        processors: list[structlog.typing.Processor] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _encode,
        ]
        least = structlog.make_filtering_bound_logger("INFO")
        self.logger = _bind(structlog.wrap_logger(_Lines(self._file), processors=processors, wrapper_class=least))

    def close(self) -> None:
        """Close the file; calling it twice is harmless."""
        self._file.close()


def _encode(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


def _bind(logger: object) -> FilteringBoundLogger:
    # structlog's wrapper is typed as Any; binding it once spares it from assembling itself at every call.
    return cast(FilteringBoundLogger, logger).bind()


class _Lines:
    def __init__(self, file: RotatingFile) -> None:
        self._file = file

    def msg(self, line: bytes) -> None:
        self._file.write(line + b"\n")

    debug = info = warning = error = critical = msg


class _Terminal:
    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        print(message, file=self._stream or sys.stderr, flush=True)

    debug = info = warning = error = critical = msg


__all__ = [
    "ENVIRONMENT",
    "JsonLog",
    "Level",
    "Point",
    "RotatingFile",
    "RunLog",
    "collect_environment",
    "describe_error",
    "failure_facts",
    "notes_of",
    "place_of",
    "record_environment",
    "rotated",
    "terminal_logger",
]

"""Structured logs: for people on a terminal, JSON lines in a file; no global configuration is touched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


def make_logger(console: TextIO | None = None, json_lines: Path | None = None) -> FilteringBoundLogger:
    """Make a logger of its own.

    Args:
        console: Where people read; standard error when None. Colours where it is a terminal.
        json_lines: A file that gets each event as a line of JSON, too; it is appended to.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if json_lines is not None:
        processors.append(_JsonLines(json_lines))
    processors.append(
        structlog.dev.ConsoleRenderer(colors=(console or sys.stderr).isatty(), pad_event_to=0, sort_keys=False)
    )
    logger = structlog.wrap_logger(
        _Terminal(console),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
    )
    return cast("FilteringBoundLogger", logger)  # structlog types the wrapper as Any


class _Terminal:
    """Writes lines to a stream; to what standard error is at that moment when None, since a progress bar wraps it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        print(message, file=self._stream or sys.stderr, flush=True)

    debug = info = warning = error = critical = msg


class _JsonLines:
    """Copies each event to a file; opened for each line, so that nothing is lost and nothing has to be closed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")
        return event

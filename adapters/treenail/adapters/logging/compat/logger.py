"""A logger that other libraries' settings do not reach, and its file."""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, Literal, TextIO

from msgspec import Meta

from treenail.adapters.logging import RotatingFile
from treenail.adapters.logging.compat.errors import KindError, UnknownLoggerError
from treenail.adapters.logging.compat.instances import Instances

_COLOURS: Final = {"DEBUG": "32", "INFO": "34", "WARNING": "33", "ERROR": "31", "CRITICAL": "31"}
"""Of the levels' names on terminals (ECMA-48, select graphic rendition)."""
_REMEMBERED: Final = 1000
"""Warnings that are known to have been shown; an earlier one would be shown again."""


class MMLogger(logging.Logger):
    """A logger of its own; mmengine's class of this name.

    It is in no hierarchy, and leaves the root logger alone: nobody else's handlers, levels and filters count.

    Lines are ``MM/DD HH:MM:SS - NAME - LEVEL - message``; from ERROR on they say ``path - function - line``, too. They go to
    standard output, with the level in colour where that is a terminal; on ranks other than 0 only from ERROR on. A warning
    is shown once.

    Args:
        name: Of the instance, for `get_instance`.
        logger_name: What lines say; any number of instances may have the same.
        log_file: Where lines go besides: ``run.log`` stands for ``run/run.log``, beside which further ranks write
            ``run/run_rank1.log`` and so on.
        log_level: The least level that counts, a name or a number.
        file_mode: ``w`` begins the file anew, ``a`` adds to it.
        distributed: Whether every rank writes a file, or only rank 0. With level DEBUG all do.
        max_bytes: How large the file may become before it gives way to a new one, as `RotatingFile` does it.
        keep: How many earlier files stay then.

    Raises:
        FileError: The file cannot be opened.
        ValueError: There is no such level or file mode.

    References:
        https://mmengine.readthedocs.io/en/latest/advanced_tutorials/logging.html
    """

    def __init__(
        self,
        name: str,
        logger_name: str = "mmengine",
        log_file: str | Path | None = None,
        log_level: int | str = "INFO",
        file_mode: Literal["a", "w"] = "w",
        distributed: bool = False,
        max_bytes: Annotated[int, Meta(ge=1)] | None = None,
        keep: Annotated[int, Meta(ge=0)] = 5,
    ) -> None:
        from treenail.adapters.comm import get_dist_info  # it brings torch

        super().__init__(logger_name)
        self._instance_name = name
        self.setLevel(log_level)
        rank, world_size = get_dist_info()
        lines = Lines()
        terminal = Terminal(lines)
        # The level is the logger's alone. mmengine gives it to the handlers, too, so that a later setLevel("DEBUG") is in vain.
        terminal.setLevel(logging.NOTSET if rank == 0 else logging.ERROR)
        self.addHandler(terminal)
        self.addFilter(_Once())
        self._log_file: Path | None = None
        everywhere = world_size > 1 and (distributed or self.level <= logging.DEBUG)
        if log_file is not None and (rank == 0 or everywhere):
            self._log_file = _place(Path(log_file), rank)
            self.addHandler(LineFile(RotatingFile(self._log_file, file_mode, max_bytes, keep), lines))

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> MMLogger:  # Any: each of its own type, as in the constructor
        """Return the logger of a name in this context; make it, and let it be the current one, if there is none.

        Args:
            name: Its name.
            **kwargs: How to make it: arguments of the class.

        Raises:
            ConflictError: There are arguments for a logger that is there already; also an AssertionError.
        """
        return _LOGGERS.get_or_make(name, cls, kwargs)

    @classmethod
    def get_current_instance(cls) -> MMLogger:
        """Return the logger made last; one named ``mmengine`` where there is none yet."""
        return _LOGGERS.latest() or cls.get_instance("mmengine")

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        """Return whether there is a logger of a name."""
        return _LOGGERS.get(name) is not None

    @property
    def instance_name(self) -> str:
        """The instance's name; `name` is what lines say."""
        return self._instance_name

    @property
    def log_file(self) -> Path | None:
        """Where lines go besides, on this rank."""
        return self._log_file

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        """Return whether a level counts: by this logger's own, whatever `logging.disable` says."""
        return level >= self.level

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Give a record to the handlers; where there is none, it is lost in silence."""
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
            logger = logger.parent if logger.propagate else None

    def close(self) -> None:
        """Close the file and let the handlers go; nobody finds it by its name any more. Calling it twice is harmless."""
        if _LOGGERS.get(self._instance_name) is self:
            _LOGGERS.drop(self._instance_name)
        for handler in list(self.handlers):
            self.removeHandler(handler)
            handler.close()


_LOGGERS: Final = Instances[MMLogger]("logger")


def print_log(msg: object, logger: logging.Logger | str | None = None, level: int = logging.INFO) -> None:
    """Print or log a message.

    Args:
        msg: The message.
        logger: A logger, or the name of an `MMLogger`. ``"current"`` is the `MMLogger` made last, ``"silent"`` says
            nothing, None prints.
        level: Of the message, where it is logged.

    Raises:
        UnknownLoggerError: No `MMLogger` has that name; also a ValueError.
        KindError: logger is something else; also a TypeError.
    """
    if logger is None:
        print(msg)
    elif isinstance(logger, logging.Logger):
        logger.log(level, msg, stacklevel=2)
    elif not isinstance(logger, str):
        raise KindError(
            f"logger is a {type(logger).__qualname__}",
            mend="give a logger, the name of one, 'current', 'silent' or None",
        )
    elif logger == "current":
        MMLogger.get_current_instance().log(level, msg, stacklevel=2)
    elif logger != "silent":
        found = _LOGGERS.get(logger)
        if found is None:
            raise UnknownLoggerError(
                f"no logger is called '{logger}' in this context",
                mend=f"make it by MMLogger.get_instance({logger!r}), or write 'current'",
            )
        found.log(level, msg, stacklevel=2)


def _place(given: Path, rank: int) -> Path:
    """Return the file of a rank, in a directory with the stem of the one that was given."""
    name = given.name if rank == 0 else f"{given.stem}_rank{rank}{given.suffix}"
    return given.parent / given.stem / name


class Lines(logging.Formatter):
    """Formats a record by its own level; nothing is left of the one before it.

    Args:
        name_first: Whether the logger's name comes before the time.
    """

    def __init__(self, *, name_first: bool = False) -> None:
        super().__init__(datefmt="%m/%d %H:%M:%S")
        self._name_first = name_first

    def format(self, record: logging.LogRecord, *, coloured: bool = False) -> str:
        """Return the line of a record.

        Args:
            record: What was logged.
            coloured: Whether its level has a colour, for terminals.
        """
        record.message = record.getMessage()
        level = record.levelname
        if coloured and level in _COLOURS:
            level = f"\033[{_COLOURS[level]}m{level}\033[0m"
        time = self.formatTime(record, self.datefmt)
        parts = [record.name, time, level] if self._name_first else [time, record.name, level]
        if record.levelno >= logging.ERROR:
            parts += [record.pathname, record.funcName or "?", str(record.lineno)]
        lines = [" - ".join([*parts, record.message])]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        if record.stack_info:
            lines.append(self.formatStack(record.stack_info))
        return "\n".join(lines)


class Terminal(logging.Handler):
    """Writes to what standard output is at that moment, since tests and progress bars put something else there.

    Args:
        lines: Makes the lines.
    """

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        stream: TextIO = sys.stdout
        try:
            stream.write(self._lines.format(record, coloured=stream.isatty() and not os.environ.get("NO_COLOR")) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)


class LineFile(logging.Handler):
    """Writes lines to a file.

    Args:
        file: The file, which is closed with this.
        lines: Makes the lines.
    """

    def __init__(self, file: RotatingFile, lines: Lines) -> None:
        super().__init__()
        self._file = file
        self._lines = lines

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._file.path

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            self._file.write(f"{self._lines.format(record)}\n".encode(errors="replace"))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class _Once(logging.Filter):
    """Lets a warning through once; by its whole text, since many differ in their arguments alone."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        with self._lock:
            if text in self._seen:
                self._seen.move_to_end(text)
                return False
            self._seen[text] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return True


__all__ = ["LineFile", "Lines", "MMLogger", "Terminal", "print_log"]

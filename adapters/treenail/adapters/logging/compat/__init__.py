"""Logs as mmengine has them: histories of values, the hub that collects them, and what makes lines of them; SCEPTER's loggers."""

from treenail.adapters.logging.compat.environment import collect_env
from treenail.adapters.logging.compat.errors import ConflictError, KindError, UnknownLoggerError, UnknownNameError
from treenail.adapters.logging.compat.history import HistoryBuffer
from treenail.adapters.logging.compat.hub import MessageHub
from treenail.adapters.logging.compat.logger import MMLogger, print_log
from treenail.adapters.logging.compat.processor import LoggedRun, LogProcessor
from treenail.adapters.logging.compat.scepter import as_time, get_logger, init_logger, time_since

__all__ = [
    "ConflictError",
    "HistoryBuffer",
    "KindError",
    "LogProcessor",
    "LoggedRun",
    "MMLogger",
    "MessageHub",
    "UnknownLoggerError",
    "UnknownNameError",
    "as_time",
    "collect_env",
    "get_logger",
    "init_logger",
    "print_log",
    "time_since",
]

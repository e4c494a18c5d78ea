"""What is to be known of an exception: what it was, where, and how it came about."""

from __future__ import annotations

import os
import sysconfig
import traceback
from types import FrameType
from typing import Final

from treenail.kernel import TreenailError

_MACHINERY: Final = ("treenail", "torch")
_LIBRARIES: Final = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_WORKER: Final = "Original Traceback"
"""What torch writes before a loader worker's traceback, which is the message then."""


def place_of(error: BaseException) -> str | None:
    """Return ``file.py:11 in function`` of the call in which an exception was raised, as far as that is somebody's own code.

    It is the innermost one outside of libraries; else the innermost one outside of treenail and torch; else the innermost one.
    A file below the current directory is named from there.

    Args:
        error: The exception; None is returned for one that was not raised yet.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return None
    foreign = [each for each in frames if _package(each[0]) not in _MACHINERY]
    own = [each for each in foreign if not each[0].f_code.co_filename.startswith((*_LIBRARIES, "<"))]
    frame, line = (own or foreign or frames)[-1]
    path, here = frame.f_code.co_filename, os.getcwd() + os.sep
    return f"{path.removeprefix(here)}:{line} in {frame.f_code.co_name}"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def describe_error(error: BaseException) -> str:
    """Return an exception's kind and message in one line; an error of ours says by itself what is to be known, and where.

    Args:
        error: The exception.
    """
    if isinstance(error, TreenailError):
        return str(error).partition("\n")[0]
    text = " ".join(str(error).split())
    if _WORKER in text:
        text = f"{text.partition(f' {_WORKER}')[0]} {str(error).strip().splitlines()[-1]}"
    return f"{type(error).__name__}{f': {text}' if text else ''}"


def notes_of(error: BaseException) -> str:
    """Return what was noted of an exception, to stand behind its message.

    Args:
        error: The exception.
    """
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def failure_facts(error: BaseException) -> dict[str, object]:
    """Return an exception as plain data, for a log.

    Args:
        error: The exception.

    Returns:
        kind, error (as of `describe_error`), raised_at (as of `place_of`), notes of one line, traceback (with all notes and
        causes); those that there are.
    """
    facts = {
        "kind": type(error).__name__,
        "error": describe_error(error),
        "raised_at": place_of(error),
        "notes": [note for note in getattr(error, "__notes__", ()) if "\n" not in note],
        "traceback": "".join(traceback.format_exception(error)),
    }
    return {name: value for name, value in facts.items() if value}


__all__ = ["describe_error", "failure_facts", "notes_of", "place_of"]

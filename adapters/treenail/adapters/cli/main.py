"""Runs commands, and shows errors as one line with an exit code.

Exit codes: 0 done, 1 failed while running, 2 wrong input (config, arguments, checkpoint), 130, 143 and 138 stopped by
SIGINT, SIGTERM and SIGUSR1 with a checkpoint saved.
"""

from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

from treenail.adapters.cli.parser import parser
from treenail.kernel import (
    BuildError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    RegistryError,
    SpecError,
    TreenailError,
)

_WRONG_INPUT = (ConfigError, BuildError, CheckpointError, SpecError, RegistryError, MissingDependencyError)

COMMANDS = {
    "train": "commands",
    "test": "commands",
    "predict": "predicting",
    "check": "checking",
    "find-lr": "tuning",
    "find-batch-size": "tuning",
    "freeze": "freezing",
    "config": "configs",
    "schema": "writing",
    "template": "writing",
    "completion": "completion",
    "complete": "completion",
    "export": "commands",
    "consolidate": "commands",
    "inspect": "weights",
    "convert": "weights",
    "copy": "copying",
    "adapters": "commands",
    "launch": "launching",
    "logs": "logs",
    "compare": "logs",
    "plot-schedule": "plotting",
}
"""Where each command is; only `commands`, `launching`, `plotting`, `predicting` and `tuning` import torch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: Those after the program's name; the process's own when None.
    """
    options = parse(arguments)
    sys.path.append(os.getcwd())  # modules that a config's `imports` allow may lie beside it; installed ones win
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _report(
            "interrupted; nothing of this attempt is lost that a checkpoint holds", 128 + signal.SIGINT, options
        )
    except TreenailError as error:
        return _report(f"{error}{_notes(error)}", 2 if isinstance(error, _WRONG_INPUT) else 1, options)
    except SystemExit as error:  # of a component: it ends the command as it asked, but not in silence
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return _report(_whole(error), code, options)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return 1
        return _report(_whole(error), 1, options)


def _notes(error: BaseException) -> str:
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _whole(error: BaseException) -> str:
    """Return what there is to say of an exception that is none of ours, in one line."""
    from treenail.adapters.logging import describe_error, notes_of, place_of

    notes, place = notes_of(error), place_of(error)
    more = [f"raised at {place}"] if place else []
    more += [] if "traceback" in notes else ["--debug shows the traceback"]
    return "; ".join([describe_error(error) + notes, *more])


def _run(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"treenail.adapters.cli.{COMMANDS[options.command]}")
    return int(getattr(module, options.command.replace("-", "_"))(options))


def _reader_left() -> bool:
    """Return whether nobody reads our output any more (``treenail adapters | head -1``)."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        left = any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # AttributeError: Windows has no poll
        return False
    if left:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it once more at exit
    return left


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; a mistake in them ends the process, as argparse does it.

    Args:
        arguments: As for `main`.
    """
    whole = parser()
    options, rest = whole.parse_known_args(_with_number(sys.argv[1:] if arguments is None else arguments))
    # argparse takes no positional argument after an option, but people write key=value anywhere.
    late = [each for each in rest if _is_override(each)] if "overrides" in options else []
    if len(late) < len(rest):
        whole.error(f"unrecognized arguments: {' '.join(each for each in rest if each not in late)}")
    if late:
        options.overrides = [*options.overrides, *late]
    return options


def _with_number(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a ``--fast-dev-run`` that has its number, or else would take the word behind it for one."""
    following = [*arguments[1:], ""]
    return [
        "--fast-dev-run=1" if word == "--fast-dev-run" and not after.lstrip("-").isdecimal() else word
        for word, after in zip(arguments, following, strict=False)
    ]


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _report(message: str, code: int, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exc()
    # A rank of `treenail launch` leaves its last words to it, which says once for all ranks what went wrong.
    if os.environ.get("TREENAIL_RANK_PROCESS") == str(os.getpid()):
        from treenail.adapters.launch import report_failure

        if report_failure(message, sys.exception(), code=code):
            return code
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code

"""A rank that `treenail launch` started: runs a script or a module as Python would, and tells the launcher what went wrong.

It is run by its path, as ``python -P worker.py {script PATH | module NAME} ARGUMENTS``, so that nothing but the standard library
is imported before the user's own code.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def main(kind: str, target: str, *arguments: str) -> None:
    """Run a script or a module as ``__main__``.

    Args:
        kind: ``"script"`` or ``"module"``.
        target: The script's path, or the module's name.
        *arguments: What stands behind it in sys.argv.
    """
    _end_with_parent()
    os.environ["TREENAIL_RANK_PROCESS"] = str(os.getpid())  # failures.LAUNCHED, without an import
    sys.excepthook = _report_and_print
    sys.argv = [target, *arguments]
    # -P kept this file's directory out of sys.path; Python puts there what belongs to the user's code.
    sys.path.insert(0, str(Path(target).resolve().parent) if kind == "script" else os.getcwd())
    try:
        if kind == "script":
            runpy.run_path(target, run_name="__main__")
        else:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # A string is what went wrong, and Python prints it. A number only says when, which is not worth an import of torch.
        if isinstance(end.code, str) or (end.code and "torch" in sys.modules):
            _report(end.code if isinstance(end.code, str) else "", None, end.code if isinstance(end.code, int) else 1)
        raise


def _end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the launcher dies: a rank of a killed launcher saves its work and ends (Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os.kill(os.getpid(), signal.SIGTERM)


def _report_and_print(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _report(None, error)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        frames = frames.tb_next  # the user's traceback begins with the user's code
    sys.__excepthook__(kind, error.with_traceback(frames), frames)


def _report(message: str | None, error: BaseException | None, code: int = 1) -> None:
    when = time.time()
    from treenail.adapters.launch import describe, report_failure  # imports torch, which takes a while

    report_failure(message or (describe(error) if error else ""), error, when, code)


if __name__ == "__main__":
    main(*sys.argv[1:])

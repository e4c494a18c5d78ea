"""A rank that `treenail launch` started: runs a script or a module as Python would, and tells the launcher what went wrong.

It is run by its path, as ``python -P worker.py LAUNCHER GRACE {script PATH | module NAME} ARGUMENTS``, so that nothing but the
standard library is imported before the user's own code.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType


def main(launcher: str, grace: str, kind: str, target: str, *arguments: str) -> None:
    """Run a script or a module as ``__main__``.

    Args:
        launcher: The number of the process that this one must not outlive, ``"0"`` for none.
        grace: Seconds to stop in when it dies.
        kind: ``"script"`` or ``"module"``.
        target: The script's path, or the module's name.
        *arguments: What stands behind it in sys.argv.
    """
    if int(launcher):
        watch = threading.Thread(
            target=_end_with, args=(int(launcher), float(grace)), name="end-with-launcher", daemon=True
        )
        watch.start()
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


def _end_with(launcher: int, grace: float) -> None:
    """End this process when its launcher died: it may save its work, if it does not wait for ranks that are gone."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)  # the main thread sits in a collective, where no handler of Python runs


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

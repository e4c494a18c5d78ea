"""Tasks of the benchmark `files` in processes of their own: seconds, and by how much the process grows."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

_RESET = Path("/proc/self/clear_refs")


class Alone(NamedTuple):
    """What a task took.

    Args:
        seconds: Wall time of the task alone, its process and its code being there.
        growth: Bytes by which the resident memory grew at most; not a number where the system is not Linux.
    """

    seconds: float
    growth: float


def alone(module: str, *arguments: str) -> Alone:
    """Run a module as a program, which calls `tell` once."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return Alone(*json.loads(done.stdout))


def tell(task: Callable[[], object]) -> None:
    """Do the task, and print what it took."""
    if _RESET.exists():
        _RESET.write_text("5", encoding="ascii")  # the peak becomes what is there now
    before = _resident("VmRSS")
    start = perf_counter()
    task()
    seconds = perf_counter() - start
    print(json.dumps([seconds, _resident("VmHWM") - before]))


def _resident(field: str) -> float:
    if not _RESET.exists():
        return math.nan
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else math.nan

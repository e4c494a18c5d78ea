"""A process of the benchmark `samplers`: `python -m scripts.benchmarks._samplers_memory NAME SIZE`.

It prints by how many bytes the process grows at most until the first index of an epoch is there. A process for each, since
one hardly gives memory back. A sampler of a few indices comes first, so that code which is loaded on first use is not counted.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path

import torch
from scripts.benchmarks._samplers_peers import contestants, torch_random

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def growth(name: str, size: int) -> int | None:
    """Measure in a new process; None where the system is not Linux, which alone can reset a process's peak."""
    if not _RESET.exists():
        return None
    command = [sys.executable, "-P", "-m", "scripts.benchmarks._samplers_memory", name, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(name: str, size: int) -> None:
    """Measure in this process, and print."""
    torch.set_num_threads(1)
    (contestant,) = (each for each in [torch_random(), *contestants()] if each.name == name)
    next(contestant.start(10_000))
    gc.collect()
    _RESET.write_text("5", encoding="ascii")  # the peak becomes what is there now
    before = _bytes("VmRSS")
    iterator = contestant.start(size)
    next(iterator)
    print(_bytes("VmHWM") - before)


def _bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

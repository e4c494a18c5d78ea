"""What the kernel may cost."""

import json
import subprocess
import sys
from pathlib import Path

import treenail.kernel

KERNEL = Path(treenail.kernel.__file__).parent

MEASURE = """
import json, sys, time
before = time.process_time()
import treenail.kernel
cost = time.process_time() - before
print(json.dumps([cost, sorted(sys.modules)]))
"""


def fresh_import() -> tuple[float, set[str]]:
    """Return the CPU seconds of importing the kernel in a fresh process, and the modules loaded then."""
    done = subprocess.run([sys.executable, "-I", "-c", MEASURE], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_the_kernel_has_at_most_1500_lines_that_are_neither_blank_nor_comments() -> None:
    lines = [line.strip() for file in KERNEL.glob("*.py") for line in file.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 1500


def test_importing_the_kernel_loads_no_heavy_package() -> None:
    _, modules = fresh_import()
    assert not modules & {"torch", "numpy", "msgspec", "structlog", "ruamel.yaml"}
    assert len(modules) < 130


def test_importing_the_kernel_takes_under_50_ms() -> None:
    # CPU time, and the least of several: what the import costs, not what else the machine does meanwhile.
    assert min(fresh_import()[0] for _ in range(9)) < 0.050

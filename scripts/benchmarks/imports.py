"""What an import costs in a fresh process: milliseconds over bare Python, and modules loaded."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from time import perf_counter

from scripts.benchmarks import _report
from scripts.benchmarks._timing import Turn, compare, interleave

BARE = "pass"
STATEMENTS = {
    "treenail.kernel": "import treenail.kernel",
    "treenail.contracts": "import treenail.contracts",
    "treenail (kernel, contracts, loops)": "import treenail.kernel, treenail.contracts, treenail.adapters.loops",
    "torch": "import torch",
    "lightning": "import lightning",
    "mmengine": "import mmengine",
    "mmengine.runner": "import mmengine.runner",
    "ignite.engine": "import ignite.engine",
    "accelerate": "import accelerate",
}
HEADER = ("import", "ms over bare", "min", "of torch's", "of the kernel's", "modules")
FORMATS = ("{:.1f}", "{:.1f}", "{:.3f}×", "{:.1f}×", "{}")


def main() -> None:
    """Measure and print."""
    arguments = _report.options(__doc__, rounds=11).parse_args()
    statements = {"bare python": BARE, **STATEMENTS}
    runs = {name: partial(_seconds, code) for name, code in statements.items()}
    turns = interleave(partial(_seconds, BARE), runs, arguments.rounds)

    milliseconds = {name: [Turn(*(value * 1e3 for value in turn)) for turn in series] for name, series in turns.items()}
    figures = {name: compare(series) for name, series in milliseconds.items()}
    minima = {name: min(turn.own for turn in series) for name, series in milliseconds.items()}
    rows, results = [], {}
    for name, found in figures.items():
        own = {
            "over_bare_ms": found.over,
            "minimum_over_bare_ms": minima[name] - minima["bare python"],
            "of_torch": found.over / figures["torch"].over,
            "of_kernel": found.over / figures["treenail.kernel"].over,
            "modules": _modules(statements[name]),
        }
        results[name] = own
        rows.append((name, *(form.format(value) for form, value in zip(FORMATS, own.values(), strict=True))))
    rows[0] = (*rows[0][:3], "", "", rows[0][5])  # bare Python's ratios are noise by a figure

    facts = _report.environment() | {"rounds": str(arguments.rounds)}
    print(_report.table(HEADER, rows))
    bare = figures["bare python"].median
    print(
        f"\nms over bare  median of the differences to bare Python ({bare:.0f} ms) just before and just after; min: the fastest"
        "\n              less the fastest. Wall time of fresh processes (python -I), in turns. modules: len(sys.modules)."
    )
    print(_report.describe(facts))
    _report.write_json(arguments.json, "imports", facts, results)


def _seconds(code: str) -> float:
    begin = perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return perf_counter() - begin


def _modules(code: str) -> int:
    command = f"import sys\n{code}\nprint(len(sys.modules))"
    finished = subprocess.run([sys.executable, "-I", "-c", command], check=True, capture_output=True, text=True)
    return int(finished.stdout.split()[-1])


if __name__ == "__main__":
    main()

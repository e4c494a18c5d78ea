"""What all benchmarks share: options, plain-text tables, the environment, and figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PEERS = ("torch", "lightning", "mmengine", "pytorch-ignite", "accelerate")


def options(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=description)
    parser.add_argument("--rounds", type=positive, default=rounds, help=f"rounds that are counted (default {rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def positive(text: str) -> int:
    """Read a positive integer from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


class Target(NamedTuple):
    """What is to be reached, and what was."""

    what: str
    found: str
    met: bool


def tell(targets: Sequence[Target]) -> None:
    """Print which targets were met."""
    print("\nTo reach\n--------")
    for each in targets:
        print(f"  {'met    ' if each.met else 'NOT MET'}  {each.what}: {each.found}")


def environment(packages: Sequence[str] = PEERS) -> dict[str, str]:
    """Describe what the figures depend on: versions and processors; nothing that names the machine."""
    found = {"python": platform.python_version(), "treenail": _version("treenail")}
    found |= {package: _version(package) for package in packages}
    return found | {"system": f"{platform.system()} {platform.machine()}", "cpus": str(os.cpu_count())}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def describe(facts: Mapping[str, str]) -> str:
    """Put facts on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def write_json(path: Path | None, benchmark: str, facts: Mapping[str, object], results: object) -> None:
    """Write the figures, if a file was asked for."""
    if path is not None:
        content = {"benchmark": benchmark, "environment": dict(facts), "results": results}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

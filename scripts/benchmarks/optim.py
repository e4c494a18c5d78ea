"""What averages, updates and schedules cost, beside bare torch and the peers."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentParser

import torch
from scripts.benchmarks import _report
from scripts.benchmarks._optim_averages import METHOD as AVERAGES
from scripts.benchmarks._optim_averages import race_averages
from scripts.benchmarks._optim_schedules import METHOD as SCHEDULES
from scripts.benchmarks._optim_schedules import PAIR, race_schedules
from scripts.benchmarks._optim_updates import METHOD as UPDATES
from scripts.benchmarks._optim_updates import race_updates
from scripts.benchmarks._report import Target
from scripts.benchmarks._timing import Figures

PARTS = ("averages", "updates", "schedules")
PACKAGES = (*_report.PEERS, "timm")


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    parts: list[str] = arguments.only or list(PARTS)
    results: dict[str, object] = {}
    targets: list[Target] = []
    if "averages" in parts:
        figures = race_averages(arguments.rounds)
        _print("An average of the weights, milliseconds", figures, "of one foreach_lerp", AVERAGES)
        results["averages"] = {name: each._asdict() for name, each in figures.items()}
        for name in ("treenail", "treenail, hook of a run"):
            ratio = figures[name].ratio
            targets.append(Target(f"EMA ({name}), of one bare foreach_lerp, ≤ 1.1", f"{ratio:.3f}", ratio <= 1.1))
    if "updates" in parts:
        figures = race_updates(8 * arguments.rounds)  # short turns, for what is sought is a hundredth of what they take
        _print("An iteration, microseconds", figures, "of bare", UPDATES)
        results["updates"] = {name: each._asdict() for name, each in figures.items()}
        over = figures["treenail"].over
        noise = figures["bare again"].over
        found = f"{over:+.1f} µs (bare again {noise:+.1f})"
        targets.append(Target("OptimWrapper over bare backward, step, zero_grad, ≤ 10 µs", found, over <= 10))
    if "schedules" in parts:
        rows = race_schedules(min(arguments.rounds, 3))
        print("\nA step of a schedule, microseconds\n")
        columns = ["treenail µs", "treenail in a run µs", "torch µs", "mmengine µs", "torch / treenail"]
        columns.append("torch / treenail in a run")
        shown = [(name, *(f"{row[each]:.2f}" if each in row else "" for each in columns)) for name, row in rows.items()]
        print(_report.table(("schedules", *columns), shown))
        print(f"\n{SCHEDULES}")
        results["schedules"] = rows
        for name, row in rows.items():
            ratio = (
                row["torch / treenail in a run"] if PAIR in name or "one optimizer" in name else row["torch / treenail"]
            )
            targets.append(Target(f"schedules ({name}), torch's time of ours, ≥ 5", f"{ratio:.1f}", ratio >= 5))
    _report.tell(targets)
    facts = _report.environment(PACKAGES) | {"torch threads": "1", "rounds": str(arguments.rounds)}
    print("\n" + _report.describe(facts))
    reached = [each._asdict() for each in targets]
    _report.write_json(arguments.json, "optim", facts, {"parts": results, "targets": reached})


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=9)
    parser.add_argument("--only", choices=PARTS, nargs="+", help="measure these parts alone")
    return parser


def _print(title: str, figures: dict[str, Figures], of: str, method: str) -> None:
    rows = [(name, f"{each.median:.2f}", f"{each.over:+.2f}", f"{each.ratio:.3f}") for name, each in figures.items()]
    print(f"\n{title}\n")
    print(_report.table(("who", "median", "over", of), rows))
    print(f"\n{method}")


if __name__ == "__main__":
    main()

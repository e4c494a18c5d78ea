"""What the runtime costs: an iteration with all default hooks, a checkpoint, a smoothed log, beside the peers."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentParser
from functools import partial

import torch
from scripts.benchmarks import _report
from scripts.benchmarks._loops_peers import bare, bare_clearing, peers
from scripts.benchmarks._loops_treenail import treenail
from scripts.benchmarks._loops_work import Contestant, make_batches, time_run
from scripts.benchmarks._report import Target
from scripts.benchmarks._runtime_checkpoints import METHOD as CHECKPOINTS
from scripts.benchmarks._runtime_checkpoints import race_checkpoints
from scripts.benchmarks._runtime_logs import METHOD as LOGS
from scripts.benchmarks._runtime_logs import WINDOWS, race_windows
from scripts.benchmarks._timing import Turn, compare, interleave

PARTS = ("iterations", "checkpoints", "logs")
ITERATIONS = 1000


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    parts: list[str] = arguments.only or list(PARTS)
    results: dict[str, object] = {}
    targets: list[Target] = []
    if "iterations" in parts:
        results["iterations"] = _iterations(arguments.rounds, targets)
    if "checkpoints" in parts:
        results["checkpoints"] = _checkpoints(arguments.rounds, arguments.megabytes, targets)
    if "logs" in parts:
        results["logs"] = _logs(arguments.rounds, targets)
    _report.tell(targets)
    facts = _report.environment() | {"torch threads": str(torch.get_num_threads()), "rounds": str(arguments.rounds)}
    print(_report.describe(facts))
    _report.write_json(arguments.json, "runtime", facts, results)


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=7)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure only these parts")
    parser.add_argument("--megabytes", type=_report.positive, default=400, help="of a checkpoint (default 400)")
    return parser


def _iterations(rounds: int, targets: list[Target]) -> dict[str, dict[str, float]]:
    """Race whole loops; what is sought is small beside the noise, so that each has three turns a round."""
    batches = make_batches(ITERATIONS)
    reference = Contestant("bare", bare, "nothing")
    contestants = [
        Contestant("bare again", bare, "nothing"),
        Contestant("bare, clearing by hand", bare_clearing, "nothing"),
        *treenail(),
        *peers(),
    ]
    runs = {each.name: partial(time_run, each, batches) for each in contestants}
    turns = interleave(partial(time_run, reference, batches), runs, 3 * rounds)
    figures = {
        name: compare([Turn(*(outcome.iteration * 1e6 for outcome in turn)) for turn in series])
        for name, series in turns.items()
    }
    # Blocks of 50 in which nothing else took the machine's time; a bar is drawn twice a second, in few of them.
    fastest = {name: min(turn.own.fastest for turn in series) * 1e6 for name, series in turns.items()}
    rows = [
        (name, f"{each.median:.1f}", f"{each.over:+.1f}", f"{each.ratio:.2f}", f"{fastest[name]:.1f}")
        for name, each in figures.items()
    ]
    print("An iteration of nn.Linear(8, 1) on batches of 32, SGD; microseconds\n")
    print(_report.table(("loop", "µs", "over bare", "ratio", "fastest block"), rows))
    ours = figures["treenail, default hooks"].over
    least = min(each.over for name, each in figures.items() if not name.startswith(("treenail", "bare")))
    noise = figures["bare again"].over
    targets.append(
        Target(
            "an iteration with all default hooks over bare, ≤ 15 µs",
            f"{ours:+.1f} µs (bare again {noise:+.1f})",
            ours <= 15,
        )
    )
    targets.append(Target("… and below every peer's", f"the least of theirs is {least:+.1f} µs", ours < least))
    return {name: each._asdict() for name, each in figures.items()}


def _checkpoints(rounds: int, megabytes: int, targets: list[Target]) -> dict[str, dict[str, float]]:
    figures = race_checkpoints(rounds, megabytes)
    rows = [
        (name, *(f"{each[key]:{form}}" if key in each else "" for key, form in _COLUMNS.items()))
        for name, each in figures.items()
    ]
    print(f"\nA checkpoint of {megabytes} MB; milliseconds\n")
    print(_report.table(("", "stall", "of a copy", "total", "load"), rows))
    print("\n" + CHECKPOINTS.format(megabytes=megabytes))
    ours, theirs = figures["treenail"], figures["torch.save"]
    stall = ours["stall in copies"]
    targets.append(Target("stall of a checkpoint, of one memory copy, ≤ 1.3", f"{stall:.2f}", stall <= 1.3))
    total = ours["total"] / theirs["total"]
    targets.append(Target("its total time, of torch.save's, ≤ 1", f"{total:.2f}", total <= 1))
    load = ours["load"] / theirs["load"]
    targets.append(Target("resume of it, of torch.load's, ≤ 1.2", f"{load:.2f}", load <= 1.2))
    return figures


_COLUMNS = {"stall": ".0f", "stall in copies": ".2f", "total": ".0f", "load": ".0f"}


def _logs(rounds: int, targets: list[Target]) -> dict[str, dict[str, float]]:
    figures = race_windows(rounds)
    print("\nA value smoothed over a window; microseconds a step\n")
    print(
        _report.table(
            ("", *map(str, WINDOWS)),
            [(name, *(f"{each[str(w)]:.2f}" for w in WINDOWS)) for name, each in figures.items()],
        )
    )
    print("\n" + LOGS)
    small, large = (figures["treenail"][str(window)] for window in (WINDOWS[0], WINDOWS[-1]))
    found = f"{large:.2f} µs, with a window of {WINDOWS[0]} {small:.2f}"
    targets.append(Target("statistics over a window of 10^5 in O(1) a step", found, large <= 3 * small))
    return figures


if __name__ == "__main__":
    main()

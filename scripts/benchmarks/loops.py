"""What a training loop costs an iteration, beside a bare PyTorch loop and the peers."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from functools import partial
from statistics import median

import torch
from scripts.benchmarks import _report
from scripts.benchmarks._loops_peers import bare, peers
from scripts.benchmarks._loops_treenail import idle_loop, treenail, treenail_by_hook
from scripts.benchmarks._loops_work import BLOCK, Contestant, Outcome, make_batches, time_run
from scripts.benchmarks._timing import Turn, compare, interleave

HEADER = ("loop", "µs/iter", "over bare", "ratio", "min", "min over bare", "whole run µs/iter", "start + end ms")
COLUMNS = ("median", "over", "ratio", "minimum", "minimum_over", "whole", "one_off_ms")
FORMATS = ("{:.1f}", "{:+.1f}", "{:.2f}", "{:.1f}", "{:+.1f}", "{:.1f}", "{:.1f}")
METHOD = """\
µs/iter    median over the rounds, the first {block} of {iterations} iterations not counted.
over bare  median of the differences to the bare runs just before and just after; "bare again" shows the noise.
min        the fastest {block} iterations of all rounds; what is done by the clock (bars) may be missing there.
whole run  everything from making the model to the end of training (setup, teardown, checkpoints) by {iterations} iterations;
           start + end is that less the iterations. treenail's has two checkpoints with fsync in it.
All ran in one process, in turns, each between two runs of the bare loop."""


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    if arguments.hooks:
        print("treenail around a step that does nothing, beside a bare loop around it; microseconds per iteration\n")
        train, contestants = idle_loop, treenail_by_hook()
    else:
        print("nn.Linear(8, 1), batches of 32 in memory, MSE, SGD; microseconds per iteration\n")
        train, contestants = bare, [*treenail(), *peers()]
    reference = Contestant("bare", train, "nothing")
    contestants.insert(0, Contestant("bare again", train, "nothing"))
    batches = make_batches(arguments.iterations)
    runs = {each.name: partial(time_run, each, batches) for each in contestants}
    turns = interleave(partial(time_run, reference, batches), runs, arguments.rounds)
    difference = _check_weights(turns)

    results = _figures(turns, arguments.iterations)
    rows = [
        (name, *(form.format(row[column]) for form, column in zip(FORMATS, COLUMNS, strict=True)))
        for name, row in results.items()
    ]
    facts = _report.environment() | {
        "torch threads": str(torch.get_num_threads()),
        "rounds": str(arguments.rounds),
        "iterations": str(arguments.iterations),
    }
    print(_report.table(HEADER, rows))
    print("\n" + METHOD.format(block=BLOCK, iterations=arguments.iterations))
    if not arguments.hooks:
        print("What each had on:\n" + "\n".join(f"  {each.name}: {each.has_on}" for each in contestants))
        print(
            f"All reached the same weights in every round (largest difference {difference:.1e}): the same work was done."
        )
    print(_report.describe(facts))
    _report.write_json(arguments.json, "loops --hooks" if arguments.hooks else "loops", facts, results)


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=21)
    parser.add_argument(
        "--iterations", type=_iterations, default=1000, help="iterations of a run, a multiple of 50 (default 1000)"
    )
    parser.add_argument("--hooks", action="store_true", help="treenail alone, hook by hook, around an idle step")
    return parser


def _iterations(text: str) -> int:
    number = int(text)
    if number < 100 or number % BLOCK:
        raise ArgumentTypeError(f"{number} is not a multiple of 50, 100 or more")
    return number


def _check_weights(turns: dict[str, list[Turn[Outcome]]]) -> float:
    """Return by how much weights differ at most from the bare loop's.

    Raises:
        AssertionError: Somebody learnt something else, and so did other work.
    """
    largest = 0.0
    for name, series in turns.items():
        for turn in series:
            difference = float((turn.own.weights - turn.before.weights).abs().max())
            if not difference <= 1e-6:
                raise AssertionError(f"'{name}' reached other weights than the bare loop, by {difference}")
            largest = max(largest, difference)
    return largest


def _figures(turns: dict[str, list[Turn[Outcome]]], iterations: int) -> dict[str, dict[str, float]]:
    every = [turn for series in turns.values() for turn in series]
    bare_minimum = min(turn.before.fastest for turn in every)
    as_reference = [Turn(turn.before, turn.before, turn.before) for turn in every]
    results = {}
    for name, series in {"bare": as_reference, **turns}.items():
        figures = compare([Turn(*(outcome.iteration * 1e6 for outcome in turn)) for turn in series])
        minimum = min(turn.own.fastest for turn in series)
        results[name] = figures._asdict() | {
            "minimum": minimum * 1e6,
            "minimum_over": (minimum - bare_minimum) * 1e6,
            "whole": median(turn.own.whole for turn in series) / iterations * 1e6,
            "one_off_ms": median(turn.own.whole - turn.own.iteration * iterations for turn in series) * 1e3,
        }
    return results


if __name__ == "__main__":
    main()

"""What shuffled orders cost: the first index, memory, a resume, throughput; beside torch and the peers."""

from __future__ import annotations

import gc
import math
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple, TypeVar

import torch
from scripts.benchmarks import _report, _samplers_plot
from scripts.benchmarks._samplers_memory import growth
from scripts.benchmarks._samplers_peers import SEED, Contestant, check, contestants, torch_random, treenail
from scripts.benchmarks._timing import Turn, interleave

from treenail.adapters.sampling import RandomSampler

T = TypeVar("T")

PACKAGES = ("torch", "helios-ml", "torchdata", "mmengine", "grain", "numpy")
HUGE = 10**12
SOME = 50_000  # indices that are drawn of a slow sampler
REPEATED = 41  # times that a first index and a resume are measured in a row
MANY = 2_000_000  # and of blocks, or of an order that is too long to be drawn whole
BLOCKS = (4096, 65536, 1_000_000)
HEADER = ("sampler", "first ms", "memory MB", "resume ms", "for M/s", "drain M/s", "epoch s", "of torch's", "state B")
TARGETS = "to reach (treenail)", "< 1", "< 1", "< 1", "≥ 10", "", "", "< 1.00", "< 1024"
METHOD = """\
first    from making the sampler to the first index of an epoch of {size:,} shuffled indices.
memory   by how much a fresh process grows until then, code not counted.
resume   from making the sampler to the next index at 90 %, each in its own way: torch and mmengine can only be drawn
         again and skipped, helios gets start_iter, torchdata and treenail a state_dict, grain an index.
for      million indices per second from the first one on, in `for index in sampler: pass`; drain: into an empty deque.
epoch    from making the sampler to the end of the epoch in that `for`; of torch's: median of the ratios to the runs of
         torch's RandomSampler just before and after; "again" shows the noise. Slow ones draw {some:,} indices only.
state    bytes as JSON, of torchdata's RandomSampler pickled.
All ran in one process, in turns, on one thread; {rounds} rounds, medians, and fastest of first and resume in brackets.
In turns, each finds the caches full of what the others left, which can double treenail's first and resume; "in a row" is
treenail by itself, {repeated} times."""


class Run(NamedTuple):
    """One run of a contestant, in seconds; None for what is not measured of it."""

    first: float
    per_index: float
    whole: float | None


class Row(NamedTuple):
    """What is told of a contestant: seconds, bytes, ratios."""

    first: float
    first_least: float
    memory: int | None
    resume: float
    resume_least: float
    each_for: float
    each_drain: float
    whole: float | None
    ratio: float | None
    state: int | None


def main() -> None:
    """Check, measure and print."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    if arguments.plot:
        _samplers_plot.draw(arguments.plot)
        return
    size: int = 200_000 if arguments.quick else arguments.size
    rounds: int = 1 if arguments.quick else arguments.rounds
    every = [torch_random(), *contestants()]
    check(every)
    rows = _race(every, size, rounds)
    for total in (size, HUGE):
        rows[f"treenail, N = {total:.0e}, in a row"] = _in_a_row(treenail("hashed"), total, max(rounds, 5))
    blocks = _race_blocks(size, rounds)

    facts = _report.environment(PACKAGES) | {"torch threads": str(torch.get_num_threads()), "rounds": str(rounds)}
    print(f"A shuffled epoch of {size:,} indices\n")
    print(_report.table(HEADER, [*(_cells(name, row) for name, row in rows.items()), TARGETS]))
    print("\n" + METHOD.format(size=size, some=SOME, rounds=rounds, repeated=REPEATED))
    print("\nBlocks as numpy arrays, one after the other; to reach: 25 M/s\n")
    print(
        _report.table(
            ("blocks", "M/s", "fastest M/s", "of randperm's"), [_block_cells(*each) for each in blocks.items()]
        )
    )
    print("\n" + _report.describe(facts))
    results = {"samplers": {name: row._asdict() for name, row in rows.items()}, "blocks": blocks}
    _report.write_json(arguments.json, "samplers", facts, results)


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=5)
    parser.add_argument("--size", type=_report.positive, default=10**7, help="indices of an epoch (default 10,000,000)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the documentation's picture as SVG, and no more"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 200,000 indices: that it runs, no figures")
    return parser


def _race(every: list[Contestant], size: int, rounds: int) -> dict[str, Row]:
    """Measure everybody, the reference first, in turns."""
    reference, *others = every
    others.insert(0, reference._replace(name=f"{reference.name} again"))
    looped = interleave(
        partial(_run, reference, size, _for), {each.name: partial(_run, each, size, _for) for each in others}, rounds
    )
    drained = _in_turns({each.name: partial(_run, each, size, _drain) for each in others}, rounds)
    resumed = _in_turns({each.name: partial(_time_resume, each, size) for each in others}, rounds)
    return {each.name: _row(each, size, looped[each.name], drained[each.name], resumed[each.name]) for each in others}


def _in_turns(runs: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let everybody run once a round; a first round is not counted."""
    found: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            gc.collect()
            outcome = run()
            if number > 0:
                found[name].append(outcome)
    return found


def _row(each: Contestant, size: int, looped: list[Turn[Run]], drained: list[Run], resumes: list[float]) -> Row:
    runs = [turn.own for turn in looped]
    wholes = [run.whole for run in runs if run.whole is not None]
    ratios = [
        turn.own.whole * 2 / (turn.before.whole + turn.after.whole)
        for turn in looped
        if turn.own.whole is not None and turn.before.whole is not None and turn.after.whole is not None
    ]
    firsts = [run.first for run in runs + drained]
    return Row(
        first=median(firsts),
        first_least=min(firsts),
        memory=growth(each.name.removesuffix(" again"), size),
        resume=median(resumes),
        resume_least=min(resumes),
        each_for=median(run.per_index for run in runs),
        each_drain=median(run.per_index for run in drained),
        whole=median(wholes) if wholes else None,
        ratio=median(ratios) if ratios else None,
        state=each.state_size(size, size * 9 // 10),
    )


def _in_a_row(each: Contestant, size: int, rounds: int) -> Row:
    """Measure one by itself, its code and data warm, also where the order is too long for the others."""
    part = each._replace(slow=True)
    begun = [_run(part, size, _for, 2) for _ in range(REPEATED)]
    resumed = [_time_resume(each, size) for _ in range(REPEATED)]
    looped = [_run(part, size, _for, MANY) for _ in range(rounds)]
    drained = [_run(part, size, _drain, MANY) for _ in range(rounds)]
    row = _row(each, size, [Turn(run, run, run) for run in looped], drained, resumed)
    firsts = [run.first for run in begun]
    return row._replace(first=median(firsts), first_least=min(firsts))


def _time_resume(each: Contestant, size: int) -> float:
    start = perf_counter()
    next(each.resume(size, size * 9 // 10))
    return perf_counter() - start


def _run(each: Contestant, size: int, consume: Callable[[Iterator[int]], object], some: int = SOME) -> Run:
    start = perf_counter()
    iterator = each.start(size)
    next(iterator)
    first = perf_counter()
    drawn = min(size, some if each.slow else size) - 1
    consume(islice(iterator, drawn) if drawn < size - 1 else iterator)
    end = perf_counter()
    return Run(first - start, (end - first) / drawn, None if each.slow else end - start)


def _for(indices: Iterator[int]) -> None:
    for _ in indices:
        pass


def _drain(indices: Iterator[int]) -> None:
    deque(indices, maxlen=0)


def _race_blocks(size: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return seconds per index, the least of it, and the median ratio to torch.randperm, by what made the blocks."""
    runs = {"randperm again": partial(_time_randperm, size)}
    for total in (size, HUGE):
        for block in BLOCKS:
            if block <= size:
                runs[f"treenail, N = {total:.0e}, blocks of {block:,}"] = partial(_time_blocks, total, block)
    turns = interleave(partial(_time_randperm, size), runs, max(rounds, 5))
    return {
        name: (
            median(turn.own for turn in series),
            min(turn.own for turn in series),
            median(turn.own * 2 / (turn.before + turn.after) for turn in series),
        )
        for name, series in turns.items()
    }


def _time_randperm(size: int) -> float:
    start = perf_counter()
    torch.randperm(size, generator=torch.Generator().manual_seed(SEED)).numpy()
    return (perf_counter() - start) / size


def _time_blocks(size: int, block: int) -> float:
    sampler = RandomSampler(size, SEED)
    count = math.ceil(min(size, MANY) / block)
    start = perf_counter()
    drawn = sum(len(sampler.indices(cursor, block).numpy()) for cursor in range(0, count * block, block))
    return (perf_counter() - start) / drawn


def _cells(name: str, row: Row) -> tuple[str, ...]:
    return (
        name,
        f"{_short(row.first * 1e3)} ({_short(row.first_least * 1e3)})",
        "-" if row.memory is None else _short(row.memory / 1e6),
        f"{_short(row.resume * 1e3)} ({_short(row.resume_least * 1e3)})",
        _short(1e-6 / row.each_for),
        _short(1e-6 / row.each_drain),
        "-" if row.whole is None else f"{row.whole:.2f}",
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        "-" if row.state is None else str(row.state),
    )


def _block_cells(name: str, figures: tuple[float, float, float]) -> tuple[str, ...]:
    middle, least, ratio = figures
    return name, f"{1e-6 / middle:.1f}", f"{1e-6 / least:.1f}", f"{1 / ratio:.2f}×"


def _short(number: float) -> str:
    """Three digits, as many as a noisy machine can tell."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    main()

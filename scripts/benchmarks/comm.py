"""What communication between ranks costs, beside torch's own collectives and the peers: time, and memory on rank 0."""

from __future__ import annotations

from argparse import ArgumentParser
from statistics import median
from typing import NamedTuple

import torch
from scripts.benchmarks import _comm_memory, _report
from scripts.benchmarks._comm_dicts import collectives_of_a_dict, race_agreement, race_dicts
from scripts.benchmarks._comm_memory import Peak
from scripts.benchmarks._comm_peers import scratch_directory, start_peers
from scripts.benchmarks._comm_race import HEADER, Times, faster, rows
from scripts.benchmarks._comm_results import KINDS, race_results
from scripts.benchmarks._comm_steps import BATCH, StepTimes, race_steps
from scripts.benchmarks._comm_tensors import WAYS, race_collectives, race_uneven
from scripts.benchmarks._report import Target

from treenail.adapters.comm import TorchCommunicator
from treenail.adapters.launch import spawn

PACKAGES = ("torch", "mmengine", "accelerate")
PARTS = ("results", "tensors", "dicts", "steps", "collectives", "memory")
METHOD = """\
Every world is processes of this machine in one gloo group, one thread each. In each, all ran in turns in the same processes,
the order changing from round to round; ranks start together from a barrier. Results were checked in a round that is not counted.
median, best  on rank 0; slowest rank: median of the rank that took longest in each round.
× ours, bests ratio of the medians and of the best rounds to treenail's (the first line): more than 1 is slower than treenail."""


class Settings(NamedTuple):
    """How much is measured."""

    parts: tuple[str, ...]
    rounds: int
    items: int
    nbytes: int
    scalars: int
    calls: int
    blocks: int
    block: int


class Found(NamedTuple):
    """What one world measured; empty where a part was not asked for."""

    results: dict[str, dict[str, Times]]
    tensors: dict[str, Times]
    dicts: dict[str, dict[str, Times]]
    agreement: dict[str, Times]
    collectives_of_a_dict: list[str]
    steps: StepTimes | None
    collectives: dict[str, dict[str, Times]]


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    settings = Settings(
        parts=tuple(arguments.only or PARTS),
        rounds=arguments.rounds,
        items=arguments.items,
        nbytes=arguments.mib * 2**20,
        scalars=200,
        calls=20,
        blocks=2 * arguments.rounds,
        block=50,
    )
    if arguments.quick:
        settings = settings._replace(rounds=1, items=20, nbytes=2**20, calls=2, blocks=1, block=5)
    targets: list[Target] = []
    results = {}
    for world_size in arguments.worlds:
        found = spawn(_measure, world_size, settings, backend="gloo")[0]
        peaks = {}
        if "memory" in settings.parts:
            ways = WAYS[:1] if arguments.quick else WAYS
            peaks = _comm_memory.peaks(ways, world_size, settings.nbytes)
        print(f"\n{world_size} processes\n{'=' * 11}")
        reached = [*_show(found, settings, world_size), *_show_peaks(peaks, settings, world_size)]
        targets += [each._replace(what=f"{world_size} processes: {each.what}") for each in reached]
        steps = found.steps._asdict() if found.steps else None
        results[str(world_size)] = found._asdict() | {"steps": steps, "peaks": peaks}

    facts = _report.environment(PACKAGES) | {"backend": "gloo", "rounds": str(settings.rounds)}
    print("\n" + METHOD)
    _report.tell(targets)
    print("\n" + _report.describe(facts))
    shown = [each._asdict() for each in targets]
    _report.write_json(arguments.json, "comm", facts, {"worlds": results, "targets": shown})


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=11)
    parser.add_argument("--worlds", type=_report.positive, nargs="+", default=[2, 4], help="numbers of processes (2 4)")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="measure these parts alone")
    parser.add_argument("--items", type=_report.positive, default=1000, help="dicts of each rank (default 1000)")
    parser.add_argument("--mib", type=_report.positive, default=64, help="MiB of each rank's tensors (default 64)")
    parser.add_argument("--quick", action="store_true", help="one round of little data: that it runs, no figures")
    return parser


def _measure(settings: Settings) -> Found:
    """Be a rank."""
    torch.set_num_threads(1)
    start_peers()
    communicator = TorchCommunicator()
    parts, rounds = settings.parts, settings.rounds
    with scratch_directory():
        of_a_dict: list[str] = []
        if "dicts" in parts:
            of_a_dict = collectives_of_a_dict(communicator, settings.scalars)
        return Found(
            results={kind: race_results(communicator, kind, settings.items, rounds) for kind in KINDS}
            if "results" in parts
            else {},
            tensors=race_uneven(communicator, settings.nbytes, rounds) if "tensors" in parts else {},
            dicts=race_dicts(communicator, settings.scalars, rounds, settings.calls) if "dicts" in parts else {},
            agreement=race_agreement(communicator, rounds, 5 * settings.calls) if "dicts" in parts else {},
            collectives_of_a_dict=of_a_dict,
            steps=race_steps(communicator, settings.blocks, settings.block) if "steps" in parts else None,
            collectives=race_collectives(communicator, settings.nbytes, rounds) if "collectives" in parts else {},
        )


def _show(found: Found, settings: Settings, world_size: int) -> list[Target]:
    """Print tables of times; return what was to be reached."""
    targets: list[Target] = []
    mib = settings.nbytes / 2**20
    for kind, times in found.results.items():
        _table(f"{settings.items} dicts of each rank to rank 0: {kind}", times)
        own = "treenail gather_list"
        targets += [
            _speed(f"gather of dicts of {kind}, × {peer}", times[own], times[peer], 20)
            for peer in ("torch gather_object", "mmengine collect_results")
            if peer in times
        ]
    if found.tensors:
        _table(f"{mib:g} MiB of float32 of each rank to rank 0, uneven, {mib * world_size:g} MiB in all", found.tensors)
        even = found.tensors["torch gather, flat and even"]
        targets += [
            _speed(f"{name}, × torch's gather of even flat ones", each, even, 0.8)
            for name, each in found.tensors.items()
            if name.startswith("treenail")
        ]
    for kind, times in found.dicts.items():
        _table(f"{settings.scalars} scalars summed over ranks, {kind}", times)
        what = f"all_reduce_dict of {kind}, × a loop of all_reduce"
        targets.append(_speed(what, times["treenail all_reduce_dict"], times["torch, all_reduce in a loop"], 10))
    if found.dicts:
        names = found.collectives_of_a_dict
        targets.append(
            Target("collectives of one all_reduce_dict, 1", f"{len(names)} ({', '.join(names)})", len(names) == 1)
        )
        _table("What it costs to agree", found.agreement)
    if found.steps is not None:
        targets.append(_show_steps(found.steps, settings.block))
    for name, times in found.collectives.items():
        _table(f"{name} of {mib:g} MiB", times)
    return targets


def _table(title: str, times: dict[str, Times]) -> None:
    print(f"\n{title}\n")
    print(_report.table(HEADER, rows(times, next(iter(times)))))


def _speed(what: str, own: Times, other: Times, least: float) -> Target:
    comparison = faster(own.first, other.first)
    return Target(f"{what}, ≥ {least:g}×", str(comparison), comparison.medians >= least)


def _show_steps(steps: StepTimes, block: int) -> Target:
    around = [(one + other) / 2 for one, other in zip(steps.bare, steps.again, strict=True)]
    over = [own / bare - 1 for own, bare in zip(steps.own, around, strict=True)]
    noise = median(abs(one / other - 1) for one, other in zip(steps.bare, steps.again, strict=True))
    header = ("", "median ms", "best ms")
    lines = [
        (name, f"{median(series) * 1e3:.2f}", f"{min(series) * 1e3:.2f}")
        for name, series in (
            ("bare DDP loop", steps.bare),
            ("bare again", steps.again),
            ("treenail, default hooks", steps.own),
        )
    ]
    print(
        f"\nA training step: {steps.parameters / 1e6:.1f} million parameters, {BATCH} samples a rank; in turns of {block} "
        "steps, slowest rank\n"
    )
    print(_report.table(header, lines))
    middle, best = median(over), min(steps.own) / min(*steps.bare, *steps.again) - 1
    told = f"{middle:+.1%} (bests {best:+.1%}; two bare loops differ by {noise:.1%})"
    return Target("a step over bare DDP, ≤ 2 %", told, middle <= 0.02)


def _show_peaks(peaks: dict[str, Peak], settings: Settings, world_size: int) -> list[Target]:
    if not peaks:
        return []
    mib = settings.nbytes / 2**20
    print(f"\nPeak memory on rank 0, in units of the result of {mib * world_size:g} MiB; processes of their own\n")
    header = ("", "growth", "with its own share")
    print(_report.table(header, [(name, f"{peak.growth:.2f}", f"{peak.whole:.2f}") for name, peak in peaks.items()]))
    return [
        Target(
            f"peak memory of {name}, with its own share, ≤ 2.2 of the result", f"{peak.whole:.2f}", peak.whole <= 2.2
        )
        for name, peak in peaks.items()
        if name.startswith("treenail")
    ]


if __name__ == "__main__":
    main()

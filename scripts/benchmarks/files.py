"""What files cost, local, in an object store and in the cache, beside plain Python, obstore, boto3, fsspec and mmengine."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scripts.benchmarks import _files_cache, _files_local, _files_s3, _report
from scripts.benchmarks._files_alone import Alone
from scripts.benchmarks._files_local import MIB, unit
from scripts.benchmarks._files_server import FULL, OBJECT_SIZE, PART, QUICK, Scale, serving
from scripts.benchmarks._report import Target
from scripts.benchmarks._timing import Figures, Turn, compare

PACKAGES = ("obstore", "boto3", "s3fs", "fsspec", "mmengine", "urllib3")
PARTS = ("local", "lists", "many", "large", "memory", "keys", "cache")
SERVED = frozenset(PARTS[2:])
BOUND = 2 * PART * _files_s3.PARTS  # bytes
SLACK = 2 * MIB  # by which two processes that do the same may differ
METHOD = """\
The store is nginx on loopback, one process, which answers as S3 does; its files are in memory. Bare obstore has the
part size ({part} MiB) and the parts at once ({parts}; {ranges} ranges) of treenail. All ran in one process, in turns, the order
changing from round to round. "of …" is the median of the ratios to the reference's runs just before and after, and
"again" shows the noise; against others, a target has the median of the rounds' ratios. Memory: by how much a process of
its own grows at most."""
Races = Mapping[str, Sequence[Turn[float]]]


class Settings(NamedTuple):
    """How much is measured, and where."""

    rounds: int
    quick: bool
    scale: Scale
    directory: Path | None


class Part(NamedTuple):
    """What one part found: its tables as text, targets, and figures for JSON."""

    text: str
    targets: list[Target]
    figures: object


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    scale = QUICK if arguments.quick else FULL
    settings = Settings(1 if arguments.quick else arguments.rounds, arguments.quick, scale, arguments.directory)
    began, load = time.monotonic(), os.getloadavg()
    targets: list[Target] = []
    figures: dict[str, object] = {}
    for name, part in _measured(arguments.parts or PARTS, settings):
        print(f"\n{part.text}", flush=True)
        targets += part.targets
        figures[name] = part.figures
    facts = _report.environment(PACKAGES) | {
        "rounds": str(settings.rounds),
        "load": f"{load[0]:.1f} before, {os.getloadavg()[0]:.1f} after",
        "minutes": f"{(time.monotonic() - began) / 60:.1f}",
    }
    method = METHOD.format(part=PART // MIB, parts=_files_s3.PARTS, ranges=_files_s3.PARTS // 2)
    print(f"\n{method}\n\n{_report.describe(facts)}\n")
    rows = [(each.what, each.found, "yes" if each.met else "NO") for each in targets]
    print(_report.table(("target", "found", "met"), rows))
    shown = [each._asdict() for each in targets]
    _report.write_json(arguments.json, "files", facts, {"parts": figures, "targets": shown})


def _parser() -> ArgumentParser:
    parser = _report.options(__doc__, rounds=9)
    parser.add_argument("--parts", choices=PARTS, nargs="+", help="measure these alone")
    parser.add_argument(
        "--directory", type=Path, help="where all files are made (temporary files' directory; the store's: /dev/shm)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of few and small files: that it runs")
    return parser


def _measured(names: Sequence[str], settings: Settings) -> Iterator[tuple[str, Part]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="treenail-bench-", dir=settings.directory)))
        endpoint = ""
        if SERVED & {*names}:
            memory = Path("/dev/shm") if settings.directory is None and Path("/dev/shm").is_dir() else folder
            served = stack.enter_context(TemporaryDirectory(prefix="treenail-bench-", dir=memory))
            endpoint = stack.enter_context(serving(Path(served), settings.scale))
        for name in names:
            place = folder / name
            place.mkdir()
            match name:
                case "local":
                    yield name, _local(settings, place)
                case "lists":
                    yield name, _lists(settings, place)
                case "many":
                    yield name, _many(settings, endpoint)
                case "large":
                    yield name, _large(settings, endpoint)
                case "memory":
                    yield name, _memory(settings, endpoint)
                case "keys":
                    yield name, _keys(settings, endpoint)
                case _:
                    yield name, _cache(settings, endpoint, place)


def _local(settings: Settings, place: Path) -> Part:
    found = _files_local.measure(settings.rounds, place, quick=settings.quick)
    title = "Local files: speed as a multiple of plain Python's with the same durability (in brackets its time)"
    targets = [
        _speed(f"local {race}, of plain Python", 1 / figures["treenail"].ratio, 0.95) for race, figures in found.items()
    ]
    return Part(f"{title}\n\n{_files_local.report(found, settings.rounds)}", targets, found)


def _lists(settings: Settings, place: Path) -> Part:
    count = _files_local.QUICK_MANY if settings.quick else _files_local.MANY
    found = _files_local.measure_lists(place, quick=settings.quick)
    return Part(f"Lists of {count:,} local files\n\n{_table_alone(found)}", [], found)


def _many(settings: Settings, endpoint: str) -> Part:
    scale = settings.scale
    races = _files_s3.many(endpoint, scale, settings.rounds)
    own = "treenail read_many, 16 at once"
    what = f"{scale.objects:,} objects of {OBJECT_SIZE:,} bytes"
    targets = [_speed(f"{what}, of obstore, 16 at once", 1 / compare(races[own]).ratio, 0.9)]
    targets += [
        _speed(f"{what}, of {peer}", faster(races, own, peer), least)
        for peer, least in (("obstore, one by one", 0.9), ("boto3, one by one", 3), ("s3fs, one by one", 3))
        if peer in races
    ]
    return Part(f"{what} are read\n\n{_table(races, scale.objects * OBJECT_SIZE)}", targets, races)


def _large(settings: Settings, endpoint: str) -> Part:
    size, rounds = settings.scale.large, min(settings.rounds, 5)
    texts, targets, figures = [], [], {}
    for title, race in (("download", _files_s3.download), ("upload", _files_s3.upload)):
        races = figures[title] = race(endpoint, settings.scale, rounds)
        texts.append(f"{title.capitalize()} of {size // MIB:,} MiB, {rounds} rounds\n\n{_table(races, size)}")
        own = "treenail stream" if title == "download" else "treenail write"
        targets.append(_speed(f"{title} of {size // MIB:,} MiB, of obstore", 1 / compare(races[own]).ratio, 0.9))
    return Part("\n\n".join(texts), targets, figures)


def _memory(settings: Settings, endpoint: str) -> Part:
    size = settings.scale.large
    found = {task: _files_s3.grown(task, endpoint, size) for task in _files_s3.LARGE}
    targets = [
        Target(
            f"{task.split()[1]} of {size // MIB:,} MiB: memory, ≤ 2 × part size × parts at once = {BOUND // MIB} MiB",
            f"{found[task].growth / MIB:.0f} MiB",
            found[task].growth <= BOUND,
        )
        for task in found
        if task.startswith("treenail")
    ]
    return Part(f"Memory of {size // MIB:,} MiB that pass\n\n{_table_alone(found)}", targets, found)


def _keys(settings: Settings, endpoint: str) -> Part:
    keys = settings.scale.keys
    found = {"treenail, a tenth of them": _files_s3.grown("list treenail", endpoint, keys // 10)}
    found |= {name: _files_s3.grown(f"list {name}", endpoint, keys) for name in _files_s3.LISTS}
    part, whole = found["treenail, a tenth of them"].growth, found["treenail"].growth
    what = f"list of {keys:,} keys: memory, ≤ that of a tenth of them + {SLACK // MIB} MiB"
    target = Target(what, f"{whole / MIB:.1f} MiB, a tenth {part / MIB:.1f} MiB", whole <= part + SLACK)
    return Part(f"Lists of {keys:,} keys in the store\n\n{_table_alone(found)}", [target], found)


def _cache(settings: Settings, endpoint: str, place: Path) -> Part:
    found = _files_cache.measure(endpoint, place, settings.rounds, times=10 if settings.quick else 100)
    rows = [(name, unit(each.median), f"{each.ratio:.2f}×") for name, each in found.items()]
    validated, asked = found["treenail, validated by S3"], found["obstore's HEAD and a plain read"]
    ratios = {
        "cache hit of 1 MB within max_age, of a local read": found["treenail, within max_age"].ratio,
        "cache hit of 1 MB validated, of a local read": validated.ratio,
        "cache hit of 1 MB validated, of obstore's HEAD and a local read": validated.ratio / asked.ratio,
    }
    targets = [Target(f"{what}, ≤ 2×", f"{ratio:.2f}×", ratio <= 2) for what, ratio in ratios.items()]
    table = _report.table(("", "a read", "of plain"), rows)
    return Part(f"Reads of 1 MB from the cache; time as a multiple of a plain local read's\n\n{table}", targets, found)


def faster(races: Races, own: str, peer: str) -> float:
    """Return how many times as fast as a peer a contestant is: the median of the rounds."""
    return median(other.own / each.own for each, other in zip(races[own], races[peer], strict=True))


def _speed(what: str, found: float, least: float) -> Target:
    return Target(f"{what}, ≥ {least:g}×", f"{found:.2f}×", found >= least)


def _table(races: Races, size: int) -> str:
    every: dict[str, Figures] = {name: compare(turns) for name, turns in races.items()}
    rows = [
        (name, unit(each.median), f"{size / each.median / MIB:,.0f}", f"{1 / each.ratio:.2f}×")
        for name, each in every.items()
    ]
    return _report.table(("", "time", "MiB/s", "of obstore"), rows)


def _table_alone(found: Mapping[str, Alone]) -> str:
    rows = [(name, f"{each.seconds:.2f}", f"{each.growth / MIB:.1f}") for name, each in found.items()]
    return _report.table(("", "seconds", "memory MiB"), rows)


if __name__ == "__main__":
    main()

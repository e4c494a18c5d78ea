"""What local files cost: reads, durable writes and lists, beside plain Python and the peers."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import NamedTuple
from uuid import uuid4

from scripts.benchmarks import _report
from scripts.benchmarks._timing import Figures, compare, interleave

PACKAGES = ("mmengine", "fsspec", "obstore")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"4 KB": 4 * KIB, "1 MB": MIB, "1 GB": GIB}
QUICK_SIZES = {"4 KB": 4 * KIB, "1 MB": MIB, "16 MB": 16 * MIB}
BUDGET = 48 * MIB  # bytes that a turn of a size reads, at least one file
MANY = 100_000
_RESET = Path("/proc/self/clear_refs")
METHOD = """\
plain    open(…).read(); written durably: a new file, flush, fsync, os.replace, fsync of the directory.
fast     open(…).write() over the old file: a power cut or a kill in the midst of it loses old and new. For information.
of plain median of the ratios of speeds to the runs of plain just before and after; "plain again" shows the noise.
ours     LocalFiles of a directory, which makes sure that no symbolic link leads out of it; "/": of the whole disk.
The peers' writes are not durable, as far as is known: obstore renames and does not flush; mmengine and fsspec write in place.
All in one process, in turns, {rounds} rounds, on a file three directories below the root, in the system's cache."""


class Store(NamedTuple):
    """A contestant.

    Args:
        read: Returns the content of a path.
        write: Makes a path hold bytes; None where it cannot.
        durable: Whether the write lasts as plain's does.
    """

    read: Callable[[str], object]
    write: Callable[[str, bytes], object] | None
    durable: bool


def measure(rounds: int, directory: Path | None = None, *, quick: bool = False) -> dict[str, dict[str, Figures]]:
    """Race everybody; return "read 4 KB" … → contestant → figures in seconds a file.

    Args:
        rounds: How many turns of each are counted.
        directory: On which disk; the temporary directory without it.
        quick: Small files and few: that it runs, no figures.
    """
    found: dict[str, dict[str, Figures]] = {}
    root = Path(mkdtemp(prefix="treenail-bench-", dir=directory))
    try:
        stores = contestants(root)
        for name, size in (QUICK_SIZES if quick else SIZES).items():
            path = root / "a/b/c" / str(size)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = os.urandom(min(size, 16 * MIB)) * max(1, size // (16 * MIB))
            path.write_bytes(data)
            counted = min(rounds, 3) if size >= GIB else rounds
            times = max(1, min(BUDGET // size, 40 if quick else 2000))
            reads: dict[str, Callable[[], float]] = {
                each: partial(_time, partial(store.read, str(path)), times) for each, store in stores.items()
            }
            found[f"read {name}"] = _race(reads, counted)
            writes: dict[str, Callable[[], float]] = {
                each: partial(_time, partial(store.write, str(path), data), max(1, times // 20))
                for each, store in stores.items()
                if store.write is not None
            }
            found[f"write {name}"] = _race(writes, counted)
            path.unlink()
    finally:
        shutil.rmtree(root)
    return found


def measure_lists(count: int = MANY, directory: Path | None = None) -> dict[str, tuple[float, float]]:
    """Return contestant → (seconds, bytes by which a fresh process grows) of listing `count` files in 100 directories."""
    root = Path(mkdtemp(prefix="treenail-bench-", dir=directory))
    try:
        found = {}
        for kind, directories in (("in 100 directories", 100), ("in one directory", 1)):
            place = root / kind
            for number in range(directories):
                (place / str(number)).mkdir(parents=True)
                for image in range(count // directories):
                    (place / f"{number}/sample-{image:06}.jpg").touch()
            for name in LISTS:
                found[f"{name}, {kind}"] = _in_a_fresh_process(name, place, count)
        return found
    finally:
        shutil.rmtree(root)


def contestants(root: Path) -> dict[str, Store]:
    """Return everybody who is installed; plain first."""
    from treenail.adapters.files import LocalFiles

    ours, disk = LocalFiles(root), LocalFiles("/")
    lead = len(str(root)) + 1
    found = {
        "plain": Store(_read_plainly, _write_durably, True),
        "plain again": Store(_read_plainly, _write_durably, True),
        "treenail": Store(lambda path: ours.read(path[lead:]), lambda path, data: ours.write(path[lead:], data), True),
        "treenail /": Store(lambda path: disk.read(path[1:]), lambda path, data: disk.write(path[1:], data), True),
        "fast": Store(_read_plainly, _write_fast, False),
    }
    if find_spec("mmengine"):
        from mmengine.fileio import LocalBackend

        backend = LocalBackend()
        found["mmengine"] = Store(backend.get, lambda path, data: backend.put(data, path), False)
    if find_spec("fsspec"):
        from fsspec.implementations.local import LocalFileSystem

        system = LocalFileSystem()
        found["fsspec"] = Store(system.cat_file, system.pipe_file, False)
    if find_spec("obstore"):
        import obstore
        from obstore.store import LocalStore

        store = LocalStore(str(root))
        found["obstore"] = Store(
            lambda path: obstore.get(store, path[lead:]).bytes(),
            lambda path, data: obstore.put(store, path[lead:], data, use_multipart=False),
            False,
        )
    return found


def report(races: dict[str, dict[str, Figures]], lists: dict[str, tuple[float, float]], rounds: int) -> str:
    """Lay out what was measured."""
    names = list(next(iter(races.values()), {}))
    rows = []
    for race, figures in races.items():
        row = [f"{1 / each.ratio:.2f}×" if (each := figures.get(name)) else "-" for name in names]
        rows.append((f"{race} ({_unit(figures['plain again'].median)})", *row))
    listed = [(name, f"{seconds:.2f}", f"{size / MIB:.1f}") for name, (seconds, size) in lists.items()]
    parts = [
        "Speed as a multiple of plain Python's (in brackets its time); to reach (treenail): 0.95×\n",
        _report.table(("", *names), rows),
        "\n" + METHOD.format(rounds=rounds),
        f"\nLists of {MANY:,} files, sorted; a fresh process, which grows by\n",
        _report.table(("list", "seconds", "MB"), listed),
    ]
    return "\n".join(parts)


def _race(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, Figures]:
    reference = runs.pop("plain")
    return {name: compare(turns) for name, turns in interleave(reference, runs, rounds).items()}


def _time(act: Callable[[], object], times: int) -> float:
    start = perf_counter()
    for _ in range(times):
        act()
    return (perf_counter() - start) / times


def _read_plainly(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write_durably(path: str, data: bytes) -> None:
    temporary = f"{path}.{uuid4().hex}"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_fast(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _unit(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


def _list_treenail(root: str) -> Iterable[str]:
    from treenail.adapters.files import LocalFiles

    return LocalFiles(root).list()


def _list_walk(root: str) -> Iterable[str]:
    return sorted(os.path.join(top, name) for top, _, names in os.walk(root) for name in names)


def _list_mmengine(root: str) -> Iterable[str]:
    from mmengine.fileio import LocalBackend

    listed: Iterable[str] = LocalBackend().list_dir_or_file(root, list_dir=False, recursive=True)
    return listed


def _list_fsspec(root: str) -> Iterable[str]:
    from fsspec.implementations.local import LocalFileSystem

    listed: Iterable[str] = LocalFileSystem().find(root)
    return listed


def _list_obstore(root: str) -> Iterable[str]:
    import obstore
    from obstore.store import LocalStore

    return (each["path"] for chunk in obstore.list(LocalStore(root)) for each in chunk)


_EVERY_LIST = {
    "sorted os.walk": (_list_walk, "os"),
    "treenail": (_list_treenail, "treenail"),
    "mmengine (unsorted)": (_list_mmengine, "mmengine"),
    "fsspec": (_list_fsspec, "fsspec"),
    "obstore (unsorted)": (_list_obstore, "obstore"),
}
LISTS = {name: function for name, (function, package) in _EVERY_LIST.items() if find_spec(package)}


def _in_a_fresh_process(name: str, root: Path, count: int) -> tuple[float, float]:
    command = [sys.executable, "-P", "-m", __spec__.name, name, str(root), str(count)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), float(said[1])


def _list_here(name: str, root: str, count: int) -> None:
    """Print seconds and growth in bytes of one list, in this process."""
    empty = mkdtemp()
    try:
        for _ in LISTS[name](empty):  # its code is loaded
            pass
    finally:
        os.rmdir(empty)
    if _RESET.exists():
        _RESET.write_text("5", encoding="ascii")  # the peak becomes what is there now
    before = _resident("VmRSS")
    start = perf_counter()
    found = sum(1 for _ in LISTS[name](root))
    seconds = perf_counter() - start
    if found != count:
        raise SystemExit(f"{name} lists {found} files of {count}")
    print(seconds, _resident("VmHWM") - before)


def _resident(field: str) -> float:
    """Return a figure of this process's memory in bytes; not a number where the system is not Linux."""
    if not _RESET.exists():
        return math.nan
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * KIB if found else math.nan


if __name__ == "__main__":
    _list_here(sys.argv[1], sys.argv[2], int(sys.argv[3]))

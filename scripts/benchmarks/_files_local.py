"""What local files cost: reads, durable writes and lists, beside plain Python and the peers."""

from __future__ import annotations

import os
import shutil
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
from scripts.benchmarks._files_alone import Alone, alone, tell
from scripts.benchmarks._timing import Figures, compare, interleave

PACKAGES = ("mmengine", "fsspec", "obstore")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"4 KB": 4 * KIB, "1 MB": MIB, "1 GB": GIB}
QUICK_SIZES = {"4 KB": 4 * KIB, "1 MB": MIB}
BUDGET = 8 * MIB  # bytes that a turn of a size reads, at least one file
SHORT_TURNS = 12  # in a round
MANY, QUICK_MANY = 100_000, 1000
METHOD = """\
plain    open(…).read(); written durably: a new file, flush, fsync, os.replace, fsync of the directory.
fast     open(…).write() over the old file: a power cut or a kill in the midst of it loses old and new. For information.
of plain median of the ratios of speeds to the runs of plain just before and after; "plain again" shows the noise.
ours     LocalFiles of a directory, which makes sure that no symbolic link leads out of it; "/": of the whole disk.
The peers' writes are not durable, as far as is known: obstore renames and does not flush; mmengine and fsspec write in place.
All in one process, in turns, {rounds} rounds ({short} turns in each for files below 1 GB), on a file three directories below the
root, in the system's cache."""


class Store(NamedTuple):
    """A contestant.

    Args:
        read: Returns the content of a path.
        write: Makes a path hold bytes.
    """

    read: Callable[[str], object]
    write: Callable[[str, bytes], object]


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
            # Many short turns: what others do to the disk for a second spoils few of them.
            counted = min(rounds, 5) if size >= GIB else rounds if quick else SHORT_TURNS * rounds
            times = max(1, min(BUDGET // size, 20 if quick else 200))
            reads: dict[str, Callable[[], float]] = {
                each: partial(_time, partial(store.read, str(path)), times) for each, store in stores.items()
            }
            found[f"read {name}"] = _race(reads, counted)
            writes: dict[str, Callable[[], float]] = {
                each: partial(_time, partial(store.write, str(path), data), max(1, times // 20))
                for each, store in stores.items()
            }
            found[f"write {name}"] = _race(writes, counted)
            path.unlink()
    finally:
        shutil.rmtree(root)
    return found


def measure_lists(directory: Path | None = None, *, quick: bool = False) -> dict[str, Alone]:
    """Return "contestant, in 100 directories" … → what a fresh process takes to list 100,000 files, or 1,000 quickly."""
    count = QUICK_MANY if quick else MANY
    root = Path(mkdtemp(prefix="treenail-bench-", dir=directory))
    try:
        found = {}
        for kind, directories in (("in one directory", 1), ("in 100 directories", 100))[: 1 if quick else 2]:
            place = root / kind
            for number in range(directories):
                (place / str(number)).mkdir(parents=True)
                for image in range(count // directories):
                    (place / f"{number}/sample-{image:06}.jpg").touch()
            for name in LISTS:
                found[f"{name}, {kind}"] = alone(__spec__.name, name, str(place), str(count))
        return found
    finally:
        shutil.rmtree(root)


def contestants(root: Path) -> dict[str, Store]:
    """Return everybody who is installed; plain first."""
    from treenail.adapters.files import LocalFiles

    ours, disk = LocalFiles(root), LocalFiles("/")
    lead = len(str(root)) + 1
    found = {
        "plain": Store(_read_plainly, _write_durably),
        "plain again": Store(_read_plainly, _write_durably),
        "treenail": Store(lambda path: ours.read(path[lead:]), lambda path, data: ours.write(path[lead:], data)),
        "treenail /": Store(lambda path: disk.read(path[1:]), lambda path, data: disk.write(path[1:], data)),
        "fast": Store(_read_plainly, _write_fast),
    }
    if find_spec("mmengine"):
        from mmengine.fileio import LocalBackend

        backend = LocalBackend()
        found["mmengine"] = Store(backend.get, lambda path, data: backend.put(data, path))
    if find_spec("fsspec"):
        from fsspec.implementations.local import LocalFileSystem

        system = LocalFileSystem()
        found["fsspec"] = Store(system.cat_file, system.pipe_file)
    if find_spec("obstore"):
        import obstore
        from obstore.store import LocalStore

        store = LocalStore(str(root))
        found["obstore"] = Store(
            lambda path: obstore.get(store, path[lead:]).bytes(),
            lambda path, data: obstore.put(store, path[lead:], data, use_multipart=False),
        )
    return found


def report(races: dict[str, dict[str, Figures]], rounds: int) -> str:
    """Lay out reads and writes."""
    names = list(next(iter(races.values())))
    rows = [
        (f"{race} ({unit(figures['plain again'].median)})", *(f"{1 / figures[name].ratio:.2f}×" for name in names))
        for race, figures in races.items()
    ]
    return f"{_report.table(('', *names), rows)}\n\n{METHOD.format(rounds=rounds, short=SHORT_TURNS)}"


def unit(seconds: float) -> str:
    """Return a time as text."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:,.0f} µs"
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


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


def _list_here(name: str, root: str, count: int) -> None:
    """Tell what one list takes, in this process."""
    empty = mkdtemp()
    try:
        for _ in LISTS[name](empty):  # its code is loaded
            pass
    finally:
        os.rmdir(empty)
    tell(lambda: _count(name, root, count))


def _count(name: str, root: str, count: int) -> None:
    found = sum(1 for _ in LISTS[name](root))
    if found != count:
        raise SystemExit(f"{name} lists {found} files of {count}")


if __name__ == "__main__":
    _list_here(sys.argv[1], sys.argv[2], int(sys.argv[3]))

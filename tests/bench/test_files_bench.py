"""The benchmark `files` runs on few and small files, finds contents right, and says what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.benchmarks._files_local import unit
from scripts.benchmarks._timing import Turn
from scripts.benchmarks.files import faster

from tests.files.servers import find_server

ROOT = Path(__file__).parents[2]


def test_parts_run_and_leave_no_files(tmp_path: Path) -> None:
    find_server("nginx")
    parts = ("local", "many", "memory", "cache")
    figures, place = tmp_path / "figures.json", tmp_path / "place"
    place.mkdir()
    command = [
        sys.executable,
        "-m",
        "scripts.benchmarks.files",
        "--quick",
        "--directory",
        str(place),
        "--parts",
        *parts,
    ]
    done = subprocess.run(
        [*command, "--json", str(figures)],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())
    found = json.loads(figures.read_text(encoding="utf-8"))["results"]
    assert tuple(found["parts"]) == parts
    assert found["targets"]
    lines = done.stdout.splitlines()
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("target ")) + 2 :]
    for target, line in zip(found["targets"], table, strict=True):
        assert line.split() == [*target["what"].split(), *target["found"].split(), "yes" if target["met"] else "NO"]


def test_how_many_times_as_fast_is_the_median_of_the_rounds() -> None:
    own = [Turn(seconds, 0.0, 0.0) for seconds in (1.0, 2.0, 1.0)]
    peer = [Turn(seconds, 0.0, 0.0) for seconds in (3.0, 4.0, 10.0)]
    assert faster({"own": own, "peer": peer}, "own", "peer") == 3.0


def test_times_are_told_in_their_unit() -> None:
    assert [unit(seconds) for seconds in (12e-6, 0.0123, 2.5)] == ["12 µs", "12.3 ms", "2.50 s"]

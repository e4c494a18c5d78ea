"""The benchmark `comm` runs, finds results right, and writes what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from scripts.benchmarks._comm_race import Times, faster, rows
from scripts.benchmarks._comm_tensors import FIELDS, PIECES, Uneven

ROOT = Path(__file__).parents[2]


def test_a_part_runs_on_two_processes(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "scripts.benchmarks.comm", "--quick", "--worlds", "2", "--only", "dicts"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json", str(figures)],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json"]  # peers' directories are gone
    found = json.loads(figures.read_text(encoding="utf-8"))["results"]
    assert found["worlds"]["2"]["collectives_of_a_dict"] == ["c10d::allgather_"]
    for target in found["targets"]:
        assert target["what"] in done.stdout
        assert isinstance(target["met"], bool)
    assert found["targets"]


def test_ratios_are_of_medians_and_of_the_best_rounds() -> None:
    own, other = Times([2.0, 1.0, 4.0], [2.0, 5.0, 4.0]), Times([30.0, 20.0, 40.0], [30.0, 20.0, 40.0])
    assert faster(own.first, other.first) == (15.0, 20.0)
    (_, *figures), (_, *others) = rows({"own": own, "other": other}, "own")
    assert figures == ["2,000", "1,000", "4,000", "1", "1"]
    assert others == ["30,000", "20,000", "30,000", "15", "20"]


def test_uneven_tensors_have_the_same_bytes_on_every_rank_and_other_rows() -> None:
    for world_size in (2, 4):
        every = [Uneven(rank, world_size, 2**20) for rank in range(world_size)]
        assert {sum(each.nbytes for each in uneven.data.values()) for uneven in every} == {every[0].flat.nbytes}
        assert abs(every[0].flat.nbytes - 2**20) <= 40 * 1024
        for field in FIELDS:
            assert len({len(uneven.data[field]) for uneven in every}) == world_size
        assert {sum(every[0].pieces(rank)) for rank in range(world_size)} == {every[0].rows}
        assert len(every[0].pieces(1)) == PIECES
        gathered = {field: torch.cat([uneven.data[field] for uneven in every]) for field in FIELDS}
        every[0].check(gathered)

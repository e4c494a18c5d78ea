"""Files that give way: whole lines, in order, no more of them than shall stay."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.logging import JsonLog, RotatingFile, rotated
from treenail.kernel import FileError


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 30), max_size=40),
    limit=st.integers(1, 60),
    keep=st.integers(0, 3),
    reopened=st.sets(st.integers(0, 39)),
)
def test_the_last_lines_are_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, keep: int, reopened: set[int]
) -> None:
    path = tmp_path_factory.mktemp("rotating") / "run.log"
    lines = [f"{number:03d}".encode() + b"." * size + b"\n" for number, size in enumerate(sizes)]
    file = RotatingFile(path, max_bytes=limit, keep=keep)
    for number, line in enumerate(lines):
        if number in reopened:
            file.close()
            file = RotatingFile(path, max_bytes=limit, keep=keep)
        file.write(line)
    file.close()
    files = rotated(path)
    assert len(files) <= keep + 1
    assert sorted(path.parent.iterdir()) == sorted(files)
    kept = [each.read_bytes().splitlines(keepends=True) for each in files]
    flat = [line for each in kept for line in each]
    assert flat == lines[len(lines) - len(flat) :]
    assert all(sum(map(len, each)) <= limit or len(each) == 1 for each in kept)
    assert all(sum(map(len, each)) + len(after[0]) > limit for each, after in pairwise(kept))


def test_a_log_of_json_lines_rotates(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl", max_bytes=300, keep=9)
    for step in range(20):
        log.logger.info("train", step=step)
    log.close()
    files = rotated(tmp_path / "log.jsonl")
    assert len(files) > 2
    steps = [json.loads(line)["step"] for each in files for line in each.read_text().splitlines()]
    assert steps == list(range(20))


def test_a_closed_file_and_a_wrong_setting_are_named(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "run.log")
    file.close()
    file.close()
    with pytest.raises(FileError, match=r"run\.log: the log is closed"):
        file.write(b"late\n")
    with pytest.raises(ValueError, match="max_bytes is 0"):
        RotatingFile(tmp_path / "run.log", max_bytes=0)
    with pytest.raises(ValueError, match="keep is -1"):
        RotatingFile(tmp_path / "run.log", keep=-1)
    with pytest.raises(ValueError, match="mode is 'r'"):
        RotatingFile(tmp_path / "run.log", "r")  # type: ignore[arg-type]  # the mistake


def test_a_line_that_a_crash_tore_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "to')
    log = JsonLog(path)
    log.logger.info("train", step=3)
    log.close()
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"step": 1}', '{"step": 2, "to']
    assert json.loads(lines[2])["step"] == 3


def test_without_a_limit_a_file_grows(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "run.log")
    for _ in range(1000):
        file.write(b"x" * 99 + b"\n")
    file.close()
    assert (tmp_path / "run.log").stat().st_size == 100_000
    assert rotated(tmp_path / "run.log") == [tmp_path / "run.log"]

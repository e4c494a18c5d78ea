"""Results of ranks are dealt out in turn and cut to the dataset's size, over the network and through a shared directory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comm.worlds import on_ranks, refusal, same
from treenail.adapters.comm.results import collect_results, interleaved
from treenail.kernel import Communicator


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), size=st.integers(0, 12))
@settings(deadline=None, max_examples=60)
def test_results_come_in_turn_and_are_cut(lengths: list[int], size: int) -> None:
    parts = [
        [{"rank": rank, "x": torch.full((item,), float(rank))} for item in range(length)]
        for rank, length in enumerate(lengths)
    ]
    longest = max(lengths)
    expected = [part[item] for item in range(longest) for part in parts if item < len(part)][:size]
    found = on_ranks(len(parts), lambda communicator: collect_results(communicator, parts[communicator.rank], size))
    assert same(found, [expected, *([None] * (len(parts) - 1))])


@pytest.mark.parametrize("shared", [False, True])
def test_the_example_of_mmengine(tmp_path: Path, shared: bool) -> None:
    parts: list[list[object]] = [["foo", {1: 2}], [24, {"a": "b"}]]
    tmpdir = tmp_path if shared else None
    found = on_ranks(2, lambda communicator: collect_results(communicator, parts[communicator.rank], 4, "cpu", tmpdir))
    assert same(found, [["foo", 24, {1: 2}, {"a": "b"}], None])


def test_nothing_is_left_in_the_directory(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    made = tmp_path / "made" / "here"

    def program(communicator: Communicator) -> object:
        first = collect_results(communicator, [communicator.rank, torch.ones(2)], 9, tmpdir=tmp_path)
        second = collect_results(communicator, [communicator.rank], 9, tmpdir=str(made))
        return first, second

    found = on_ranks(3, program)
    assert same(found[0], ([0, 1, 2, *[torch.ones(2)] * 3], [0, 1, 2]))
    assert found[1:] == [(None, None)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_mistakes_are_errors_on_every_rank_and_leave_nothing(tmp_path: Path) -> None:
    lock = threading.Lock()

    def of(*arguments: object, results: object = ()) -> str:
        return refusal(2, lambda communicator: collect_results(communicator, list(results), *arguments))  # type: ignore[arg-type,call-overload]  # wrong on purpose

    assert "there is no device 'tpu'" in of(1, "tpu")
    assert "leave tmpdir out" in of(1, "gpu", tmp_path)
    assert "do not communicate through GPUs" in of(1, "gpu")
    assert "size is -1" in of(-1)
    assert "type _thread.lock cannot be sent" in of(1, "cpu", tmp_path, results=[lock])
    (tmp_path / "file").write_text("")
    assert "tmpdir cannot be written" in of(1, "cpu", tmp_path / "file" / "below")
    differing = refusal(2, lambda communicator: collect_results(communicator, [1], communicator.rank))
    assert "size is 1 on rank 1, 0 on rank 0" in differing
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_an_error_on_every_rank(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "tmpdir cannot be written" in refusal(
        2, lambda communicator: collect_results(communicator, [1], 2, tmpdir=tmp_path)
    )


def test_interleaving_keeps_what_is_none() -> None:
    parts: list[list[int | None]] = [[None, 1], [None]]
    assert interleaved(parts) == [None, None, 1]
    nothing: list[list[int]] = [[], []]
    assert interleaved(nothing) == []

"""Runs that go on with other hooks than they were begun with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.hooks.small_runs import small_run
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import CheckpointHook, EarlyStoppingHook
from treenail.adapters.runtime import train
from treenail.kernel import CheckpointError, spec

PATIENT = spec(EarlyStoppingHook)("val/loss", "min", patience=9)
BEST = spec(CheckpointHook)(save_best="loss")


def states(work_dir: Path) -> dict[str, object]:
    """Return the states of hooks in the last checkpoint."""
    _, tree = CheckpointStore(LocalFiles(work_dir / "checkpoints")).load()
    assert isinstance(tree["hooks"], dict)
    return tree["hooks"]


def test_a_hook_with_a_state_is_dropped_only_where_that_is_allowed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(small_run(1, early=PATIENT, checkpoint=BEST), tmp_path)
    assert set(states(tmp_path)) == {"best", "early"}
    with pytest.raises(
        CheckpointError, match=r"has states of the hooks 'early', 'best', which this run lacks; .* --allow-changes"
    ):
        train(small_run(2), tmp_path, resume="latest")
    capfd.readouterr()
    assert train(small_run(2), tmp_path, resume="latest", allow_changes=True).epoch == 2
    assert "states of the hooks 'early', 'best', which this run lacks: dropped" in capfd.readouterr().err
    assert states(tmp_path) == {}

    train(small_run(2), tmp_path / "whole")
    weights = [
        CheckpointStore(LocalFiles(each / "checkpoints")).load()[1]["model"] for each in (tmp_path, tmp_path / "whole")
    ]
    assert torch.equal(weights[0]["weight"], weights[1]["weight"])  # type: ignore[index]  # the model's state


def test_a_hook_with_a_state_may_be_new_and_that_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(small_run(1), tmp_path)
    capfd.readouterr()
    summary = train(small_run(2, early=PATIENT, checkpoint=BEST), tmp_path, resume="latest")
    assert summary.best is not None
    assert "no state of 'early', 'best', new in this run: begun anew" in capfd.readouterr().err
    capfd.readouterr()
    assert train(small_run(3, early=PATIENT, checkpoint=BEST), tmp_path, resume="latest").epoch == 3
    assert "begun anew" not in capfd.readouterr().err

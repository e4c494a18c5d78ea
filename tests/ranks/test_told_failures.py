"""What a run says of failures that by themselves say little: of a hook that exits, of batch normalisation with one sample."""

from pathlib import Path

import pytest
import torch
from torch import nn

from treenail.adapters.cli import main
from treenail.adapters.runtime.notes import note_batch_size

CONFIG = str(Path(__file__).with_name("ranked_run.py"))


def said_by(capsys: pytest.CaptureFixture[str], work_dir: Path, *options: str) -> tuple[int, str]:
    code = main(["train", CONFIG, "--work-dir", str(work_dir), *options])
    return code, capsys.readouterr().err


def test_an_exit_in_a_hook_is_told_with_the_hook_and_its_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_RECORDS", str(tmp_path))
    monkeypatch.setenv("RUN_TROUBLE", "exit 0 2")
    code, said = said_by(capsys, tmp_path / "run")
    assert code == 3
    assert "error: SystemExit: 3 (raised by hook 'exit' at after_train_iter)" in said


def test_batch_normalisation_of_one_sample_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_RECORDS", str(tmp_path))
    monkeypatch.setenv("RUN_NOISE", "1")
    code, said = said_by(capsys, tmp_path / "run", "train.batch_size=61")  # of 62 samples
    assert code == 1
    assert "Expected more than 1 value per channel" in said
    assert "(a batch has one sample: choose another batch_size, or drop_last: true)" in said


def test_on_ranks_it_says_how_they_normalise_together() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
        nn.BatchNorm1d(3)(torch.ones(1, 3))
    note_batch_size(caught.value, 2)
    (note,) = caught.value.__notes__
    assert "batch_size that leaves two or more to each" in note
    assert "sync_batchnorm: true" in note
    other = ValueError("something else")
    note_batch_size(other, 2)
    assert not hasattr(other, "__notes__")

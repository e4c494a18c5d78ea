"""The commands that look into checkpoints and convert them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from treenail.adapters.cli import main

CONFIG = """
imports: [tests, torch]
threads: 1
device: cpu
model: {type: "tests.weights.trainings:network"}
loss: {type: mse_loss}
optimizer: {type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 1.0e-3}
train: {dataset: {type: "tests.weights.trainings:Points"}, sampler: {type: sequential}, batch_size: 2}
schedules: [{scheduler: {type: StepLR, step_size: 2, gamma: 0.5}}]
loop: {type: epochs, max_epochs: 3}
hooks: {progress: null, logger: null}
"""


def test_a_checkpoint_of_lightning_is_shown_converted_and_resumed(
    of_lightning: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, work_dir = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(CONFIG)
    theirs = str(of_lightning / "epoch-step=8.ckpt")
    assert main(["inspect", theirs, "--tensors", "state_dict/model.0.*"]) == 0
    shown = capsys.readouterr().out
    for part in ("a checkpoint of Lightning", "global_step", "state_dict/model.0.weight  float32  [4, 3]"):
        assert part in shown
    assert "model.3" not in shown

    assert main(["convert", theirs, str(work_dir), "--config", str(config)]) == 2
    assert "did you mean prefix: model" in capsys.readouterr().err
    assert not work_dir.exists()
    assert main(["convert", theirs, str(work_dir), "--config", str(config), "--prefix", "model"]) == 0
    told = capsys.readouterr().out
    for part in ("optimizer: SGD", "batches: epoch 2, step 8", "random numbers", "--resume"):
        assert part in told

    again = ["convert", theirs, str(work_dir), "--config", str(config), "--prefix", "model"]
    assert main(again) == 2
    assert "holds a run already" in capsys.readouterr().err

    assert main(["train", str(config), "--work-dir", str(work_dir), "--resume"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(work_dir / "checkpoints" / "latest"), "--tensors", "model/*"]) == 0
    shown = capsys.readouterr().out
    for part in ("a checkpoint of treenail", "step           12\n", "attempt        2\n", "model/0.weight"):
        assert part in shown


def test_a_checkpoint_of_mmengine_is_shown(of_mmengine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(of_mmengine / "epoch_1.pth")]) == 0
    shown = capsys.readouterr().out
    for part in ("a checkpoint of mmengine", "mmengine_version", "ema_state_dict", "HistoryBuffer"):
        assert part in shown


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pt")
    assert main(["inspect", str(tmp_path / "b.pt")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["inspect", str(tmp_path / "a.pt"), "--tensors", "head*"]) == 2
    assert "no tensor is called like 'head*'" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "a.pt")]) == 0
    assert "8 bytes" in capsys.readouterr().out


def test_tensors_of_every_kind_are_counted_and_texts_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = torch.ones(2)
    value = {
        "state_dict": {"sparse": torch.eye(3).to_sparse(), "a": shared, "b": shared},
        "empty": {"a": torch.zeros(0, 3), "b": torch.zeros(0, 3)},
        "far": torch.ones(1, device="meta"),
        "note": "\x1b[2Jkind\nkind  forged",
        "config": "x" * 5000,
    }
    torch.save(value, tmp_path / "a.pt")
    assert main(["inspect", str(tmp_path / "a.pt")]) == 0
    shown = capsys.readouterr().out
    for part in (
        "state_dict  2        11 ",
        "empty       2        0 ",
        r"\x1b[2Jkind\nkind  forged",
        "… (5,000 characters)",
    ):
        assert part in shown
    assert "\x1b" not in shown
    assert "x" * 300 not in shown

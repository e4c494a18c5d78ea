"""``--auto-resume`` goes on where there is something to go on from, and begins where there is nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from treenail.adapters.cli import main

CONFIG = """
seed: 1
device: cpu
threads: 1
imports: [tests]
model: {type: Linear, in_features: 4, out_features: 1}
loss: {type: MSELoss}
optimizer: {type: SGD, lr: 0.01}
train: {dataset: {type: "tests.hooks.small_runs:Points"}, batch_size: 4}
loop: {type: epochs, max_epochs: 2}
hooks: {progress: null}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)
    return "run.yaml"


def trained(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["train", *words])
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.mark.parametrize("place", [[], ["--work-dir", "here"], ["--work-dir", "here", "files.checkpoints=there"]])
def test_it_begins_and_goes_on(config: str, capsys: pytest.CaptureFixture[str], place: list[str]) -> None:
    again = (config, "--auto-resume", *place)
    code, said = trained(capsys, *again, "limits.max_steps=3")
    assert code == 0
    assert "steps        3" in said
    code, said = trained(capsys, *again)
    assert code == 0
    assert "steps        8" in said
    assert "attempt      2" in said
    if "files.checkpoints=there" in place:  # on another machine, where the work directory is not
        shutil.rmtree("here")
        assert "attempt      3" in trained(capsys, *again)[1]


def test_a_job_that_ended_before_its_first_checkpoint_begins_anew(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("here").mkdir()
    Path("here/log.jsonl").write_text("")
    code, said = trained(capsys, config, "--work-dir", "here", "--auto-resume")
    assert code == 0
    assert "attempt" not in said


def test_without_a_checkpoint_resume_is_an_error_that_names_it(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = trained(capsys, config, "--resume")
    assert code == 2
    assert "there is no checkpoint to resume from; leave --resume out, take --auto-resume" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoint", "best"], "--resume is missing; take it in the place of --auto-resume"),
        (["--fast-dev-run"], "keeps nothing; leave out --auto-resume, or --fast-dev-run"),
    ],
)
def test_what_contradicts_it_is_refused(
    config: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, told = trained(capsys, config, "--auto-resume", *words)
    assert code == 2
    assert said in told
    with pytest.raises(SystemExit):
        main(["train", config, "--auto-resume", "--resume"])


def test_what_only_looks_may_change_and_a_passed_limit_is_named(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(capsys, config, "--work-dir", "here", "limits.max_steps=3")[0] == 0
    again = (
        config,
        "--work-dir",
        "here",
        "--auto-resume",
        "detect_anomaly=true",
        "+predict={dataset: {type: digits, split: test}, batch_size: 1}",
    )
    code, said = trained(capsys, *again, "limits.max_steps=2")
    assert code == 0, said
    assert "stopped by limit of 2 steps; a checkpoint is saved. Go on with, and a higher limits.max_steps:" in said

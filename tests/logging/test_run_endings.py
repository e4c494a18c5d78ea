"""How a run ended, and what it went on from: found in what it left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tests.hooks.small_runs import Points, small_run
from treenail.adapters.cli import main
from treenail.adapters.comm import run_threads
from treenail.adapters.logging import RunLog
from treenail.adapters.runtime import fast_dev_run, train
from treenail.adapters.runtime.events import RunEvents
from treenail.contracts import Limits, Run
from treenail.kernel import Communicator, ConfigError, Engine, Hook, TreenailError, spec


class Fails(nn.Module):
    """Fails in a later call.

    Args:
        calls: How many go well.
        training: Whether only those of the training count.
    """

    def __init__(self, calls: int, training: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.calls = calls
        self.only_training = training

    def forward(self, points: Tensor) -> Tensor:
        self.calls -= self.training or not self.only_training
        outputs: Tensor = self.layer(points)
        return self.look_up(outputs) if self.calls < 0 else outputs

    def look_up(self, points: Tensor) -> Tensor:
        return {"there": points}["missing"]


class Wants(Hook):
    """Asks for a stop."""

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        engine.request_stop("enough was seen")


def failing(calls: int, training: bool = False) -> Run:
    return msgspec.structs.replace(small_run(3), model=spec(Fails)(calls, training))


def last_line(work_dir: Path) -> dict[str, Any]:
    """Return the last line of a log."""
    line: dict[str, Any] = json.loads((work_dir / "log.jsonl").read_text().splitlines()[-1])
    return line


def shown(capsys: pytest.CaptureFixture[str], work_dir: Path) -> str:
    """Return what `treenail logs` shows."""
    capsys.readouterr()
    assert main(["logs", str(work_dir)]) == 0
    return capsys.readouterr().out


def test_a_failure_is_in_the_log_with_its_place_its_step_and_its_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError, match="missing") as caught:
        train(failing(5, training=True), tmp_path)
    line = last_line(tmp_path)
    assert (line["event"], line["step"], line["epoch"], line["kind"]) == ("failed", 5, 1, "KeyError")
    assert line["error"] == "KeyError: 'missing'"
    assert line["raised_at"].endswith(" in look_up")
    assert line["notes"] == ["after 5 steps, in Fails, with a batch of (float32[4, 4], float32[4, 1])"]
    assert 'return {"there": points}["missing"]' in line["traceback"]
    assert caught.value.__notes__[-1] == f"the traceback is in {tmp_path}/log.jsonl"
    told = shown(capsys, tmp_path)
    assert (
        f"state          failed: KeyError: 'missing'\nraised at      {line['raised_at']}\nstep           4 of 12"
        in told
    )
    assert '\n      return {"there": points}["missing"]\n' in told


def test_a_failure_names_the_module_that_was_called(tmp_path: Path) -> None:
    model = spec(nn.Sequential)(spec(nn.Linear)(4, 3).build(), spec(nn.Linear)(5, 1).build())
    with pytest.raises(RuntimeError) as caught:
        train(msgspec.structs.replace(small_run(1), model=model), tmp_path)
    assert "after 0 steps, in Linear '1', with a batch of (float32[4, 4], float32[4, 1])" in caught.value.__notes__


def test_the_terminal_names_the_place_and_the_step_of_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(
        "imports: [tests.logging.test_run_endings, tests.hooks.small_runs]\n"
        "model: {type: 'tests.logging.test_run_endings:Fails', calls: 2}\n"
        "loss: {type: MSELoss}\noptimizer: {type: SGD, lr: 0.01}\n"
        "train: {dataset: {type: 'tests.hooks.small_runs:Points'}, batch_size: 4}\n"
        "loop: {type: epochs, max_epochs: 1}\nhooks: {progress: null}\n"
    )
    assert main(["train", str(tmp_path / "run.yaml"), "--work-dir", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: KeyError: 'missing' (after 2 steps, in Fails, with a batch of ")
    assert f" (the traceback is in {tmp_path / 'run' / 'log.jsonl'}); raised at " in said
    assert said.endswith(" in look_up")


def test_a_validation_and_the_one_before_the_training_tell_their_batches(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as caught:
        train(failing(4), tmp_path / "a")
    assert caught.value.__notes__[0] == "after 4 steps, in Fails, with a batch of (float32[8, 4], float32[8, 1])"
    sane = msgspec.structs.replace(failing(0), limits=Limits(sanity_batches=1))
    with pytest.raises(KeyError) as caught:
        train(sane, tmp_path / "b")
    assert "in the sanity validation, before the first step" in caught.value.__notes__
    assert "after 0 steps, in Fails, with a batch of (float32[8, 4], float32[8, 1])" in caught.value.__notes__


def test_an_end_and_a_stop_are_told_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small_run(1), tmp_path / "a")
    assert {**last_line(tmp_path / "a"), "timestamp": ""} == {
        "event": "finished",
        "step": 4,
        "epoch": 1,
        "level": "info",
        "timestamp": "",
    }
    assert "state          finished\n" in shown(capsys, tmp_path / "a")
    train(small_run(2, wants=spec(Wants)()), tmp_path / "b")
    line = last_line(tmp_path / "b")
    assert (line["event"], line["step"], line["reason"]) == ("stopped", 1, "enough was seen")
    assert "state          stopped: enough was seen\n" in shown(capsys, tmp_path / "b")


def test_a_resume_says_what_it_goes_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small_run(1), tmp_path)
    capsys.readouterr()
    train(small_run(2), tmp_path, resume="latest")
    latest = "step-00000004.2"  # the end of the training was saved after the epoch's
    assert f"resumed checkpoint={latest} step=4 epoch=1\n" in capsys.readouterr().err.replace("'", "")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (resumed,) = [line for line in lines if line["event"] == "resumed"]
    assert (resumed["checkpoint"], resumed["step"], resumed["epoch"]) == (latest, 4, 1)
    with pytest.raises(ConfigError, match="seed"):
        train(msgspec.structs.replace(small_run(2), seed=5), tmp_path, resume="latest")
    refused = last_line(tmp_path)
    assert (refused["event"], refused["kind"]) == ("failed", "ConfigError")
    assert "step" not in refused  # none was taken
    assert RunLog(tmp_path).step == 8


def test_what_a_run_that_was_resumed_and_killed_left_is_no_ending(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        train(failing(6, training=True), tmp_path)
    assert RunLog(tmp_path).ending is not None
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"event": "resumed", "checkpoint": "step-00000004", "step": 4, "epoch": 1}\n')
    assert RunLog(tmp_path).ending is None


def test_a_run_that_cannot_be_built_leaves_its_directory_empty(tmp_path: Path) -> None:
    with pytest.raises(TreenailError, match="could not be built"):
        train(msgspec.structs.replace(small_run(1), model=spec(nn.Linear)("wide", 1)), tmp_path / "run")  # type: ignore[arg-type]  # the mistake
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_log_that_cannot_be_written_hides_no_failure(tmp_path: Path) -> None:
    class Blocks(Hook):
        priority = 99

        def on_exception(self, engine: Engine, error: BaseException) -> None:
            (tmp_path / "log.jsonl").unlink()
            (tmp_path / "log.jsonl").mkdir()

    with pytest.raises(KeyError) as caught:
        train(msgspec.structs.replace(failing(0), hooks={"progress": None, "blocks": spec(Blocks)()}), tmp_path)
    assert caught.value.__notes__[-1].startswith(
        f"the log has nothing of it: {tmp_path}/log.jsonl: cannot write the log"
    )


def test_a_trial_leaves_nothing_and_promises_nothing() -> None:
    with pytest.raises(KeyError) as caught:
        fast_dev_run(failing(0))
    assert not any("traceback" in note for note in caught.value.__notes__)


def test_the_log_of_rank_0_has_the_failure_of_another_rank(tmp_path: Path) -> None:
    def on_rank(ranks: Communicator) -> str:
        from treenail.adapters.runtime.ranks import failures_told

        events = RunEvents(tmp_path / "log.jsonl" if ranks.rank == 0 else None, ranks)
        events.engine = Engine()
        try:
            with failures_told(ranks), events.failures_logged():
                if ranks.rank == 1:
                    Fails(0)(torch.stack([Points()[index][0] for index in range(4)]))
                ranks.barrier()
        except Exception as error:
            return type(error).__name__
        return "ended well"

    assert run_threads(2, on_rank) == ["CommunicationError", "KeyError"]
    line = last_line(tmp_path)
    assert line["event"] == "failed"
    assert "rank 1: KeyError: 'missing'" in line["error"]
    assert 'return {"there": points}["missing"]' in line["traceback"]

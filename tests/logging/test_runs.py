"""What is read from a work directory, of runs in every state."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from treenail.adapters.logging import JsonLog, RunLog
from treenail.kernel import ConfigError

CONFIG = "loop: {type: epochs, max_epochs: 4}\nhooks: {best: {type: best, metric: val/score, mode: min}}\n"


def write(path: Path, *lines: dict[str, object]) -> None:
    """Write lines of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scalars(step: int, epoch: int, attempt: int = 1, **values: object) -> dict[str, object]:
    """Return a line of the curves."""
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return {"step": step, "epoch": epoch, "commit": step, "attempt": attempt, **named}


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A run of four epochs of 50 steps, in the midst of the third."""
    write(
        tmp_path / "curves" / "scalars.jsonl",
        scalars(20, 0, train__loss=2.0, time=0.5),
        scalars(50, 1, val__accuracy=0.5, val__score=3.0),
        scalars(100, 2, 2, val__accuracy=0.75, val__score=None),
        scalars(120, 2, 2, train__loss=1.0, time=0.25),
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_curves_attempts_and_what_is_left(work_dir: Path) -> None:
    log = RunLog(work_dir)
    assert log.names == ["train/loss", "time", "val/accuracy", "val/score"]
    assert log.curve("train/loss") == [(20, 2.0), (120, 1.0)]
    assert (log.step, log.epoch, log.attempt, log.total_steps) == (120, 2, 2, 200)
    assert log.training_seconds == 20 * 0.5 + 100 * 0.25
    assert log.seconds_left == 80 * (0.5 + 0.25) / 2  # at once after a resume, from the steps before it
    assert math.isnan(log.curve("val/score")[1][1])


def test_the_best_value_goes_by_the_hook_or_the_name(work_dir: Path) -> None:
    log = RunLog(work_dir)
    assert log.best("val/accuracy") == (100, 0.75)
    assert log.best("val/score") == (50, 3.0)
    assert [log.least_is_best(name) for name in ("val/loss", "val/mae", "val/error_rate", "val/map", "val/score")] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert log.best("val/nothing") is None


def test_steps_of_a_config_in_steps_are_known_at_once(tmp_path: Path) -> None:
    write(tmp_path / "curves" / "scalars.jsonl", scalars(20, 0, time=0.5))
    (tmp_path / "config.yaml").write_text("loop: {type: steps, max_steps: 30}\n")
    assert RunLog(tmp_path).seconds_left == 5.0
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert RunLog(tmp_path).total_steps is None  # no epoch is over yet
    assert RunLog(tmp_path).is_finished is None
    assert RunLog(tmp_path).seconds_left is None


def test_without_curves_the_log_tells_without_the_tails_of_earlier_attempts(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl", max_bytes=400, keep=9)
    for step in (10, 20, 30, 20, 30, 30, 40):  # killed after 30, resumed from 10
        log.logger.info("train", **{"train/loss": float(step), "step": step, "epoch": 0})
    log.logger.info("val", **{"val/loss": 1.0, "step": 40, "epoch": 1})
    log.logger.warning("slow disk")
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"train/loss": 0.')  # torn by a crash
    found = RunLog(tmp_path)
    assert [(point.step, *point.values) for point in found.points] == [
        *((step, "train/loss") for step in (10, 20, 30, 40)),
        (40, "val/loss"),
    ]
    assert [line["event"] for line in found.lines()] == [*["train"] * 7, "val", "slow disk"]
    assert found.attempt is None


def test_without_a_validation_the_checkpoint_tells_how_long_an_epoch_is(tmp_path: Path) -> None:
    write(
        tmp_path / "curves" / "scalars.jsonl",
        *(scalars(step, (step - 1) // 50, time=1.0) for step in range(30, 201, 30)),
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert RunLog(tmp_path).total_steps == 240  # 180 steps were logged in the fourth epoch: 60 for each of three
    assert RunLog(tmp_path).is_finished is False
    write(tmp_path / "checkpoints" / "step-00000200" / "manifest.json", {"step": 200, "epoch": 4})
    (tmp_path / "checkpoints" / "latest").write_text("step-00000200")
    assert (RunLog(tmp_path).total_steps, RunLog(tmp_path).is_finished) == (200, True)


def test_configs_are_found_beside_the_curves_or_in_the_latest_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "curves" / "scalars.jsonl", scalars(20, 0))
    assert (RunLog(tmp_path).written_config, RunLog(tmp_path).plain_config, RunLog(tmp_path).saved_step) == (None,) * 3
    write(tmp_path / "checkpoints" / "step-00000020" / "manifest.json", {"step": 20, "epoch": 1, "config": {"seed": 1}})
    (tmp_path / "checkpoints" / "latest").write_text("step-00000020")
    assert RunLog(tmp_path).plain_config == {"seed": 1}
    assert RunLog(tmp_path).saved_step == 20
    write(tmp_path / "curves" / "config.txt", {"seed": 2})
    assert RunLog(tmp_path).plain_config == {"seed": 2}


def test_who_writes_is_told_as_long_as_it_lives(work_dir: Path) -> None:
    assert RunLog(work_dir).writer is None
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    (work_dir / "lock").write_text(holder)
    assert RunLog(work_dir).writer == holder
    (work_dir / "lock").write_text("process 1 on another host")
    assert RunLog(work_dir).writer == "process 1 on another host"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    for job in ("", ", restart 1 of Slurm job 4711"):
        (work_dir / "lock").write_text(f"process {ended.pid} on {socket.gethostname()}{job}")  # as a kill -9 leaves it
        assert RunLog(work_dir).writer is None


def test_ranks_have_logs_of_their_own(work_dir: Path) -> None:
    write(work_dir / "log.jsonl", {"event": "train", "step": 1})
    write(work_dir / "log.rank1.jsonl", {"event": "train", "step": 2})
    log = RunLog(work_dir)
    assert [line["step"] for rank in range(3) for line in log.lines(rank)] == [1, 2]


@pytest.mark.parametrize("pointer", ["", ".", "..", "../../elsewhere", "step-1\0", "step-00000001", "\udcff"])
def test_a_pointer_that_leads_nowhere_is_no_checkpoint(work_dir: Path, pointer: str) -> None:
    (work_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    (work_dir / "checkpoints" / "step-00000001" / "manifest.json").write_text('{"step": 1, "ep')  # torn
    for place in (work_dir, work_dir / "checkpoints"):
        write(place / "manifest.json", {"step": 7, "epoch": 7})
    (work_dir / "checkpoints" / "latest").write_bytes(pointer.encode(errors="surrogateescape"))
    assert RunLog(work_dir).saved_step is None


def test_a_damaged_config_is_named(work_dir: Path) -> None:
    (work_dir / "config.yaml").write_bytes(b"loop: \xff")
    with pytest.raises(ConfigError, match=r"config\.yaml: the file is not UTF-8 text"):
        _ = RunLog(work_dir).total_steps
    (work_dir / "config.yaml").write_text("loop: {")
    with pytest.raises(ConfigError, match=r"config\.yaml:"):
        _ = RunLog(work_dir).total_steps


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: there is no such directory; name the work directory of a run"):
        RunLog(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no run has logged anything here"):
        RunLog(tmp_path)


def begun(attempt: int, step: int) -> dict[str, object]:
    """Return the line of a log with which an attempt begins."""
    return {"event": "environment", "attempt": attempt, "from_step": step}


def logged(step: int, epoch: int, **values: object) -> dict[str, object]:
    return {"event": "train", "step": step, "epoch": epoch, **values}


def test_an_attempt_that_wrote_no_curves_goes_on_by_the_log(work_dir: Path) -> None:
    write(
        work_dir / "log.jsonl",
        begun(1, 0),
        logged(20, 0, time=9.0),  # the curves have it
        begun(2, 50),
        logged(120, 2, time=9.0),
        begun(3, 100),
        logged(130, 2, time=0.125),
        begun(4, 120),
        logged(130, 2, time=0.25),
        {"event": "failed", "step": 131, "epoch": 2, "error": "ValueError"},
    )
    log = RunLog(work_dir)
    assert log.curve("time") == [(20, 0.5), (130, 0.25)]  # attempt 3 went back to step 100, attempt 4 to 120
    assert (log.step, log.attempt) == (130, 4)
    assert log.curve("val/accuracy") == [(50, 0.5), (100, 0.75)]


@pytest.mark.parametrize("event", ["finished", "stopped", "failed"])
def test_how_a_run_ended_is_its_last_line(work_dir: Path, event: str) -> None:
    write(work_dir / "log.jsonl", begun(1, 0), logged(20, 0), {"event": event, "step": 20, "epoch": 0})
    ending = RunLog(work_dir).ending
    assert ending is not None
    assert ending["event"] == event
    write(work_dir / "log.jsonl", {"event": event, "step": 20, "epoch": 0}, begun(2, 20))
    assert RunLog(work_dir).ending is None  # of the attempt before

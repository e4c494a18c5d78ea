"""Runs on many ranks, by the real commands: they stop together, tell of failures, and survive the death of a rank."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.parallel.worlds import once, shared_directory
from tests.ranks.ranked_run import EPOCHS, STEPS, drawn
from tests.resume.outcomes import difference
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles

CONFIG = Path(__file__).with_name("ranked_run.py")
ROOT = Path(__file__).parents[2]


def train(
    scripts: Path,
    work_dir: Path,
    ranks: int,
    *options: str,
    trouble: str = "",
    noise: bool = False,
    launch: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `treenail train` of a directory of scripts, by `treenail launch` where there are several ranks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD_SIZE"))}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "RUN_TROUBLE": trouble,
        "RUN_NOISE": "1" if noise else "",
        "RUN_RECORDS": str(work_dir),
        "PYTHONPATH": str(ROOT),
    }
    work_dir.mkdir(exist_ok=True)
    command = [str(scripts / "treenail"), *(["launch", f"--nproc={ranks}", *launch] if ranks > 1 else [])]
    command += ["train", str(CONFIG), "--work-dir", str(work_dir), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def state_of(work_dir: Path) -> dict[str, object]:
    return CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")[1]


def step_of(work_dir: Path) -> int:
    engine = state_of(work_dir)["engine"]
    assert isinstance(engine, dict)
    return int(engine["step"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, scripts: Path) -> Path:
    work_dir = tmp_path_factory.mktemp("undisturbed")
    done = train(scripts, work_dir, 2, noise=True)
    assert done.returncode == 0, done.stderr
    return work_dir


@settings(
    max_examples=int(os.environ.get("TREENAIL_KILL_EXAMPLES", "1")),
    deadline=None,
    phases=[Phase.generate],  # an example takes too long to be made simpler
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rank=st.integers(0, 1), step=st.integers(0, STEPS - 1))
def test_a_run_whose_rank_is_killed_goes_on_and_equals_the_undisturbed_one(
    undisturbed: Path, scripts: Path, rank: int, step: int
) -> None:
    """With dropout, batch normalisation and each rank's own random numbers; bit for bit."""
    with tempfile.TemporaryDirectory() as directory:
        killed = Path(directory) / "run"
        done = train(scripts, killed, 2, noise=True, trouble=f"kill {rank} {step}", launch=("--max-restarts=2",))
        assert done.returncode == 0, done.stderr
        assert "restart 1 of 2" in done.stderr, done.stderr
        ours, theirs = state_of(killed), state_of(undisturbed)
        engine = ours.pop("engine"), theirs.pop("engine")
        saved = step >= 3  # by the hook, every 3 steps
        assert engine[0]["attempt"] == (2 if saved else 1), "it did not go on from a checkpoint"  # type: ignore[index]  # a mapping
        assert difference(ours, theirs) is None


class Stopped(NamedTuple):
    """A run on two ranks, of which rank 1 is slow, and gets SIGTERM in the last epoch."""

    work_dir: Path
    code: int
    said: str


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, scripts: Path) -> Stopped:
    work_dir = shared_directory("stopped-by-sigterm", tmp_path_factory, request)

    def run() -> dict[str, str]:
        options = ("distributed.rank_logs=true", "+hooks.stragglers={type: stragglers, interval: 5}")
        done = train(scripts, work_dir / "run", 2, *options, trouble=f"slow 1 0, terminate 1 {STEPS - 6}")
        return {"code": str(done.returncode), "said": done.stderr}

    done = once(work_dir, run)
    return Stopped(work_dir / "run", int(done["code"]), done["said"])


def test_a_rank_that_gets_sigterm_stops_all_with_a_checkpoint(stopped: Stopped) -> None:
    assert stopped.code == 128 + signal.SIGTERM, stopped.said
    steps = drawn(stopped.work_dir, 1)
    assert all(len(shares) == 2 for shares in steps.values()), "ranks stopped at different steps"
    assert step_of(stopped.work_dir) == len(steps) < STEPS
    assert "stopped by SIGTERM" in stopped.said


def test_an_exception_on_one_rank_ends_all_and_is_named_with_its_rank(tmp_path: Path, scripts: Path) -> None:
    done = train(scripts, tmp_path / "run", 2, trouble="raise 1 5")
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, f"one error was to be said, once: {done.stderr}"
    assert "rank 1" in errors[0]
    assert "the sum is wrong" in errors[0]


def test_every_rank_writes_its_log_where_asked_and_a_slow_one_is_reported(stopped: Stopped) -> None:
    assert "straggler rank=1" in stopped.said
    logs = [(stopped.work_dir / name).read_text().splitlines() for name in ("log.jsonl", "log.rank1.jsonl")]
    losses = [[json.loads(line)["train/loss"] for line in log if "train/loss" in line] for log in logs]
    assert losses[0] == losses[1], "means over all ranks are equal on all ranks"
    assert losses[0]
    assert stopped.said.count("val/accuracy") == EPOCHS - 1, "only rank 0 writes to the terminal"

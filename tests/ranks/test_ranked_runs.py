"""Runs on many ranks, by the real commands: they see what one process sees, stop together, and survive the death of a rank."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.ranks.ranked_run import BATCH, EPOCHS, SAMPLES
from tests.resume.test_resume import difference
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles

CONFIG = Path(__file__).with_name("ranked_run.py")
ROOT = Path(__file__).parents[2]
EPOCH = -(-SAMPLES // BATCH)
STEPS = EPOCHS * EPOCH


def train(
    work_dir: Path, ranks: int, *options: str, trouble: str = "", noise: bool = False, launch: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `treenail train`, by `treenail launch` where there are several ranks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD_SIZE"))}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "RUN_TROUBLE": trouble,
        "RUN_NOISE": "1" if noise else "",
        "RUN_RECORDS": str(work_dir),
        "PYTHONPATH": str(ROOT),
    }
    work_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "treenail.adapters.cli"]
    command += ["launch", f"--nproc={ranks}", *launch] if ranks > 1 else []
    command += ["train", str(CONFIG), "--work-dir", str(work_dir), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def state_of(work_dir: Path) -> dict[str, object]:
    return CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")[1]


def step_of(work_dir: Path) -> int:
    engine = state_of(work_dir)["engine"]
    assert isinstance(engine, dict)
    return int(engine["step"])


def drawn(work_dir: Path, attempt: int) -> dict[int, list[list[int]]]:
    """Return the indices of each step of an attempt, rank by rank."""
    steps: dict[int, list[list[int]]] = {}
    for path in sorted(work_dir.glob(f"drawn-{attempt}-*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            steps.setdefault(line["step"], []).append(line["indices"])
    return steps


def batch_of(shares: list[list[int]]) -> list[int]:
    """Return a batch in its order, from the shares of the ranks."""
    return [share[place] for place in range(len(shares[0])) for share in shares if place < len(share)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("alone")
    done = train(work_dir, 1)
    assert done.returncode == 0, done.stderr
    return work_dir


def test_ranks_that_stop_and_change_their_number_see_each_sample_once_and_give_what_one_process_gives(
    alone: Path, tmp_path: Path
) -> None:
    """Stopped on 4 ranks from one of them, resumed on 2 and on 3."""
    stopped = tmp_path / "four"
    done = train(stopped, 4, trouble="stop 2 9")
    assert done.returncode == 0, done.stderr
    step = step_of(stopped)
    assert 9 < step < STEPS, "no rank stopped the run in its middle"
    assert all(len(shares) == 4 for shares in drawn(stopped, 1).values()), "ranks stopped at different steps"
    whole = [batch_of(shares) for _, shares in sorted(drawn(alone, 1).items())]
    for ranks in (2, 3):
        resumed = tmp_path / f"resumed-{ranks}"
        shutil.copytree(stopped, resumed)
        done = train(resumed, ranks, "--resume")
        assert done.returncode == 0, done.stderr
        steps = {**drawn(resumed, 1), **drawn(resumed, 2)}
        found = [batch_of(shares) for _, shares in sorted(steps.items())]
        assert found == whole, "the batches are not those of one process"
        for epoch in range(EPOCHS):
            seen = Counter(index for batch in found[epoch * EPOCH : (epoch + 1) * EPOCH] for index in batch)
            assert seen == Counter(range(SAMPLES)), f"not every sample once in epoch {epoch}"
        for name, weight in torch_tensors(state_of(resumed)["model"]).items():
            expected = torch_tensors(state_of(alone)["model"])[name]
            assert torch.allclose(weight, expected, atol=1e-5), f"{name} is not what one process gives"
        for ours, theirs in zip(validations(resumed), validations(alone), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def torch_tensors(state: object) -> dict[str, torch.Tensor]:
    assert isinstance(state, dict)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def validations(work_dir: Path) -> list[list[float]]:
    lines = map(json.loads, (work_dir / "jsonlines" / "scalars.jsonl").read_text().splitlines())
    return [[line["val/loss"], line["val/accuracy"]] for line in lines if "val/loss" in line]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("undisturbed")
    done = train(work_dir, 2, noise=True)
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
    undisturbed: Path, rank: int, step: int
) -> None:
    """With dropout, batch normalisation and each rank's own random numbers; bit for bit."""
    with tempfile.TemporaryDirectory() as directory:
        killed = Path(directory) / "run"
        done = train(killed, 2, noise=True, trouble=f"kill {rank} {step}", launch=("--max-restarts=2",))
        assert done.returncode == 0, done.stderr
        assert "restart 1 of 2" in done.stderr, done.stderr
        ours, theirs = state_of(killed), state_of(undisturbed)
        engine = ours.pop("engine"), theirs.pop("engine")
        saved = step >= 3  # by the hook, every 3 steps
        assert engine[0]["attempt"] == (2 if saved else 1), "it did not go on from a checkpoint"  # type: ignore[index]  # a mapping
        assert difference(ours, theirs) is None


def test_a_rank_that_gets_sigterm_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    done = train(tmp_path / "run", 2, trouble="terminate 1 5")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    steps = drawn(tmp_path / "run", 1)
    assert all(len(shares) == 2 for shares in steps.values()), "ranks stopped at different steps"
    assert step_of(tmp_path / "run") == len(steps) < STEPS
    assert "stopped by SIGTERM" in done.stderr


def test_an_exception_on_one_rank_ends_all_and_is_named_with_its_rank(tmp_path: Path) -> None:
    done = train(tmp_path / "run", 2, trouble="raise 1 5")
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, f"one error was to be said, once: {done.stderr}"
    assert "rank 1" in errors[0]
    assert "the sum is wrong" in errors[0]


def test_every_rank_writes_its_log_where_asked_and_a_slow_one_is_reported(tmp_path: Path) -> None:
    options = ("distributed.rank_logs=true", "+hooks.stragglers={type: stragglers, interval: 5}")
    done = train(tmp_path / "run", 2, *options, trouble="slow 1 0")
    assert done.returncode == 0, done.stderr
    assert "straggler rank=1" in done.stderr
    logs = [(tmp_path / "run" / name).read_text().splitlines() for name in ("log.jsonl", "log.rank1.jsonl")]
    losses = [[json.loads(line)["train/loss"] for line in log if "train/loss" in line] for log in logs]
    assert losses[0] == losses[1], "means over all ranks are equal on all ranks"
    assert done.stderr.count("val/accuracy") == EPOCHS, "only rank 0 writes to the terminal"

"""The first law: a run that was killed and resumed equals the run that was not, bit for bit."""

import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.parallel.worlds import once, shared_directory
from tests.resume.commands import run_forked, run_fresh
from tests.resume.outcomes import Outcome, difference, outcome

CONFIG = Path(__file__).with_name("noisy_run.py")
STEPS = 24
POINTS = [
    "before_train_iter",
    "after_train_iter",
    "after_train_epoch",
    "after_val_iter",
    "after_val_epoch",
    "before_save_checkpoint",
]


def start(
    work_dir: Path,
    *,
    workers: int,
    checkpoints: str,
    kill: tuple[int, str] | None,
    resume: bool,
    sampler: str = "random",
    is_fresh: bool = False,
) -> int:
    """Run the command in a process of its own; return its exit code, negative for a signal."""
    environment = {"RUN_WORKERS": str(workers), "RUN_CHECKPOINTS": checkpoints, "OMP_NUM_THREADS": "1"}
    environment["RUN_SAMPLER"] = sampler
    environment["RUN_KILL"] = f"{kill[0]} {kill[1]}" if kill else ""
    arguments = ["train", str(CONFIG), "--work-dir", str(work_dir), *(["--resume"] if resume else [])]
    done = run_fresh(arguments, environment) if is_fresh else run_forked(arguments, environment)
    assert done.code in (0, -signal.SIGKILL), done.said
    return done.code


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Outcome:
    work_dir = shared_directory("undisturbed-noisy", tmp_path_factory, request)

    def run() -> dict[str, str]:
        return {"code": str(start(work_dir / "run", workers=0, checkpoints="1 epoch", kill=None, resume=False))}

    assert once(work_dir, run) == {"code": "0"}
    return outcome(work_dir / "run")


kills = st.lists(st.tuples(st.integers(0, STEPS - 1), st.sampled_from(POINTS)), min_size=1, max_size=2)


@settings(
    max_examples=int(os.environ.get("TREENAIL_RESUME_EXAMPLES", "3")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(kills=kills, workers=st.sampled_from([0, 1, 2]), checkpoints=st.sampled_from(["1 step", "3 step", "1 epoch"]))
@example(kills=[(13, "after_train_iter")], workers=2, checkpoints="3 step")  # mid-epoch, with prefetched batches
@example(kills=[(8, "after_val_epoch"), (16, "after_val_iter")], workers=0, checkpoints="1 epoch")  # inside validations
def test_a_killed_and_resumed_run_equals_the_undisturbed_one(
    undisturbed: Outcome, kills: list[tuple[int, str]], workers: int, checkpoints: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work_dir = Path(directory)
        for kill in [*sorted(kills), None]:
            resume = (work_dir / "checkpoints" / "latest").exists()
            code = start(work_dir, workers=workers, checkpoints=checkpoints, kill=kill, resume=resume)
        assert code == 0
        found = outcome(work_dir)
    where = difference(found.state, undisturbed.state)
    assert where is None, where
    where = difference(found.logged, undisturbed.logged, "logged")
    assert where is None, where


@pytest.mark.parametrize(("sampler", "is_fresh"), [("class_balanced", False), ("bucket", True)])
def test_a_run_resumes_with_other_samplers(tmp_path: Path, sampler: str, is_fresh: bool) -> None:
    """In fresh interpreters too, whose hashes differ: no result depends on the order of a set."""
    run = partial(start, checkpoints="3 step", sampler=sampler)
    assert run(tmp_path / "whole", workers=0, kill=None, resume=False) == 0
    run(tmp_path / "killed", workers=2, kill=(13, "after_train_iter"), resume=False, is_fresh=is_fresh)
    assert run(tmp_path / "killed", workers=1, kill=None, resume=True, is_fresh=is_fresh) == 0
    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    where = difference(killed.state, whole.state) or difference(killed.logged, whole.logged, "logged")
    assert where is None, where


def test_the_comparison_sees_a_single_bit(undisturbed: Outcome) -> None:
    weights = undisturbed.state["model"]
    assert isinstance(weights, dict)
    changed = {name: weight.clone() for name, weight in weights.items()}
    changed["0.weight"].view(torch.int32)[0, 0] ^= 1
    assert difference(changed, weights) == "state.0.weight"

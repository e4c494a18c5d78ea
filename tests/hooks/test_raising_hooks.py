"""Runs of `treenail train` of which a hook raises: who is named, what the others do, and what is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import NamedTuple

import pytest

from treenail.adapters.cli.main import main
from treenail.kernel import HOOK_POINTS, Hook

CONFIG = """
imports: [tests.hooks]
device: cpu
threads: 1
model: {type: Linear, in_features: 4, out_features: 1}
loss: {type: MSELoss}
optimizer: {type: SGD, lr: 0.01}
train: {dataset: {type: tests.hooks.small_runs:Points}, batch_size: 4}
val: {dataset: {type: tests.hooks.small_runs:Points}, batch_size: 8}
test: {dataset: {type: tests.hooks.small_runs:Points}, batch_size: 8}
loop: {type: epochs, max_epochs: 2}
hooks:
  progress: null
"""
STEPS = 8


class Raises(Hook):
    """Raises at a point, when the run has come there so many times."""

    def __init__(self, point: str, times: int = 1) -> None:
        self.left = times
        self.point = point
        setattr(self, point, self._raise)

    def _raise(self, *arguments: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise ArithmeticError(f"wrong at {self.point}")

    def on_exception(self, *arguments: object) -> None:
        """Be a hook, whatever the point is."""


class Witness(Hook):
    """Writes down at which points it was called; it comes after all others."""

    priority = 99

    def __init__(self, path: str) -> None:
        for point in HOOK_POINTS:
            setattr(self, point, MethodType(self._noting(Path(path), point), self))

    @staticmethod
    def _noting(path: Path, point: str) -> Callable[..., None]:
        def note(*arguments: object) -> None:
            with path.open("a") as file:
                print(point, file=file)

        return note


class Done(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    witnessed: list[str]
    saved: list[tuple[int, str]]

    @property
    def error(self) -> str:
        return next(line for line in self.said.splitlines() if line.startswith("error:"))


class Runs:
    """Runs the command in a directory."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "run.yaml"
        self.config.write_text(CONFIG)
        self.capsys = capsys

    def train(self, *hooks: str, options: tuple[str, ...] = ()) -> Done:
        notes = self.directory / "notes"
        notes.unlink(missing_ok=True)
        work_dir = self.directory / "run"
        witness = f"+hooks.witness={{type: {__name__}:Witness, path: {notes}}}"
        code = main(["train", str(self.config), witness, *hooks, "--work-dir", str(work_dir), *options])
        manifests = [json.loads(each.read_text()) for each in (work_dir / "checkpoints").glob("*/manifest.json")]
        return Done(
            code,
            self.capsys.readouterr().err,
            notes.read_text().split(),
            sorted((each["step"], each["reason"]) for each in manifests),
        )


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path, capsys)


def raises(point: str, times: int = 1) -> str:
    return f"+hooks.raises={{type: {__name__}:Raises, point: {point}, times: {times}}}"


# The how-manieth call of a point raises, and how many steps the last checkpoint has behind it then.
AFTER = {
    "after_train_iter": (2, 2),
    "after_train_epoch": (2, 8),
    "after_val_iter": (2, 4),
    "after_val_epoch": (2, 8),
    "after_val": (2, 8),
    "after_train": (1, 8),
    "after_test_iter": (2, 8),
    "after_test_epoch": (1, 8),
    "after_test": (1, 8),
    "after_run": (1, 8),
}


@pytest.mark.parametrize("point", AFTER)
def test_after_a_point_the_other_hooks_run_the_state_is_saved_and_then_the_run_fails(runs: Runs, point: str) -> None:
    times, step = AFTER[point]
    done = runs.train(raises(point, times))
    assert done.code == 1
    assert f"ArithmeticError: wrong at {point}" in done.error
    assert f"raised by hook 'raises' at {point}" in done.error
    assert done.witnessed.count(point) >= times, "a hook behind the one that raised was left out"
    assert done.witnessed[-1] == "on_exception"
    assert done.saved[-1][0] == step

    on = runs.train(options=("--resume",))
    assert on.code == 0, on.said
    assert on.saved[-1][0] == STEPS


BEFORE = {
    "before_run": (1, None),
    "before_train": (1, None),
    "before_train_epoch": (2, 4),
    "before_train_iter": (6, 4),
    "before_val": (2, 8),
    "before_val_epoch": (2, 8),
    "before_val_iter": (3, 8),
    "before_test": (1, 8),
    "before_test_epoch": (1, 8),
    "before_test_iter": (1, 8),
}


@pytest.mark.parametrize("point", BEFORE)
def test_before_a_point_the_run_ends_at_once_and_what_was_saved_stays(runs: Runs, point: str) -> None:
    times, step = BEFORE[point]
    done = runs.train(raises(point, times))
    assert done.code == 1
    assert f"wrong at {point} (raised by hook 'raises' at {point})" in done.error
    assert done.witnessed.count(point) == times - 1
    assert done.witnessed[-1] == "on_exception"
    assert (done.saved[-1][0] if done.saved else None) == step


def test_a_checkpoint_that_a_hook_would_not_let_be_saved_leaves_the_one_before(runs: Runs) -> None:
    done = runs.train(raises("before_save_checkpoint", 2))
    assert done.code == 1
    assert "raised by hook 'raises' at before_save_checkpoint" in done.error
    assert [step for step, _ in done.saved] == [4]


def test_a_checkpoint_that_a_hook_does_not_take_ends_the_resume(runs: Runs) -> None:
    assert runs.train("loop.max_epochs=1").code == 0
    done = runs.train(raises("after_load_checkpoint"), options=("--resume", "--allow-changes"))
    assert done.code == 1
    assert "raised by hook 'raises' at after_load_checkpoint" in done.error
    assert "before_train" not in done.witnessed


def test_a_hook_that_fails_when_it_is_told_of_a_failure_hides_nothing(runs: Runs) -> None:
    second = f"+hooks.second={{type: {__name__}:Raises, point: on_exception}}"
    done = runs.train(raises("before_train_iter", 3), second)
    assert done.code == 1
    assert "wrong at before_train_iter (raised by hook 'raises' at before_train_iter)" in done.error
    assert "hook 'second' failed at on_exception, too: ArithmeticError: wrong at on_exception" in done.error
    assert done.witnessed[-1] == "on_exception"


def test_every_point_is_looked_at() -> None:
    others = {"before_save_checkpoint", "after_load_checkpoint", "on_exception"}
    assert set(AFTER) | set(BEFORE) | others == set(HOOK_POINTS)


def test_sigusr1_has_an_exit_code_of_its_own_and_says_how_to_go_on(runs: Runs) -> None:
    signals = "+hooks.signals={type: tests.hooks.test_preemption:Signals, point: after_train_iter, numbers: [10]}"
    done = runs.train(signals)
    assert done.code == 138
    assert "stopped by SIGUSR1; a checkpoint is saved. Go on with:" in done.said
    assert done.saved[-1] == (3, "SIGUSR1")

"""Runs that go back to their last checkpoint when a step failed, and on behind its batch."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from tests.processes import Starter
from torch import Tensor, nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.cli import main
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import (
    CheckpointHook,
    LoggerHook,
    NonFiniteHook,
    RollbackError,
)
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.runtime import train
from treenail.adapters.sampling import SequentialSampler
from treenail.contracts import Data, Limits, Run, Schedule, StepOutput, TrainWork
from treenail.kernel import ConfigError, Engine, Hook, Spec, TrainingError, late, spec

INFINITE = float("inf")


class Points:
    """Points, some of which are infinite."""

    def __init__(self, *infinite: int) -> None:
        self.points = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
        self.points[list(infinite)] = INFINITE

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.points[index], self.points[index, :1].nan_to_num(posinf=1.0)


class Network(nn.Module):
    """A layer behind batch normalisation, whose statistics one infinite batch would ruin, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs


class Made:
    """Steps that were made, as (attempt, step)."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []


class Visits(Hook):
    """Notes the steps that were made; stops the first attempt after one of them, if it shall."""

    priority = 99

    def __init__(self, made: Made, stop_after: int | None = None) -> None:
        self.made = made
        self.stop_after = stop_after

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self.made.steps.append((engine.attempt, engine.step))
        if engine.step == self.stop_after:
            engine.request_stop("enough")


class StopsBefore(Hook):
    """Asks for a stop in a step, before anybody looks at it."""

    priority = 1

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 4 and engine.attempt == 1:
            engine.request_stop("SIGTERM")


def run(*infinite: int, hooks: dict[str, Spec[Hook] | None] | None = None, max_rollbacks: int = 3) -> Run:
    """Return a run of 2 epochs of 6 batches of 4."""
    return Run(
        seed=3,
        model=spec(Network)(),
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.1, momentum=0.9),
        train=Data(dataset=spec(Points)(*infinite), sampler=late(SequentialSampler)(), batch_size=4),
        schedules=(Schedule(scheduler=late(torch.optim.lr_scheduler.ExponentialLR)(gamma=0.9), every="step"),),
        averaging=late(exponential_average)(momentum=0.1),
        loop=late(EpochLoop)(max_epochs=2),
        hooks={
            "progress": None,
            "logger": spec(LoggerHook)(interval=1, least_seconds=0.0),
            "nonfinite": spec(NonFiniteHook)("rollback", max_rollbacks=max_rollbacks),
            "checkpoint": spec(CheckpointHook)(interval=3, by="step"),
            **(hooks or {}),
        },
    )


def state(work_dir: Path) -> dict[str, dict[str, object]]:
    loaded = CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")[1]
    assert all(isinstance(part, dict) for part in loaded.values())
    return loaded  # type: ignore[return-value]  # as just looked at


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return torch.equal(ours, theirs)
    return bool(ours == theirs)


def scalars(work_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work_dir / "jsonlines" / "scalars.jsonl").read_text().splitlines()]


def test_a_run_goes_back_and_on_behind_the_batch_that_failed(tmp_path: Path) -> None:
    made = Made()
    done = train(run(17, hooks={"visits": spec(Visits)(made)}), tmp_path)  # sample 17: batch 4 of each epoch, from 0
    assert (done.step, done.epoch, done.attempt) == (12, 2, 3)
    assert made.steps == [
        *((1, step) for step in range(4)),
        *((2, step) for step in (3, 5, 6, 7, 8, 9)),
        *((3, step) for step in (9, 11)),
    ]
    engine, schedules = state(tmp_path)["engine"], state(tmp_path)["schedules"]
    assert (engine["step"], engine["attempt"]) == (12, 3)
    assert schedules["schedules"][0]["last_epoch"] == 10  # type: ignore[index]  # schedulers step on updates only
    assert state(tmp_path)["averages"]["updates"] == 10
    lines = [line for line in scalars(tmp_path) if "train/loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 12]
    assert [line["attempt"] for line in lines] == [1, 1, 1, 2, 2, 2, 2, 2, 3, 3]


def test_going_back_gives_the_weights_of_a_plain_loop_without_the_batch(tmp_path: Path) -> None:
    """Batch normalisation, dropout, momentum, schedule and averages included; bit for bit."""
    train(run(17), tmp_path / "back")
    ours = state(tmp_path / "back")
    whole = state_of_plain_loop(tmp_path / "plain")
    for name in ("model", "optimizer", "averages", "rng"):
        assert same(ours[name], whole[name]), name


def test_workers_that_had_prefetched_start_over(tmp_path: Path) -> None:
    alone, helped = run(17), run(17)
    train(alone, tmp_path / "alone")
    train(
        msgspec.structs.replace(helped, train=msgspec.structs.replace(helped.train, num_workers=2)), tmp_path / "helped"
    )
    ours, theirs = state(tmp_path / "helped"), state(tmp_path / "alone")
    for name in ("model", "optimizer", "averages", "rng", "batches"):
        assert same(ours[name], theirs[name]), name


class LeavesOutFifth:
    """A training step that leaves the fifth batch of each epoch of six out."""

    def __init__(self, step: SupervisedStep) -> None:
        self.step = step
        self.calls = 0

    def __call__(self, batch: object) -> StepOutput:
        self.calls += 1
        return StepOutput(0.0, 1, stepped=False) if self.calls % 6 == 5 else self.step(batch)


def loop_that_leaves_out(work: TrainWork) -> EpochLoop:
    assert isinstance(work.step, SupervisedStep)
    return EpochLoop(work._replace(step=LeavesOutFifth(work.step)), max_epochs=2)


def state_of_plain_loop(work_dir: Path) -> dict[str, dict[str, object]]:
    without = run(17, hooks={"nonfinite": None})
    settings = {name: getattr(without, name) for name in without.__struct_fields__ if name != "loop"}
    train(Run(**settings, loop=late(loop_that_leaves_out)()), work_dir)
    return state(work_dir)


@pytest.mark.parametrize("stop_after", [0, 3, 6, 9])
def test_a_run_that_goes_back_may_be_stopped_and_resumed(tmp_path: Path, stop_after: int) -> None:
    train(run(17), tmp_path / "whole")
    hooks: dict[str, Spec[Hook] | None] = {"visits": spec(Visits)(Made(), stop_after)}
    stopped = train(run(17, hooks=hooks), tmp_path / "resumed")
    assert stopped.stop_reason == "enough"
    done = train(run(17), tmp_path / "resumed", resume="latest")
    assert done.step == 12
    ours, theirs = state(tmp_path / "resumed"), state(tmp_path / "whole")
    for name in ("model", "optimizer", "averages", "rng", "schedules", "batches"):
        assert same(ours[name], theirs[name]), name


def test_what_began_anew_does_so_again_where_a_run_goes_back_to_what_it_resumed(tmp_path: Path) -> None:
    first = msgspec.structs.replace(run(17), limits=Limits(max_steps=3))
    assert train(first, tmp_path).step == 3
    lower = msgspec.structs.replace(run(17), optimizer=late(torch.optim.SGD)(lr=0.01, momentum=0.9))
    lower = msgspec.structs.replace(lower, limits=Limits(max_steps=6))
    assert train(lower, tmp_path, resume="latest", restart=("optimizer", "schedules")).attempt == 3
    groups = state(tmp_path)["optimizer"]["param_groups"]
    assert groups[0]["initial_lr"] == 0.01  # type: ignore[index]  # of an optimizer
    assert groups[0]["lr"] == pytest.approx(0.01 * 0.9**2)  # type: ignore[index]  # steps 4 and 6: 5 is left out


def test_a_stop_that_comes_with_the_failure_is_not_forgotten(tmp_path: Path) -> None:
    done = train(run(17, hooks={"stops": spec(StopsBefore)()}), tmp_path)
    assert (done.stop_reason, done.step) == ("SIGTERM", 3)
    assert train(run(17), tmp_path, resume="latest").step == 12


def test_going_back_twice_to_one_checkpoint_makes_two_attempts(tmp_path: Path) -> None:
    made = Made()
    done = train(run(13, 17, hooks={"visits": spec(Visits)(made)}, max_rollbacks=4), tmp_path)
    assert (done.step, done.attempt) == (12, 5)
    assert made.steps[:7] == [(1, 0), (1, 1), (1, 2), (3, 5), (3, 6), (3, 7), (3, 8)]


def test_the_last_batch_of_an_epoch_may_be_left_out(tmp_path: Path) -> None:
    done = train(run(23), tmp_path)
    assert (done.step, done.epoch, done.attempt) == (12, 2, 3)


def test_the_log_has_all_steps_though_the_last_one_of_an_epoch_is_left_out(tmp_path: Path) -> None:
    hooks: dict[str, Spec[Hook] | None] = {
        "logger": spec(LoggerHook)(interval=3, least_seconds=0.0),
        "checkpoint": spec(CheckpointHook)(interval=1, by="step"),
    }
    train(run(23, hooks=hooks), tmp_path)
    assert [line["step"] for line in scalars(tmp_path) if "train/loss" in line] == [3, 6, 9, 12]


def test_a_rollback_without_checkpoints_is_refused_before_training(tmp_path: Path) -> None:
    made = Made()
    with pytest.raises(ConfigError, match="no hook 'checkpoint' that saves one"):
        train(run(hooks={"checkpoint": None, "visits": spec(Visits)(made)}), tmp_path)
    assert not made.steps


def test_there_must_be_something_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 2: the loss is .*; the run cannot go back: there is no checkpoint"):
        train(run(5), tmp_path)


def test_the_checkpoint_of_another_run_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    train(run(), tmp_path)
    with pytest.raises(TrainingError, match="another run's"):
        train(run(5), tmp_path)


def test_a_run_goes_back_only_so_often(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 11: .*\(rollbacks before it: 1\)") as caught:
        train(run(17, max_rollbacks=1), tmp_path)
    assert not isinstance(caught.value, RollbackError)


def test_a_resumed_run_goes_on_counting_the_steps_that_were_skipped(tmp_path: Path) -> None:
    skips: dict[str, Spec[Hook] | None] = {"nonfinite": spec(NonFiniteHook)("skip")}
    stopped = train(run(17, hooks={**skips, "visits": spec(Visits)(Made(), 7)}), tmp_path)
    assert stopped.step == 8
    assert train(run(17, hooks=skips), tmp_path, resume="latest").attempt == 2
    lines = [line for line in scalars(tmp_path) if "lr" in line]
    assert [line.get("skipped_steps") for line in lines] == [*[None] * 4, *[1.0] * 6, *[2.0] * 2]
    assert ["train/loss" in line for line in lines] == [step not in (5, 11) for step in range(1, 13)]


class Spikes(Hook):
    """Goes back for a reason of its own, once."""

    def __init__(self) -> None:
        self.done = False

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 7 and not self.done:
            self.done = True
            raise RollbackError("the loss jumped", step=engine.step)


def test_any_hook_may_let_a_run_go_back(tmp_path: Path) -> None:
    done = train(run(hooks={"nonfinite": None, "spikes": spec(Spikes)()}), tmp_path)
    assert (done.step, done.attempt) == (12, 2)


RANKED = """
import torch
from tests.adapters.test_rollback import run
run = run(18, max_rollbacks=5)
"""


def train_ranked(directory: Path, option: str) -> int:
    """Run the command as one of its ranks, and write down what it says."""
    with (directory / f"said-{os.environ['RANK']}").open("w") as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    return main(["train", str(directory / "ranked.py"), "--work-dir", str(directory / "run"), option])


@pytest.mark.parametrize("look_at", ["both", "loss"])
def test_ranks_go_back_together(tmp_path: Path, starter: Starter, look_at: str) -> None:
    """Sample 18 is in the share of rank 0 of two only, so that rank 1's own loss is finite."""
    (tmp_path / "ranked.py").write_text(RANKED)
    codes = starter.launch(train_ranked, tmp_path, 2, f"+hooks.nonfinite.look_at={look_at}")
    said = "".join((tmp_path / f"said-{rank}").read_text() for rank in range(2))
    assert codes == [0, 0], said
    assert said.count("its update was not made") == (2 if look_at == "both" else 0), said
    assert said.count("its update was made") == (2 if look_at == "loss" else 0), said
    engine = state(tmp_path / "run")["engine"]
    assert (engine["step"], engine["attempt"]) == (12, 3)
    model = state(tmp_path / "run")["model"].values()
    assert all(isinstance(value, Tensor) and torch.isfinite(value).all() for value in model)

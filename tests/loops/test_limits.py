"""Runs that end before their own end, or are only tried, from their configs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from tests.resume.outcomes import difference
from torch import Tensor, nn

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.cli import main
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BestHook, LoggerHook
from treenail.adapters.loops import EpochLoop, StepLoop
from treenail.adapters.runtime import fast_dev_run, train
from treenail.adapters.sampling.compat import InfiniteSampler
from treenail.contracts import Data, Evaluation, Limits, Run, Schedule
from treenail.kernel import ConfigError, Engine, Hook, Metric, late, spec


class Points:
    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((3,), float(index)) + torch.rand(3) / 10, torch.tensor(index % 2)


class Counts(Hook):
    """Writes down into a file of the test what it sees."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _say(self, what: str) -> None:
        with self.path.open("a") as file:
            print(what, file=file)

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._say("step")

    def after_train_epoch(self, engine: Engine) -> None:
        self._say("epoch")

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._say("val")

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self._say(f"metrics {sorted(metrics)}")

    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._say("test")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.2))


def run(limits: Limits | None = None, path: Path | None = None, loop: str = "epochs") -> Run:
    return Run(
        model=spec(network)(),
        loss=spec(nn.CrossEntropyLoss)(),
        optimizer=late(torch.optim.SGD)(lr=1e-3),
        train=Data(
            dataset=spec(Points)(),
            batch_size=2,
            sampler=late(InfiniteSampler)(seed=1) if loop == "endless" else None,
        ),
        val=Evaluation(dataset=spec(Points)(8), batch_size=2, metrics=(spec(Accuracy)(),)),
        test=Evaluation(dataset=spec(Points)(6), batch_size=2),
        loop=late(EpochLoop)(max_epochs=2) if loop == "epochs" else late(StepLoop)(max_steps=10, val_interval=4),
        hooks={
            "progress": None,
            "logger": spec(LoggerHook)(interval=1, least_seconds=60),
            "best": spec(BestHook)("val/accuracy"),
            **({"counts": spec(Counts)(path)} if path else {}),
        },
        limits=limits or Limits(),
        device="cpu",
        seed=3,
    )


def state(work_dir: Path) -> dict[str, object]:
    _, tree = CheckpointStore(LocalFiles(work_dir / "checkpoints")).load("latest")
    own = tree.pop("engine")
    assert isinstance(own, dict)
    return {**tree, "step": own["step"], "epoch": own["epoch"], "commits": own["commits"]}


@pytest.mark.parametrize("loop", ["epochs", "steps"])
def test_a_limit_of_steps_stops_with_a_checkpoint_and_the_run_goes_on_from_it(tmp_path: Path, loop: str) -> None:
    whole = train(run(loop=loop), tmp_path / "whole")
    for limit in (3, 5):
        stopped = train(run(Limits(max_steps=limit), loop=loop), tmp_path / f"{limit}")
        assert (stopped.step, stopped.stop_reason) == (limit, f"limit of {limit} steps")
        assert "test/loss" not in stopped.metrics
        at_once = train(run(Limits(max_steps=limit), loop=loop), tmp_path / f"{limit}", resume="latest")
        assert (at_once.step, at_once.stop_reason) == (limit, f"limit of {limit} steps")
        ended = train(run(loop=loop), tmp_path / f"{limit}", resume="latest")
        assert (ended.step, ended.stop_reason, ended.metrics) == (10, None, whole.metrics)
        for part in ("model", "optimizer", "batches", "rng", "loop", "schedules"):
            where = difference(state(tmp_path / f"{limit}")[part], state(tmp_path / "whole")[part], part)
            assert where is None, where


@pytest.mark.parametrize("loop", ["epochs", "steps"])
def test_a_limit_that_is_the_runs_own_end_takes_nothing_from_it(tmp_path: Path, loop: str) -> None:
    unlimited = train(run(path=tmp_path / "unlimited seen", loop=loop), tmp_path / "unlimited")
    limited = train(run(Limits(max_steps=10), tmp_path / "seen", loop), tmp_path / "limited")
    assert (limited.step, limited.epoch, limited.stop_reason, limited.metrics) == (10, 2, None, unlimited.metrics)
    assert (tmp_path / "seen").read_text() == (tmp_path / "unlimited seen").read_text()
    again = train(run(Limits(max_steps=10), tmp_path / "seen", loop), tmp_path / "limited", resume="latest")
    assert (again.step, again.stop_reason, "test/loss" in again.metrics) == (10, None, True)


def test_a_trial_of_the_whole_training_validates_once(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    short = msgspec.structs.replace(run(path=path), loop=late(StepLoop)(max_steps=3))
    assert "test/loss" in fast_dev_run(short, 3).metrics
    assert path.read_text().count("metrics") == 1


def test_a_limit_saves_though_no_hook_does(tmp_path: Path) -> None:
    for limits in (Limits(max_steps=3), Limits(max_seconds=1e-6)):
        short = run(limits)
        short = msgspec.structs.replace(short, hooks={"checkpoint": None, "progress": None})
        summary = train(short, tmp_path / f"{limits.max_steps}")
        assert summary.checkpoints is not None
        assert state(tmp_path / f"{limits.max_steps}")["step"] == summary.step


def test_a_limit_of_time_stops_a_run_that_would_not_end(tmp_path: Path) -> None:
    endless = msgspec.structs.replace(run(Limits(max_seconds=0.3)), loop=late(EpochLoop)(max_epochs=10**9))
    stopped = train(endless, tmp_path)
    assert stopped.stop_reason == "limit of time"
    assert stopped.checkpoints is not None
    more = msgspec.structs.replace(endless, limits=Limits(max_steps=stopped.step + 3))
    assert train(more, tmp_path, resume="latest").step == stopped.step + 3


def test_limits_of_batches_make_every_part_small(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    summary = train(run(Limits(train_batches=2, val_batches=3, test_batches=1), path), tmp_path / "run")
    epoch = ["step"] * 2 + ["epoch"] + ["val"] * 3 + ["metrics ['val/accuracy', 'val/loss']"]
    assert path.read_text().split("\n")[:-1] == [*epoch, *epoch, "test"]
    assert (summary.step, summary.epoch) == (4, 2)


def test_an_epoch_of_passes_without_end_is_not_cut(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits\.train_batches: .*epoch_length"):
        train(run(Limits(train_batches=2), loop="endless"), tmp_path)
    assert train(run(Limits(train_batches=2, max_steps=2), loop="endless"), tmp_path).step == 2


@pytest.mark.parametrize("loop", ["epochs", "steps", "endless"])
def test_a_fast_dev_run_tries_every_part_and_keeps_nothing(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "seen"
    summary = fast_dev_run(run(path=path, loop=loop), 3)
    assert sorted(path.read_text().split("\n")[:-1]) == sorted(
        [*["step"] * 3, "epoch", *["val"] * 3, "metrics ['val/accuracy', 'val/loss']", *["test"] * 3]
    )
    assert (summary.step, summary.stop_reason, summary.checkpoints) == (3, None, None)
    assert {"val/accuracy", "val/loss", "test/loss"} <= summary.metrics.keys()
    assert not summary.work_dir.exists()
    with pytest.raises(ConfigError, match="0 batches"):
        fast_dev_run(run(), 0)


CONFIG = """
model: {type: Linear, in_features: 64, out_features: 10}
loss: {type: cross_entropy}
optimizer: {type: SGD, lr: 0.01}
train: {dataset: {type: treenail_test_flat:Flat}, batch_size: 64}
val: {dataset: {type: treenail_test_flat:Flat}, batch_size: 64, metrics: [{type: accuracy}]}
loop:
  type: treenail.adapters.loops:StepLoop
  max_steps: 40
  val_interval: 10
  dynamic_intervals: [[30, 2]]
imports: [treenail_test_flat, treenail.adapters.loops]
device: cpu
"""
FLAT = '''
import torch


class Flat:
    """Numbers of no meaning."""

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(64), index % 10
'''


def test_the_command_tries_a_run_and_stops_at_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("treenail_test_flat.py").write_text(FLAT)
    Path("config.yaml").write_text(CONFIG)
    assert main(["train", "config.yaml", "--work-dir", "kept", "+limits.max_steps=1"]) == 0
    assert "stopped by limit of 1 step; a checkpoint is saved" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*")}
    assert main(["train", "config.yaml", "--work-dir", "kept", "--fast-dev-run=2"]) == 0
    said = capsys.readouterr()
    assert "kept          nothing: only 2 batches of each set were tried" in said.out
    assert "val/accuracy" in said.out
    assert {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*")} == before
    assert not Path("work_dirs").exists()
    assert main(["train", "config.yaml", "--fast-dev-run", "--resume"]) == 2
    assert "leave out --resume" in capsys.readouterr().err


class Breaks(Accuracy):
    """A metric with a mistake that only `compute` shows."""

    def compute(self) -> dict[str, float]:
        raise KeyError("no such class")


def test_a_sanity_validation_shows_a_mistake_before_the_first_step(tmp_path: Path) -> None:
    wrong: Metric = Breaks()
    broken = run(Limits(sanity_batches=1), tmp_path / "seen")
    val = Evaluation(dataset=spec(Points)(8), batch_size=2, metrics=(spec(lambda: wrong)(),))
    with pytest.raises(KeyError, match="no such class") as caught:
        train(msgspec.structs.replace(broken, val=val), tmp_path / "run")
    assert "in the sanity validation, before the first step" in caught.value.__notes__
    assert not (tmp_path / "seen").exists()
    assert not (tmp_path / "run" / "checkpoints" / "latest").exists()


def test_a_sanity_validation_moves_nothing(tmp_path: Path) -> None:
    plain = train(run(path=tmp_path / "plain_seen"), tmp_path / "plain")
    checked = train(run(Limits(sanity_batches=2), tmp_path / "checked_seen"), tmp_path / "checked")
    assert checked.metrics == plain.metrics
    assert (tmp_path / "checked_seen").read_text() == (tmp_path / "plain_seen").read_text()
    where = difference(state(tmp_path / "checked"), state(tmp_path / "plain"))
    assert where is None, where


class RoundsHook(Hook):
    """The hook points of `Rounds`, besides those of `Hook`."""

    def before_round(self, engine: Engine, number: int, /) -> None:
        """Before a round."""


class Rounds(EpochLoop):
    """Trains in rounds that hooks are told of."""

    hook_points = RoundsHook

    def run(self, engine: Engine) -> None:
        for number in range(2):
            engine.fire("before_round", number)
        super().run(engine)


class Tells(RoundsHook):
    def __init__(self, path: Path) -> None:
        self.path = path

    def before_round(self, engine: Engine, number: int) -> None:
        with self.path.open("a") as file:
            print(number, file=file)


def test_a_loop_brings_hook_points_of_its_own(tmp_path: Path) -> None:
    hooks = {"progress": None, "tells": spec(Tells)(tmp_path / "rounds")}
    rounds = msgspec.structs.replace(run(), loop=late(Rounds)(max_epochs=1), hooks=hooks)
    assert train(rounds, tmp_path / "run").epoch == 1
    assert (tmp_path / "rounds").read_text() == "0\n1\n"


class Wrong(EpochLoop):
    hook_points = "before_round"


def test_hook_points_that_are_no_class_of_hooks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hook_points of Wrong is 'before_round'"):
        train(msgspec.structs.replace(run(), loop=late(Wrong)(max_epochs=1)), tmp_path)


class TakesLength(torch.optim.lr_scheduler.LambdaLR):
    """Remembers how long it is told an epoch is."""

    def __init__(self, optimizer: torch.optim.Optimizer, epoch_length: int | None = None) -> None:
        assert epoch_length == 3
        super().__init__(optimizer, lambda _: 1.0)


def test_schedules_are_told_the_length_of_the_loops_epochs(tmp_path: Path) -> None:
    scheduled = msgspec.structs.replace(
        run(), loop=late(EpochLoop)(max_epochs=1, epoch_length=3), schedules=(Schedule(scheduler=late(TakesLength)()),)
    )
    assert train(scheduled, tmp_path / "loop").step == 3
    cut = msgspec.structs.replace(scheduled, loop=late(EpochLoop)(max_epochs=1), limits=Limits(train_batches=3))
    assert train(cut, tmp_path / "limit").step == 3

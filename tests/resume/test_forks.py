"""Runs that go on from a checkpoint elsewhere, or let parts of one begin anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
import torch
from tests.hooks.small_runs import small_run
from tests.resume.outcomes import difference
from torch import Tensor, nn

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.cli import main
from treenail.adapters.evaluation import RegressionErrors
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import BestHook, CheckpointHook
from treenail.adapters.launch import LAUNCH_ID
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import train
from treenail.contracts import Evaluation, Run
from treenail.kernel import CheckpointError, ConfigError, Engine, Hook, Late, Spec, TrainingError, late, spec

CONFIG = """
seed: 1
device: cpu
threads: 1
imports: [tests]
model: {type: Linear, in_features: 4, out_features: 1}
loss: {type: MSELoss}
optimizer: {type: Adam, lr: 0.01}
schedules: [{scheduler: {type: StepLR, step_size: 1, gamma: 0.5}, every: epoch}]
train: {dataset: {type: "tests.hooks.small_runs:Points"}, batch_size: 4}
loop: {type: epochs, max_epochs: 2}
hooks: {progress: null}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)
    return "run.yaml"


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    found = main(["train", *words])
    out = capsys.readouterr()
    assert found == code, out.out + out.err
    return out.out + out.err


def saved(work_dir: Path | str, name: str = "latest") -> tuple[str, dict[str, object]]:
    manifest, state = CheckpointStore(LocalFiles(Path(work_dir) / "checkpoints")).load(name)
    return manifest.run, state


def files(work_dir: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(work_dir).rglob("*") if path.is_file()}


def test_a_run_goes_on_elsewhere_and_the_old_place_stays_as_it_is(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, config, "--work-dir", "old", "checkpoints.keep_last=1")
    before = files("old")
    where = "old/checkpoints/latest"
    text = said(capsys, config, "--work-dir", "new", "--resume", "--checkpoint", where, "loop.max_epochs=4")
    assert "steps        16 (4 epochs)" in text
    assert "attempt      2" in text
    assert "checkpoint=old/checkpoints/step-00000008.2" in text
    assert files("old") == before
    said(capsys, config, "--work-dir", "whole", "loop.max_epochs=4")
    assert saved("new")[0] != saved("old")[0]
    for part in ("model", "optimizer", "batches", "rng", "schedules"):
        assert difference(saved("new")[1][part], saved("whole")[1][part], part) is None
    said(capsys, config, "--work-dir", "new", "--resume", "loop.max_epochs=5")  # as any other run
    assert saved("new")[1]["engine"]["step"] == 20  # type: ignore[index]  # a mapping


def test_a_fork_that_cannot_be_leaves_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "old")
    where = str(Path("old/checkpoints/latest").absolute())
    text = said(capsys, config, "--resume", "--checkpoint", "nowhere/latest", code=2)
    assert "nowhere/latest: there is no such checkpoint" in text
    assert not Path("work_dirs/run/001").exists()
    text = said(capsys, config, "--resume", "--checkpoint", where, "optimizer.lr=0.1", code=2)
    assert "optimizer.lr: 0.01 → 0.1" in text
    said(capsys, config, "--work-dir", "other")
    text = said(capsys, config, "--work-dir", "other", "--resume", "--checkpoint", where, code=2)
    assert "holds a run already" in text
    assert "leave out --checkpoint to go on with it" in text


def test_a_path_into_the_own_work_directory_is_no_fork(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "here")
    run, _ = saved("here")
    where = "here/checkpoints/step-00000004"
    said(capsys, config, "--work-dir", "here", "--resume", "--checkpoint", where, "loop.max_epochs=3")
    assert saved("here")[0] == run
    assert saved("here")[1]["engine"]["step"] == 12  # type: ignore[index]  # a mapping


def test_a_fork_of_a_run_that_is_done_has_a_checkpoint_to_go_on_from(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, config, "--work-dir", "old")
    said(capsys, config, "--work-dir", "new", "--resume", "--checkpoint", "old/checkpoints/latest")
    assert saved("new")[1]["engine"]["step"] == 8  # type: ignore[index]  # a mapping


def test_a_fork_whose_launch_starts_again_begins_anew_only_what_was_not_trained_on(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, config, "--work-dir", "old")
    monkeypatch.setenv(LAUNCH_ID, "ours")
    fork = (config, "--work-dir", "new", "--resume", "--checkpoint", "old/checkpoints/latest", "loop.max_epochs=4")
    anew = (*fork, "--restart=optimizer", "--restart=schedules")
    said(capsys, *anew, "model.in_features=5", "--allow-changes", code=2)  # ends before it saved anything
    assert "checkpoint=old/checkpoints/step-00000008" in said(capsys, *anew, "limits.max_steps=9")
    assert saved("new")[1]["optimizer"]["param_groups"][0]["lr"] == 0.01  # type: ignore[index]  # a mapping
    assert "checkpoint=step-00000009" in said(capsys, *anew)
    assert saved("new")[1]["optimizer"]["param_groups"][0]["lr"] == 0.0025  # type: ignore[index]  # a mapping


def test_a_launch_that_starts_again_does_not_go_back_to_an_earlier_checkpoint_twice(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, config, "--work-dir", "here")
    monkeypatch.setenv(LAUNCH_ID, "ours")
    back = (config, "--work-dir", "here", "--resume", "--checkpoint", "step-00000004", "loop.max_epochs=3")
    assert "checkpoint=step-00000004" in said(capsys, *back, "limits.max_steps=6")
    assert "checkpoint=step-00000006" in said(capsys, *back)


def test_what_begins_anew_is_saved_although_nothing_is_left_to_train(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, config, "--work-dir", "here")
    said(capsys, config, "--work-dir", "here", "--resume", "--restart=optimizer", "--restart=schedules")
    assert saved("here")[1]["optimizer"]["param_groups"][0]["lr"] == 0.01  # type: ignore[index]  # a mapping


def test_what_the_config_says_in_vain_is_told(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "here")
    again = (config, "--work-dir", "here", "--resume", "loop.max_epochs=3", "--allow-changes")
    text = said(capsys, *again, "optimizer.lr=0.1", "schedules.0.scheduler.gamma=0.1")
    assert "the checkpoint's values hold" in text
    assert "optimizer.lr: 0.01 → 0.1" in text
    assert "schedules[0].scheduler.gamma: 0.5 → 0.1" in text
    assert rates("here")[-1] == pytest.approx(0.01 * 0.5**2)


def rates(work_dir: str) -> list[float]:
    lines = [json.loads(line) for line in Path(work_dir, "jsonlines/scalars.jsonl").read_text().splitlines()]
    return [each["lr"] for each in lines if "lr" in each]


def test_schedules_that_begin_anew_take_the_numbers_of_the_config_and_keep_the_moments(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, config, "--work-dir", "here")
    again = (
        config,
        "--work-dir",
        "here",
        "--resume",
        "loop.max_epochs=3",
        "optimizer.lr=0.1",
        "hooks.logger.interval=1",
    )
    text = said(capsys, *again, "--restart=schedules", "optimizer.weight_decay=0.5")
    assert "values hold" not in text
    assert rates("here")[-1] == pytest.approx(0.1)
    state = saved("here")[1]["optimizer"]
    assert isinstance(state, dict)
    assert state["param_groups"][0]["weight_decay"] == 0.5
    assert int(state["state"][0]["step"]) == 12
    said(
        capsys,
        config,
        "--work-dir",
        "here",
        "--resume",
        "loop.max_epochs=4",
        "optimizer.lr=0.1",
        "optimizer.weight_decay=0.5",
    )
    assert rates("here")[-1] == pytest.approx(0.05)  # a further resume begins nothing anew


def test_another_optimizer_begins_anew_or_is_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "here")
    again = (config, "--work-dir", "here", "--resume", "loop.max_epochs=3", "optimizer.type=RMSprop")
    text = said(capsys, *again, "--allow-changes", code=2)
    assert "optimizer.type: torch.optim.adam:Adam → torch.optim.rmsprop:RMSprop" in text
    assert "--restart optimizer --restart schedules" in text
    assert "restart schedules, too" in said(capsys, *again, "--restart=optimizer", code=2)
    assert "there are optimizer, schedules" in said(capsys, *again, "--restart=model", code=2)
    said(capsys, *again, "--restart=optimizer", "--restart=schedules")
    state = saved("here")[1]["optimizer"]
    assert isinstance(state, dict)
    assert int(state["state"][0]["step"]) == 4
    text = said(capsys, config, "--restart=optimizer", code=2)
    assert "--resume is missing" in text


def test_other_schedules_begin_anew_or_are_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "here")
    other = "schedules=[{scheduler: {type: ExponentialLR, gamma: 0.1}, every: epoch}]"
    again = (config, "--work-dir", "here", "--resume", "loop.max_epochs=4", other)
    assert "--restart schedules" in said(capsys, *again, "--allow-changes", code=2)
    said(capsys, *again, "--restart=schedules")
    state = saved("here")[1]["optimizer"]
    assert isinstance(state, dict)
    assert state["param_groups"][0]["lr"] == pytest.approx(0.01 * 0.1**2)


def test_a_state_of_another_class_is_refused_though_no_config_says_so(tmp_path: Path) -> None:
    def run(optimizer: Late[Iterable[Tensor], torch.optim.Optimizer], epochs: int) -> Run:
        return msgspec.structs.replace(small_run(epochs), optimizer=optimizer)

    def adam(parameters: Iterable[Tensor], lr: float = 0.1) -> torch.optim.Optimizer:
        return CLASSES[0](parameters, {"lr": lr})

    train(run(late(adam)(lr=0.1), 1), tmp_path)
    CLASSES.insert(0, lambda parameters, given: torch.optim.SGD(parameters, lr=given["lr"]))
    try:
        with pytest.raises(CheckpointError, match=r"another class than SGD: .*--restart optimizer"):
            train(run(late(adam)(lr=0.1), 2), tmp_path, resume="latest")
    finally:
        CLASSES.pop(0)


CLASSES: list[Callable[[Iterable[Tensor], dict[str, float]], torch.optim.Optimizer]] = [
    lambda parameters, given: torch.optim.Adam(parameters, lr=given["lr"])
]


def test_what_is_measured_may_change_where_nothing_looks_at_it(tmp_path: Path) -> None:
    def run(epochs: int, **hooks: Spec[Hook] | None) -> Run:
        plain = small_run(epochs, **hooks)
        if epochs == 1:
            return plain
        assert isinstance(plain.val, Evaluation)
        val = msgspec.structs.replace(plain.val, metrics=(spec(RegressionErrors)(),))
        return msgspec.structs.replace(plain, val=val, loop=late(EpochLoop)(max_epochs=epochs, val_interval=2))

    train(run(1), tmp_path / "free")
    assert "val/mae" in train(run(2), tmp_path / "free", resume="latest").metrics
    best = spec(BestHook)("val/loss", "min")
    train(run(1, best=best), tmp_path / "watched")
    with pytest.raises(ConfigError, match=r"loop\.val_interval"):
        train(run(2, best=best), tmp_path / "watched", resume="latest")


def test_a_run_that_is_done_says_so_and_saves_nothing_more(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, config, "--work-dir", "here")
    before = sorted(Path("here/checkpoints").iterdir())
    text = said(capsys, config, "--work-dir", "here", "--resume")
    assert "nothing was left to train" in text
    assert sorted(Path("here/checkpoints").iterdir()) == before
    Path("here/checkpoints/latest").unlink()  # then the state is saved for it, again
    said(capsys, config, "--work-dir", "here", "--resume")
    assert Path("here/checkpoints/latest").exists()


def test_the_same_state_is_saved_once(tmp_path: Path) -> None:
    best = spec(BestHook)("val/loss", "min")
    run = small_run(2, best=best, checkpoint=spec(CheckpointHook)(published=("last",)))
    train(run, tmp_path)
    store = CheckpointStore(LocalFiles(tmp_path / "checkpoints"))
    pointers = store.pointers()
    assert pointers["latest"] == pointers["best"] == "step-00000008.2"
    ended = train(msgspec.structs.replace(run, loop=late(EpochLoop)(max_epochs=4)), tmp_path, resume="latest")
    whole = train(msgspec.structs.replace(run, loop=late(EpochLoop)(max_epochs=4)), tmp_path / "whole")
    assert ended.metrics == whole.metrics
    for part in ("model", "optimizer", "batches", "rng", "loop"):
        assert difference(saved(tmp_path)[1][part], saved(tmp_path / "whole")[1][part], part) is None


class Ends(Hook):
    """Changes the model when the training ends."""

    def after_train(self, engine: Engine) -> None:
        engine.part("model", nn.Linear).bias.data.fill_(7.0)


def test_what_a_hook_changes_at_the_end_is_saved(tmp_path: Path) -> None:
    train(small_run(1, best=spec(BestHook)("val/loss", "min"), last=spec(Ends)()), tmp_path)
    model = saved(tmp_path)[1]["model"]
    assert isinstance(model, dict)
    assert model["bias"].item() == 7.0


def test_a_misspelt_metric_is_put_right_when_the_run_goes_on(tmp_path: Path) -> None:
    def run(metric: str) -> Run:
        plain = small_run(2, checkpoint=spec(CheckpointHook)(save_best=metric, rule="greater"))
        assert isinstance(plain.val, Evaluation)
        return msgspec.structs.replace(plain, val=msgspec.structs.replace(plain.val, metrics=(spec(Named)(),)))

    with pytest.raises(TrainingError, match="'scoer', which validation does not give"):
        train(run("scoer"), tmp_path)
    summary = train(run("score"), tmp_path, resume="latest")
    assert summary.step == 8
    assert "best" in CheckpointStore(LocalFiles(tmp_path / "checkpoints")).pointers()


class Named:
    """A metric whose results are known by its results only."""

    def reset(self) -> None:
        """Forget everything."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Look at nothing."""

    def compute(self) -> dict[str, float]:
        return {"score": 1.0}

"""What is only tried leaves real files alone; what counts epochs in a run by steps is told of."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.hooks.servers import web_server
from tests.hooks.small_runs import small_run
from torch.optim.lr_scheduler import StepLR

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.cli.main import parse
from treenail.adapters.evaluation import DumpPredictions
from treenail.adapters.evaluation.compat import DumpResults
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import CheckpointHook, NotifyHook, ProfilerHook
from treenail.adapters.hooks.compat import LoggerHook
from treenail.adapters.hooks.messages import Webhook
from treenail.adapters.loops import StepLoop
from treenail.adapters.runtime import fast_dev_run, train
from treenail.adapters.runtime.outputs import redirected
from treenail.contracts import Evaluation, Limits, Run, Schedule
from treenail.kernel import Engine, Hook, Spec, late, spec


def dumping(path: Path, **hooks: Spec[Hook] | None) -> Run:
    run = small_run(1, **hooks)
    assert isinstance(run.val, Evaluation)
    metrics = (spec(DumpPredictions)(str(path / "val.npy")),)
    return msgspec.structs.replace(run, val=msgspec.structs.replace(run.val, metrics=metrics))


def test_a_trial_leaves_real_files_alone(tmp_path: Path) -> None:
    train(dumping(tmp_path), tmp_path / "real")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert tmp_path / "val.npy" in before
    with web_server() as (port, posted):
        run = dumping(
            tmp_path,
            lines=spec(LoggerHook)(out_dir=str(tmp_path / "copies")),
            profiler=spec(ProfilerHook)(tmp_path / "profile"),
            notify=spec(NotifyHook)(webhook=Webhook(url=f"http://127.0.0.1:{port}/")),
        )
        run = msgspec.structs.replace(run, test=run.val, priorities={"notify": 99, "lines": 3})
        summary = fast_dev_run(run, 1)
        assert posted == []
    assert "val/loss" in summary.metrics
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_sanity_validation_leaves_real_files_alone(tmp_path: Path) -> None:
    class Fails(Hook):
        def before_train(self, engine: Engine) -> None:
            raise KeyError("before the first step")

    run = dumping(tmp_path, fails=Spec(Fails))
    with pytest.raises(KeyError):
        train(msgspec.structs.replace(run, limits=Limits(sanity_batches=1)), tmp_path / "real")
    assert not (tmp_path / "val.npy").exists()


@pytest.mark.parametrize(
    ("words", "overrides", "batches"),
    [
        (["--fast-dev-run", "run.yaml"], [], 1),
        (["run.yaml", "--fast-dev-run", "seed=3"], ["seed=3"], 1),
        (["run.yaml", "seed=3", "--fast-dev-run"], ["seed=3"], 1),
        (["--fast-dev-run", "2", "run.yaml"], [], 2),
        (["run.yaml", "--fast-dev-run=2"], [], 2),
        (["--fast-dev-run", "--debug", "run.yaml"], [], 1),
    ],
)
def test_a_trial_may_be_asked_for_anywhere(words: list[str], overrides: list[str], batches: int) -> None:
    options = parse(["train", *words])
    assert (str(options.config), list(options.overrides), options.fast_dev_run) == ("run.yaml", overrides, batches)


def test_a_pickle_of_results_goes_elsewhere_too(tmp_path: Path) -> None:
    by_position = redirected(spec(DumpResults)(str(tmp_path / "real.pkl")), tmp_path / "tried")
    by_name = redirected(
        spec(DumpResults)(out_file_path="s3://bucket/real.pkl", collect_device="cpu"), tmp_path / "tried"
    )
    for each in (by_position, by_name):
        built = each.build()
        assert isinstance(built, DumpResults)
        assert str(built.out_file_path) == str(tmp_path / "tried" / "real.pkl")


def by_steps(max_steps: int = 6, **hooks: Spec[Hook] | None) -> Run:
    return msgspec.structs.replace(
        small_run(2, **hooks), loop=late(StepLoop)(max_steps=max_steps, val_interval=2), val=None
    )


def test_a_run_by_steps_saves_as_often_as_it_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(by_steps(), tmp_path)
    saved = [each.step for _, each in CheckpointStore(LocalFiles(tmp_path / "checkpoints")).manifests()]
    assert sorted(saved) == [2, 4, 6]
    assert "counts epochs" not in capsys.readouterr().err


def test_what_counts_epochs_and_never_comes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = by_steps(4, checkpoint=spec(CheckpointHook)())
    schedule = Schedule(scheduler=late(StepLR)(step_size=1))
    train(msgspec.structs.replace(run, schedules=(schedule,)), tmp_path / "short")
    text = capsys.readouterr().err
    assert "hooks.checkpoint counts epochs and saves nothing before the end: a pass over the data has 4 steps" in text
    assert "the schedule StepLR (number 0) steps after epochs, so never before the end" in text
    run = by_steps(5, checkpoint=spec(CheckpointHook)())
    train(msgspec.structs.replace(run, schedules=(schedule,)), tmp_path / "long")
    assert "epochs" not in capsys.readouterr().err

"""A training under mmengine's hooks: lines, records, the hub, schedules, and what is said after a resume."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from treenail.adapters.averaging import exponential_average
from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.hooks import BoundSchedule, ProgressHook, ScheduleHook, Schedules, TimerHook
from treenail.adapters.hooks import LoggerHook as OurLoggerHook
from treenail.adapters.hooks.compat import (
    DistSamplerSeedHook,
    IterTimerHook,
    LineFormat,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
    bind_runner,
    get_priority,
    runner_of,
)
from treenail.adapters.logging.compat import LogProcessor, MessageHub
from treenail.adapters.loops import EpochLoop, EvalLoop
from treenail.adapters.optim import OptimWrapper, SupervisedStep
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Communicator, Engine, Hook, HookError, TrainingError

BATCHES = 25


def build(
    max_epochs: int = 1, step: Callable[[object], StepOutput] | None = None, *, validated: bool = False
) -> Engine:
    """Return an engine with the parts of a small training, and its loop among them."""
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    updater = OptimWrapper(torch.optim.SGD(network.parameters(), lr=0.1))
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(BATCHES)]
    source = Batches(data)
    validation = (
        EvalLoop("val", network, nn.CrossEntropyLoss(), Batches(data[:12]), [Accuracy()]) if validated else None
    )
    work = TrainWork(step or SupervisedStep(network, nn.CrossEntropyLoss(), updater), source, validation)
    loop = EpochLoop(work, max_epochs=max_epochs)
    schedule = BoundSchedule(torch.optim.lr_scheduler.ExponentialLR(updater.optimizer, 0.5), "epoch")
    return Engine(
        {
            "model": network,
            "optimizer": updater.optimizer,
            "updates": updater,
            "schedules": Schedules([schedule]),
            "batches": source,
            "loop": loop,
        }
    )


def run(engine: Engine, *others: Any, resume: dict[str, object] | None = None) -> None:
    engine.run(engine.part("loop", EpochLoop), *others, resume=resume)


def lines_of(printed: str) -> list[str]:
    """Return what lines say after time, name and level."""
    return [line.split(" - ", 3)[3] for line in printed.splitlines()]


def records_of(path: Path, event: str = "train") -> list[dict[str, Any]]:
    return [line for line in map(json.loads, path.read_text().splitlines()) if line["event"] == event]


def test_lines_are_those_of_mmengine_at_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = build(2, validated=True)
    engine.attach(TimerHook(), "timer")
    engine.attach(LoggerHook(log_file=tmp_path / "log.jsonl"), "logger")
    bind_runner(engine.hooks.values(), work_dir=tmp_path / "digits")
    run(engine)
    number = r"\d+\.\d{4}"
    head = rf"lr: \S+  eta: 0:00:0\d  time: {number}  data_time: {number}  loss: {number}"
    evaluation = rf"eta: 0:00:0\d  time: {number}  data_time: {number}|time: {number}  data_time: {number}"
    expected = []
    for epoch in (1, 2):
        expected += [rf"Epoch\(train\) \[{epoch}\]\[{done}/25\]  {head}" for done in (10, 20)]
        expected += ["Exp name: digits", rf"Epoch\(val\) \[{epoch}\]\[10/\S+\]  ({evaluation})"]
        expected += [rf"Epoch\(val\) \[{epoch}\]\[12/\S+\]  loss: {number}  accuracy: {number}  data_time: .*"]
    found = lines_of(capsys.readouterr().out)
    assert len(found) == len(expected)
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert [line["step"] for line in records_of(tmp_path / "log.jsonl")] == [10, 20, 35, 45]
    assert [set(line) & {"val/loss", "val/accuracy"} for line in records_of(tmp_path / "log.jsonl", "val")] == [
        {"val/loss", "val/accuracy"}
    ] * 2


@pytest.mark.parametrize(
    ("interval", "ignore_last", "steps"),
    [(10, True, [10, 20, 35, 45]), (10, False, [10, 20, 25, 35, 45, 50]), (30, True, [25, 50]), (25, True, [25, 50])],
)
def test_the_last_iterations_of_an_epoch_are_ignored_unless_they_are_all(
    tmp_path: Path, interval: int, ignore_last: bool, steps: list[int]
) -> None:
    engine = build(2)
    engine.attach(LoggerHook(interval, ignore_last, log_file=tmp_path / "log.jsonl"))
    run(engine)
    assert [line["step"] for line in records_of(tmp_path / "log.jsonl")] == steps


def test_windows_and_statistics_are_chosen_by_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = iter(range(1, BATCHES + 1))
    engine = build(step=lambda batch: StepOutput(float(next(losses)), 8))
    custom: tuple[dict[str, Any], ...] = (
        {"data_src": "loss", "method_name": "mean", "window_size": 2},
        {"data_src": "loss", "log_name": "least", "method_name": "min", "window_size": "global"},
    )
    engine.attach(
        LoggerHook(10, log_file=tmp_path / "l.jsonl", log_processor=LineFormat(num_digits=1, custom_cfg=custom))
    )
    run(engine)
    ends = [line.partition("loss")[2] for line in lines_of(capsys.readouterr().out)]
    assert ends == [": 9.5  least: 1.0", ": 19.5  least: 1.0"]
    records = [(line["train/loss"], line["train/least"]) for line in records_of(tmp_path / "l.jsonl")]
    assert records == [(9.5, 1.0), (19.5, 1.0)], "what a line has, its record has, too"


def test_without_epochs_lines_count_through(capsys: pytest.CaptureFixture[str]) -> None:
    engine = build(2)
    engine.attach(LoggerHook(20, log_processor=LineFormat(by_epoch=False)))
    run(engine)
    assert [line.partition("]")[0] for line in lines_of(capsys.readouterr().out)] == [
        "Iter(train) [20/50",
        "Iter(train) [40/50",
    ]


def test_a_format_that_does_not_fit_is_refused_before_the_first_step() -> None:
    class Steps:
        """A loop that knows no epochs."""

        def run(self, engine: Engine) -> None:
            if fire := engine.points.before_train:
                fire(engine)

        def state_dict(self) -> dict[str, object]:
            return {}

        def load_state_dict(self, state_dict: dict[str, object]) -> None: ...

    engine = Engine({"loop": Steps()})
    engine.attach(LoggerHook(log_processor=LineFormat(by_epoch=True)))
    with pytest.raises(HookError, match=r"lines shall count iterations in epochs, and the training has none"):
        engine.run(Steps())
    with pytest.raises(ValueError, match=r"backend_args must be None; say in files\.schemes"):
        LoggerHook(backend_args={"backend": "petrel"})
    custom = {"data_src": "loss", "method_name": "mean", "window_size": "epoch"}
    form = LineFormat(by_epoch=False, custom_cfg=(custom,))
    with pytest.raises(
        ValueError, match=r"log_processor\.custom_cfg\[0\] has window_size 'epoch', but by_epoch is false"
    ):
        LoggerHook(log_processor=form)


def test_the_name_of_the_experiment_is_said_every_so_often(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = build()
    engine.attach(LoggerHook(4, interval_exp_name=10))
    bind_runner(engine.hooks.values(), work_dir=tmp_path / "exp")
    run(engine)
    said = [line.partition("  ")[0].replace("Epoch(train) [1]", "") for line in lines_of(capsys.readouterr().out)]
    name = "Exp name: exp"  # said at once, though no line is due; and at the end, though its line is ignored
    assert said == ["[ 4/25]", "[ 8/25]", name, "[12/25]", "[16/25]", name, "[20/25]", "[24/25]", name]


def test_a_loss_that_is_not_finite_stops_the_run_as_with_our_own() -> None:
    engine = build(step=lambda batch: StepOutput(float("nan"), 8))
    engine.attach(LoggerHook())
    with pytest.raises(TrainingError, match="the loss became nan in the 10 steps up to step 10"):
        run(engine)


@pytest.mark.parametrize("keep_local", [True, False])
def test_logs_are_copied_below_another_directory(tmp_path: Path, keep_local: bool) -> None:
    work_dir, out_dir = tmp_path / "work" / "digits", tmp_path / "out"
    (work_dir / "checkpoints").mkdir(parents=True)
    (work_dir / "checkpoints" / "manifest.json").write_text("{}")
    (work_dir / "notes.txt").write_text("mine")
    (work_dir / "old.log.3").write_text("full\n")
    engine = build()
    hook = LoggerHook(
        out_dir=str(out_dir), keep_local=keep_local, log_file=work_dir / "log.jsonl", environment={"seed": 1}
    )
    engine.attach(hook)
    run(engine)
    copied = sorted(
        re.sub(r"\d{8}_\d{6}", "TIME", path.relative_to(out_dir).as_posix()) for path in out_dir.rglob("*.*")
    )
    assert copied == ["digits/TIME/TIME.log", "digits/environment.jsonl", "digits/log.jsonl", "digits/old.log.3"]
    left = {path.name for path in work_dir.rglob("*") if path.is_file()}
    assert {"manifest.json", "notes.txt"} <= left
    assert ("log.jsonl" in left) == keep_local
    lines = next((out_dir / "digits").rglob("*.log")).read_text().splitlines()
    assert [line.split(" - ", 3)[3][:22] for line in lines] == [
        "Epoch(train) [1][10/25]"[:22],
        "Epoch(train) [1][20/25]"[:22],
    ]


def test_copies_below_the_work_directory_are_not_copied_again(tmp_path: Path) -> None:
    for _ in range(2):
        engine = build()
        engine.attach(LoggerHook(out_dir=str(tmp_path / "copies"), log_file=tmp_path / "log.jsonl"))
        run(engine)
    assert not (tmp_path / "copies" / tmp_path.name / "copies").exists()


def test_a_text_log_gives_way_when_it_is_full(tmp_path: Path) -> None:
    engine = build(4)
    engine.attach(LoggerHook(1, log_file=tmp_path / "log.jsonl", max_bytes=2000, keep=2))
    run(engine)
    assert sorted(path.name for path in tmp_path.glob("log.jsonl*")) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert len(list(tmp_path.rglob("*.log*"))) > 1
    assert all(path.stat().st_size <= 2000 for path in tmp_path.rglob("*.*") if path.is_file())


def test_any_part_of_a_program_finds_what_the_run_tells() -> None:
    seen: list[tuple[object, object, float]] = []

    class Asks(Hook):
        def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
            hub = MessageHub.get_current_instance()
            seen.append((hub.get_info("epoch"), hub.get_info("iter"), hub.get_scalar("train/lr").current()))

    engine = build(2, validated=True)
    engine.attach(RuntimeInfoHook())
    engine.attach(Asks())
    engine.attach(ScheduleHook())
    run(engine)
    assert seen[0] == (0, 0, 0.1)
    assert seen[-1] == (1, 49, 0.05)
    hub = MessageHub.get_current_instance()
    assert (hub.get_info("max_epochs"), hub.get_info("max_iters")) == (2, 50)
    assert len(hub.get_scalar("train/loss")) == 50
    assert len(hub.get_scalar("val/accuracy")) == 2
    assert "loop_stage" not in hub.runtime_info, "nothing is under way"


def test_a_skipped_step_tells_no_loss() -> None:
    engine = build(step=lambda batch: StepOutput(1.0, 8, stepped=False))
    engine.attach(RuntimeInfoHook())
    run(engine)
    hub = MessageHub.get_current_instance()
    assert "train/loss" not in hub.log_scalars
    assert len(hub.get_scalar("train/lr")) == BATCHES


class Stops(Hook):
    """Asks for a stop after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step + 1 == self.step:
            engine.request_stop("enough")


def test_a_resumed_run_goes_on_with_the_hub_and_reckons_with_its_own_steps_alone() -> None:
    first = build(2)
    first.attach(LoggerHook(), "logger")
    first.attach(TimerHook(), "timer")
    first.attach(Stops(30))
    run(first)
    state = first.state_dict()
    second = build(2)
    etas: list[float] = []

    class Etas(Hook):
        after = ("iter_timer",)

        def before_train_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
            assert engine.step > 30 or "eta" not in MessageHub.get_current_instance().runtime_info, (
                "an estimate of before"
            )

        def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
            etas.append(MessageHub.get_current_instance().get_info("eta"))

    second.attach(LoggerHook(), "logger")
    second.attach(TimerHook(), "timer")
    second.attach(Etas())
    run(second, resume=state)
    hub = MessageHub.get_current_instance()
    assert len(hub.get_scalar("train/loss")) == 50, "those before the resume, too"
    times = hub.get_scalar("train/time").data[0][30:]
    # Each estimate is the mean of this process's iterations, times those that are left.
    for done, eta in enumerate(etas, 1):
        assert eta == pytest.approx(sum(times[:done]) / done * (20 - done), rel=1e-6, abs=1e-9)


def test_the_time_left_is_that_of_iterations_though_validations_lie_between_them() -> None:
    hook = IterTimerHook()
    engine = build()
    engine.total_steps = 4
    runner = runner_of(engine, hook)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    for index in range(2):
        hook.before_train_iter(runner, index, None)
        hook.after_train_iter(runner, index, None, None)
        engine.commit(steps=1)
        hook.before_val_epoch(runner)
        sleep(0.1)
        hook.before_val_iter(runner, 0, None)
        hook.after_val_iter(runner, 0, None, None)
    hook.before_train_iter(runner, 2, None)
    hook.after_train_iter(runner, 2, None, None)
    assert runner.message_hub.get_info("eta") < 0.1


@pytest.mark.parametrize(
    "hooks",
    [
        {"schedule": ScheduleHook(), "param_scheduler": ParamSchedulerHook()},
        {"param_scheduler": ParamSchedulerHook(), "schedule": ScheduleHook()},
        {"param_scheduler": ParamSchedulerHook()},
        {"one": ParamSchedulerHook(), "other": ParamSchedulerHook()},
    ],
)
def test_schedulers_step_once_however_many_hooks_would_step_them(hooks: dict[str, Hook]) -> None:
    engine = build(3)
    for name, hook in hooks.items():
        engine.attach(hook, name)
    run(engine)
    assert engine.part("optimizer", torch.optim.Optimizer).param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_what_is_done_in_any_case_may_be_named() -> None:
    drawn: list[list[float]] = []
    for hook in (None, DistSamplerSeedHook()):
        engine = build()
        if hook is not None:
            engine.attach(hook, "sampler_seed")
        run(engine)
        drawn.append(engine.part("model", nn.Linear).weight.flatten().tolist())
    assert drawn[0] == drawn[1]


def test_the_timer_stands_in_the_place_of_ours_or_beside_it(tmp_path: Path) -> None:
    kinds: dict[str, list[Hook]] = {"alone": [IterTimerHook()], "both": [TimerHook(), IterTimerHook()]}
    for name, hooks in kinds.items():
        engine = build()
        for hook in hooks:
            engine.attach(hook)
        engine.attach(OurLoggerHook(log_file=tmp_path / f"{name}.jsonl", least_seconds=0))
        run(engine)
        lines = records_of(tmp_path / f"{name}.jsonl")
        assert len(lines) == 3
        assert all(0 <= line["data_time"] <= line["time"] > 0 for line in lines)
        assert len(MessageHub.get_current_instance().get_scalar("train/time")) == BATCHES


def test_what_a_process_runs_on_is_written_once_an_attempt(tmp_path: Path) -> None:
    state: dict[str, object] | None = None
    for _ in range(2):
        engine = build(2)
        engine.attach(OurLoggerHook(log_file=tmp_path / "log.jsonl", environment={"seed": 7}))
        engine.attach(Stops(30))
        run(engine, resume=state)
        state = engine.state_dict()
    whole = [json.loads(line) for line in (tmp_path / "environment.jsonl").read_text().splitlines()]
    assert [(line["attempt"], line["from_step"], line["seed"]) for line in whole] == [(1, 0, 7), (2, 30, 7)]
    assert whole[0]["torch"] == torch.__version__
    assert whole[0]["packages"]["torch"] == torch.__version__
    short = records_of(tmp_path / "log.jsonl", "environment")
    assert [line["attempt"] for line in short] == [1, 2]
    assert all("packages" not in line and line["git"] == whole[0]["git"] for line in short)
    assert not any(first > second for first, second in pairwise(line["time"] for line in whole))


def test_averages_and_mmengines_hooks_go_together() -> None:
    engine = build(2, validated=True)
    engine.parts["averages"] = exponential_average(engine.part("model", nn.Linear))
    engine.attach(LoggerHook())
    run(engine)
    assert engine.step == 50


def test_a_metric_is_shown_as_it_is_though_it_is_called_loss(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine = build(3, validated=True)
    engine.attach(LoggerHook(100, log_file=tmp_path / "log.jsonl"))
    run(engine)
    shown = [line.partition("loss: ")[2][:6] for line in lines_of(capsys.readouterr().out) if "(val)" in line]
    assert shown == [f"{line['val/loss']:.4f}" for line in records_of(tmp_path / "log.jsonl", "val")]
    assert len(shown) == 3


def test_the_time_left_on_the_bar_is_reckoned_from_the_steps_of_this_process() -> None:
    """Each step takes 5 ms at least, so that 600 of them take 3 s; with those before the resume it would seem far less."""
    console = Console(file=StringIO(), force_terminal=True, width=200)

    def step(batch: object) -> StepOutput:
        sleep(0.005)
        return StepOutput(1.0, 8)

    engine = build(40, step)
    state = build(40).state_dict()
    own = state["engine"]
    assert isinstance(own, dict)
    own.update(step=400, epoch=16)
    engine.attach(ProgressHook(refresh_per_second=1e6, console=console))
    engine.attach(Stops(440))
    run(engine, resume=state)
    assert isinstance(console.file, StringIO)
    estimates = re.findall(r"ETA\s+(\d):(\d\d):(\d\d)", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", " ", console.file.getvalue()))
    left = [int(hours) * 3600 + int(minutes) * 60 + int(seconds) for hours, minutes, seconds in estimates]
    assert len(left) > 20
    assert min(left) >= 2


def test_of_many_ranks_one_speaks_and_records_are_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(ranks: Communicator) -> None:
        engine = build(step=lambda batch: StepOutput(float(ranks.rank), 8))
        log_file = tmp_path / f"log.rank{ranks.rank}.jsonl"
        engine.attach(LoggerHook(10, log_file=log_file, communicator=ranks))
        run(engine)

    run_threads(2, train)
    assert [line.partition("  ")[0] for line in lines_of(capsys.readouterr().out)] == [
        "Epoch(train) [1][10/25]",
        "Epoch(train) [1][20/25]",
    ]
    for rank in range(2):
        assert [line["train/loss"] for line in records_of(tmp_path / f"log.rank{rank}.jsonl")] == [0.5, 0.5]


def test_a_length_that_nobody_knows_is_a_question_mark_and_a_loops_own_counts() -> None:
    def line(**known: object) -> str:
        stands = SimpleNamespace(message_hub=MessageHub("lengths"), epoch=0, iter=2, max_epochs=1, max_iters=9, **known)
        return LogProcessor().get_log_after_iter(stands, 2, "train")[1]

    assert line(train_dataloader=iter(())) == "Epoch(train) [1][3/?]"
    assert line(train_dataloader=range(25)) == "Epoch(train) [1][ 3/25]"
    assert line(train_dataloader=range(25), epoch_length=150) == "Epoch(train) [1][  3/150]"


def test_a_hook_of_a_run_may_have_a_priority_of_its_own() -> None:
    engine = build()
    early = LoggerHook()
    early.priority = get_priority("VERY_HIGH")
    for name, hook in {"timer": TimerHook(), "schedule": ScheduleHook(), "logger": early}.items():
        engine.attach(hook, name)
    assert list(engine.hooks) == ["timer", "logger", "schedule"]


@pytest.mark.parametrize(("epochs", "misspelt"), [(1, "losss"), (3, "los")])
def test_a_statistic_of_a_scalar_that_nobody_tells_of_is_warned_of_once(
    epochs: int, misspelt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = build(epochs)
    sources = (misspelt, "loss", misspelt)
    custom = tuple(
        {"data_src": source, "log_name": f"least{number}", "method_name": "min"}
        for number, source in enumerate(sources)
    )
    engine.attach(LoggerHook(10, log_processor=LineFormat(custom_cfg=custom)))
    run(engine)
    out = capsys.readouterr().out.splitlines()
    (warned,) = [number for number, line in enumerate(out) if "WARNING" in line]
    assert out[warned].endswith(f"custom_cfg: no scalar is called '{misspelt}' so far; did you mean 'loss'?")
    if epochs > 1:  # it comes after the first one
        assert any("Epoch(train) [2]" in line for line in out[warned:])

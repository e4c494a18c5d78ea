"""Hooks written for mmengine: their points, their helpers, and what they see of a run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hooks.test_compat_runs import BATCHES, build, run
from treenail.adapters.data import Batches
from treenail.adapters.hooks import (
    BoundSchedule,
    CheckpointHook,
    LoggerHook,
    ScheduleHook,
    Schedules,
    TimerHook,
    compat,
)
from treenail.adapters.hooks.compat import Hook, Priority, Runner, bind_runner, get_priority
from treenail.adapters.logging.compat import MessageHub
from treenail.adapters.loops import EvalLoop
from treenail.adapters.optim import OptimizerDict, OptimWrapper, OptimWrapperDict
from treenail.adapters.vis import JsonLines
from treenail.kernel import HOOK_POINTS, Engine, EngineError, HookError
from treenail.kernel import Hook as KernelHook


class CheckInvalidLossHook(Hook):
    """mmengine's example of a hook, as its guide has it."""

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.checked: list[int] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            assert torch.isfinite(outputs["loss"]), runner.logger.info("not finite")  # type: ignore[func-returns-value]  # as it is there
            self.checked.append(runner.iter)


def test_the_hook_of_the_guide_runs_as_it_is() -> None:
    engine = build()
    hook = CheckInvalidLossHook(10)
    engine.attach(hook)
    run(engine)
    assert hook.checked == [9, 19]


def test_a_hook_that_fails_ends_the_run_by_its_own_error() -> None:
    from treenail.contracts import StepOutput

    engine = build(step=lambda batch: StepOutput(float("inf"), 8))
    engine.attach(CheckInvalidLossHook(10))
    with pytest.raises(AssertionError) as caught:
        run(engine)
    assert "raised by hook 'CheckInvalidLossHook' at after_train_iter" in caught.value.__notes__


def test_every_point_gets_the_runner_and_what_mmengine_passes() -> None:
    called: dict[str, list[object]] = {}

    def point(name: str) -> Any:
        def call(self: Hook, runner: Runner, *rest: object) -> None:
            assert isinstance(runner, Runner)
            called.setdefault(name, list(rest))

        return call

    kind = type("All", (Hook,), {name: point(name) for name in HOOK_POINTS if name != "on_exception"})
    engine = build(validated=True)
    hook: Any = kind()
    assert set(hook.get_triggered_stages()) == set(HOOK_POINTS) - {"on_exception"}
    engine.attach(hook)
    network = engine.part("model", nn.Linear)
    test = EvalLoop("test", network, nn.CrossEntropyLoss(), Batches([(torch.ones(2, 4), torch.zeros(2).long())]))
    run(engine, test, resume=build(validated=True).state_dict())
    missing = set(HOOK_POINTS) - {"on_exception", "before_save_checkpoint"} - called.keys()
    assert not missing
    index, batch, outputs = called["after_train_iter"]
    assert index == 0
    assert isinstance(batch, tuple)
    assert isinstance(outputs, compat.Outputs)
    assert list(outputs) == ["loss"]
    assert isinstance(outputs["loss"], Tensor)
    assert called["after_val_epoch"] != [{}]
    assert isinstance(called["after_val_epoch"][0], dict)


def test_what_is_for_all_modes_is_called_in_each_of_them() -> None:
    calls: list[tuple[object, ...]] = []

    class Everywhere(Hook):
        def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
            calls.append(("before", mode))

        def _after_iter(
            self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = ""
        ) -> None:
            if batch_idx == 0:
                calls.append(("iter", mode, outputs is not None))

        def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            """In the place of the one for all."""

    engine = build(validated=True)
    engine.attach(Everywhere())
    network = engine.part("model", nn.Linear)
    test = EvalLoop("test", network, nn.CrossEntropyLoss(), Batches([(torch.ones(2, 4), torch.zeros(2).long())]))
    run(engine, test)
    assert calls == [
        ("before", "train"),
        ("iter", "train", True),
        ("before", "val"),
        ("before", "test"),
        ("iter", "test", True),
    ]


def test_a_class_between_may_call_super() -> None:
    order: list[str] = []

    class Base(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            order.append(f"base {runner.iter}")

    class Mine(Base):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            super().before_train_iter(runner, batch_idx, data_batch=data_batch)
            order.append("mine")

    engine = build()
    engine.attach(Mine())
    run(engine)
    assert order == [text for step in range(BATCHES) for text in (f"base {step}", "mine")]


def test_a_point_that_nobody_overrides_costs_nothing() -> None:
    engine = Engine()
    engine.attach(CheckInvalidLossHook())
    assert engine.points.after_train_iter is not None
    assert engine.points.before_train_iter is None


def test_mistakes_are_found_when_it_is_attached() -> None:
    class Misspelt(Hook):
        def after_train_iters(self, runner: Runner) -> None: ...

    class Generator(Hook):
        def after_train(self, runner: Runner) -> Any:
            yield

    class Short(Hook):
        def after_train_iter(self, runner: Runner, batch_idx: int) -> None: ...

    for hook, message in (
        (Misspelt(), "'after_train_iters' is not a hook point"),
        (Generator(), "is async or a generator"),
        (Short(), "cannot take what the engine passes"),
    ):
        with pytest.raises(HookError, match=message):
            Engine().attach(hook)


def test_points_of_a_loop_of_ones_own() -> None:
    class WithGenerator(KernelHook):
        def before_generator(self, engine: Engine, number: int, /) -> None: ...

    seen: list[tuple[bool, int]] = []

    class Watches(Hook):
        def before_generator(self, runner: Any, number: int) -> None:
            seen.append((isinstance(runner, Runner), number))

    engine = Engine(points=WithGenerator)
    engine.attach(Watches())
    engine.fire("before_generator", 3)
    assert seen == [(True, 3)]


def test_helpers_say_what_mmengines_do() -> None:
    mmengine = pytest.importorskip("mmengine.hooks")

    class Stands:
        def __init__(self, epoch: int, iteration: int) -> None:
            self.epoch, self.iter, self.max_epochs, self.max_iters = epoch, iteration, 3, 12

    ours: Any = CheckInvalidLossHook()
    theirs = mmengine.Hook()
    for n in (-1, 0, 1, 3):
        for number in range(13):
            stands = Stands(number, number)
            for start in (0, 4):
                assert ours.every_n_epochs(stands, n, start) == theirs.every_n_epochs(stands, n, start)
                assert ours.every_n_train_iters(stands, n, start) == theirs.every_n_train_iters(stands, n, start)
            assert ours.every_n_inner_iters(number, n) == theirs.every_n_inner_iters(number, n)
            assert ours.end_of_epoch(range(5), number) == theirs.end_of_epoch(range(5), number)
            assert ours.is_last_train_epoch(stands) == theirs.is_last_train_epoch(stands)
            assert ours.is_last_train_iter(stands) == theirs.is_last_train_iter(stands)
    assert Hook.stages == mmengine.Hook.stages


@pytest.mark.parametrize(
    "name",
    [
        "DistSamplerSeedHook",
        "EarlyStoppingHook",
        "EmptyCacheHook",
        "IterTimerHook",
        "LoggerHook",
        "NaiveVisualizationHook",
        "ParamSchedulerHook",
        "RuntimeInfoHook",
        "SyncBuffersHook",
    ],
)
def test_arguments_and_priorities_are_those_of_mmengine(name: str) -> None:
    theirs = getattr(pytest.importorskip("mmengine.hooks"), name)
    ours = getattr(compat, name)
    left_out = {"self", "args", "kwargs"}

    def defaults(kind: Any) -> dict[str, object]:
        found = inspect.signature(kind.__init__).parameters
        return {each: value.default for each, value in found.items() if each not in left_out}

    expected, found = defaults(theirs), defaults(ours)
    assert list(found)[: len(expected)] == list(expected)
    if name == "LoggerHook":  # 0.10.7 has no dot there; its documentation has
        expected["out_suffix"] = (".json", ".log", ".py", ".yaml")
    assert {each: found[each] for each in expected} == expected
    assert ours.priority == get_priority(theirs.priority)


def test_priorities_have_names() -> None:
    assert [get_priority(each) for each in ("highest", "NORMAL", Priority.LOWEST, 7)] == [0, 50, 100, 7]

    class Late(Hook):
        priority = "VERY_LOW"

        def before_run(self, runner: Runner) -> None: ...

    engine = Engine()
    engine.attach(Late(), "Late")
    engine.attach(CheckInvalidLossHook())
    assert list(engine.hooks) == ["CheckInvalidLossHook", "Late"]
    for wrong, error in (
        ("LOWER", ValueError),
        (101, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error):
            get_priority(wrong)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="there is no priority 'LOWER'; did you mean 'LOW'"):
        type("Wrong", (Hook,), {"priority": "LOWER"})


def test_what_a_hook_sees_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, object] = {}

    class Looks(Hook):
        def before_train(self, runner: Any) -> None:
            for name in (
                "epoch",
                "iter",
                "max_epochs",
                "max_iters",
                "model_name",
                "work_dir",
                "experiment_name",
                "cfg",
                "seed",
            ):
                seen[name] = getattr(runner, name)
            seen["ranks"] = (runner.rank, runner.world_size, runner.distributed)
            seen["rates"] = runner.optim_wrapper.get_lr()
            seen["schedulers"] = [type(each).__name__ for each in runner.param_schedulers]
            seen["batches"] = len(runner.train_dataloader)
            runner.mine = 3
            runner.logger.info("hello")
            runner.message_hub.update_info("told", 1)
            runner.visualizer.add_scalar("mine", torch.tensor(0.5))

        def after_train(self, runner: Any) -> None:
            import numpy as np

            seen["last"] = (runner.epoch, runner.iter)
            runner.visualizer.add_image("black", np.zeros((4, 5, 3), dtype=np.uint8), step=runner.iter)

    class Other(Hook):
        def after_train_epoch(self, runner: Any) -> None:
            seen["of another"] = runner.mine

    engine = build()
    hooks: list[Hook] = [Looks(), Other()]
    for hook in hooks:
        engine.attach(hook)
    engine.attach(LoggerHook(log_file=tmp_path / "log.jsonl", least_seconds=0))
    backend = JsonLines(tmp_path / "curves")
    bind_runner(hooks, work_dir=tmp_path, config={"a": 1}, seed=5, backends=[backend])
    run(engine)
    assert seen == {
        "epoch": 0,
        "iter": 0,
        "max_epochs": 1,
        "max_iters": BATCHES,
        "model_name": "Linear",
        "work_dir": str(tmp_path),
        "experiment_name": tmp_path.name,
        "cfg": {"a": 1},
        "seed": 5,
        "ranks": (0, 1, False),
        "rates": {"lr": [0.1]},
        "schedulers": ["ExponentialLR"],
        "batches": BATCHES,
        "of another": 3,
        "last": (1, BATCHES),
    }
    assert MessageHub.get_current_instance().get_info("told") == 1
    assert "hello" in capsys.readouterr().out
    assert '"mine":0.5' in (tmp_path / "log.jsonl").read_text()
    assert (tmp_path / "curves" / "images" / "black" / "00000025.png").exists()


def test_schedulers_of_several_optimizers_have_their_names() -> None:
    optimizers = {name: torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for name in ("one", "other")}
    bound = [BoundSchedule(torch.optim.lr_scheduler.StepLR(each, 1)) for each in optimizers.values()]
    engine = Engine(
        {
            "optimizer": OptimizerDict(**optimizers),
            "updates": OptimWrapperDict(**{name: OptimWrapper(each) for name, each in optimizers.items()}),
            "schedules": Schedules(bound),
        }
    )
    found = compat.runner_of(engine, CheckInvalidLossHook()).param_schedulers
    assert found == {"one": [bound[0].scheduler], "other": [bound[1].scheduler]}


def test_what_a_run_cannot_tell_is_an_error_that_says_so() -> None:
    runner = compat.runner_of(build(), CheckInvalidLossHook())
    for name, message in (
        ("work_dir", "this run cannot tell its 'work_dir'"),
        ("val_dataloader", "this run cannot tell its 'val_dataloader'"),
        ("train_dataloadr", "no 'train_dataloadr'; did you mean 'train_dataloader'?"),
        ("_train_loop", "no '_train_loop'; did you mean 'train_loop'?"),
    ):
        assert not hasattr(runner, name)
        with pytest.raises(AttributeError) as caught:
            getattr(runner, name)
        assert message in str(caught.value)


class Stopper(Hook):
    """Stops a training as mmengine's early stopping does."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        assert runner.train_loop.max_epochs == runner.max_epochs
        assert runner.train_loop.dataloader is runner.train_dataloader
        runner.train_loop.stop_training = runner.iter == 6


def test_a_hook_stops_the_training_by_the_switch_of_its_loop() -> None:
    engine = build()
    engine.attach(Stopper())
    run(engine)
    assert (engine.step, engine.stop_reason) == (7, "a hook set stop_training")


def test_what_of_a_loop_cannot_be_set_is_no_silence() -> None:
    loop = compat.runner_of(build(), CheckInvalidLossHook()).train_loop
    with pytest.raises(AttributeError, match="not val_interval to 1"):
        loop.val_interval = 1
    with pytest.raises(AttributeError, match="no attribute 'dataloadr'"):
        _ = loop.dataloadr


def test_a_hook_calls_points_of_a_loop_of_ones_own() -> None:
    class Points(KernelHook):
        def before_generation(self, engine: Engine, prompt: str) -> None:
            """Before something is generated."""

    class Listens(Hook):
        heard: Any = None

        def before_generation(self, runner: Runner, prompt: str) -> None:
            self.heard = prompt

    engine = Engine(points=Points)
    hook = Listens()
    engine.attach(hook)
    runner = compat.runner_of(engine, hook)
    runner.call_hook("before_generation", prompt="once")
    assert hook.heard == "once"
    with pytest.raises(EngineError, match="did you mean 'before_generation'"):
        runner.call_hook("before_generations")


def test_a_priority_of_one_hook_may_be_a_name() -> None:
    hook = CheckInvalidLossHook()
    hook.priority = "VERY_LOW"
    engine = build()
    engine.attach(hook)
    assert hook.priority == 90
    with pytest.raises(ValueError, match="no priority 'SOON'"):
        hook.priority = "SOON"


def test_the_order_of_hooks_is_mmengines() -> None:
    engine = build()
    for name, hook in {
        "checkpoint": CheckpointHook(),
        "param_scheduler": compat.ParamSchedulerHook(),
        "logger": compat.LoggerHook(),
        "sampler_seed": compat.DistSamplerSeedHook(),
        "timer": compat.IterTimerHook(),
        "runtime_info": compat.RuntimeInfoHook(),
    }.items():
        engine.attach(hook, name)
    assert list(engine.hooks) == ["runtime_info", "sampler_seed", "timer", "logger", "param_scheduler", "checkpoint"]
    assert ScheduleHook.priority == compat.ParamSchedulerHook.priority
    assert TimerHook.priority <= compat.IterTimerHook.priority

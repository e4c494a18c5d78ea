"""How hooks written for mmengine are given what a point passes: by its names, as its loops pass it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch import Tensor, nn

from tests.hooks.test_compat_runs import BATCHES, build, run
from treenail.adapters.data import Batches
from treenail.adapters.hooks import CheckpointHook, compat
from treenail.adapters.hooks.compat import Hook, Runner, RuntimeInfoHook
from treenail.adapters.logging.compat import MessageHub
from treenail.adapters.loops import EvalLoop
from treenail.kernel import Engine, EngineError, HookError
from treenail.kernel import Hook as KernelHook


class Remembers(KernelHook):
    """A hook of ours that keeps the metrics that it is given last."""

    priority = 90

    def __init__(self) -> None:
        self.metrics: Mapping[str, float] = {}

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self.metrics = metrics


def test_metrics_have_the_names_that_the_metrics_give_them() -> None:
    seen: dict[str, object] = {}

    class Looks(Hook):
        def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
            seen["val"] = sorted(metrics)

        def after_test_epoch(self, runner: Runner, **kwargs: Any) -> None:
            seen["test"] = sorted(kwargs["metrics"])

    engine = build(validated=True)
    remembers = Remembers()
    for hook in (Looks(), remembers, RuntimeInfoHook()):
        engine.attach(hook)
    network = engine.part("model", nn.Linear)
    test = EvalLoop("test", network, nn.CrossEntropyLoss(), build().part("batches", Batches))
    run(engine, test)
    assert seen == {"val": ["accuracy", "loss"], "test": ["loss"]}
    assert sorted(remembers.metrics) == ["val/accuracy", "val/loss"], "hooks of ours have our names"
    scalars = MessageHub.get_current_instance().log_scalars
    assert {"val/accuracy", "val/loss", "test/loss"} <= scalars.keys()
    assert scalars["val/accuracy"].current() == remembers.metrics["val/accuracy"]


def test_a_metric_that_a_hook_adds_is_seen_by_those_after_it() -> None:
    class Adds(Hook):
        def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
            metrics["both"] = metrics["accuracy"] - metrics["loss"]
            metrics[5] = 1.0  # its name need not be a text

    engine = build(validated=True)
    remembers = Remembers()
    for hook in (remembers, Adds()):
        engine.attach(hook)
    run(engine)
    known = remembers.metrics
    assert known["val/both"] == known["val/accuracy"] - known["val/loss"]
    assert known["val/5"] == 1.0


def test_parameters_may_stand_in_any_order_or_be_keywords_alone() -> None:
    seen: list[tuple[str, int, int, bool]] = []

    class Keywords(Hook):
        def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
            assert set(kwargs) == {"batch_idx", "data_batch", "outputs"}
            seen.append(("keywords", kwargs["batch_idx"], len(kwargs["data_batch"]), "loss" in kwargs["outputs"]))

    class Turned(Hook):
        def after_train_iter(self, runner: Runner, outputs: Any, data_batch: Any, batch_idx: int) -> None:
            seen.append(("turned", batch_idx, len(data_batch), isinstance(outputs["loss"], Tensor)))

    class Everywhere(Hook):
        def _after_iter(self, runner: Runner, mode: str, **kwargs: Any) -> None:
            seen.append((mode, kwargs["batch_idx"], len(kwargs["data_batch"]), kwargs["outputs"] is not None))

        def _after_epoch(self, runner: Runner, **kwargs: Any) -> None:
            assert list(kwargs) == ["mode"]

    engine = build(validated=True)
    for hook in (Keywords(), Turned(), Everywhere()):
        engine.attach(hook)
    run(engine)
    assert seen[:3] == [("keywords", 0, 2, True), ("turned", 0, 2, True), ("train", 0, 2, True)]
    assert len(seen) == 3 * BATCHES + 12
    assert seen[-1] == ("val", 11, 2, True)


def test_a_checkpoint_may_be_passed_by_its_name() -> None:
    class Adds(Hook):
        def before_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            kwargs["checkpoint"]["mine"] = args[0].iter

    saved: list[object] = []

    class Keeps:
        """A checkpointer that keeps what it is given."""

        def save(self, checkpoint: Any, **about: object) -> str:
            saved.append(checkpoint["mine"])
            return "memory"

    engine = build()
    engine.checkpointer = Keeps()
    engine.attach(CheckpointHook())
    engine.attach(Adds())
    run(engine)
    assert saved
    assert set(saved) == {BATCHES}


def test_a_name_that_mmengine_does_not_give_is_still_refused() -> None:
    class Wrong(Hook):
        def after_train_iter(self, runner: Runner, index: int, **kwargs: Any) -> None: ...

    with pytest.raises(HookError, match="cannot take what the engine passes"):
        Engine().attach(Wrong())


class GenerationHook(KernelHook):
    """Adds a point of a loop's own."""

    def before_generation(self, engine: Engine, number: int, prompt: str) -> None:
        """Before something is generated."""


class Listens(Hook):
    """Keeps what it is given."""

    heard: tuple[int, str] | None = None

    def before_generation(self, runner: Runner, number: int, prompt: str) -> None:
        self.heard = number, prompt


def test_what_a_hook_gives_to_a_point_of_a_loops_own_goes_by_its_names() -> None:
    class Loop:
        """A loop that says which points it has."""

        hook_points = GenerationHook

        def run(self, engine: Engine) -> None: ...

        def state_dict(self) -> dict[str, object]:
            return {}

        def load_state_dict(self, state_dict: dict[str, object]) -> None: ...

    engine = Engine({"loop": Loop()}, points=GenerationHook)
    hook = Listens()
    engine.attach(hook)
    runner = compat.runner_of(engine, hook)
    runner.call_hook("before_generation", prompt="once", number=3)
    assert hook.heard == (3, "once")
    with pytest.raises(EngineError, match=r"takes \['number', 'prompt'\], got \['number', 'text'\]"):
        runner.call_hook("before_generation", number=3, text="once")


def test_without_a_loop_that_says_it_nobody_knows_the_order() -> None:
    engine = Engine(points=GenerationHook)
    hook = Listens()
    engine.attach(hook)
    with pytest.raises(EngineError, match=r"nobody says in which order .* takes prompt, number"):
        compat.runner_of(engine, hook).call_hook("before_generation", prompt="once", number=3)

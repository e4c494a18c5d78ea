"""Averages in a training: after each step of the optimizer, in the checkpoint, and gone on with bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tests.averaging.models import assert_same, copies
from treenail.adapters.averaging import WeightAverages, annealed_average, exponential_average, uniform_average
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.config.structs import struct_of
from treenail.adapters.data import Loader
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks.averaging import AveragingHook, EMAHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Engine, EngineError, Hook, HookError, StateError, Stateful, TrainingError

EPOCHS, STEPS = 3, 5


class Points:
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([index / 20, 1.0]), torch.tensor([index % 3 / 2])


class StopAfter(Hook):
    """Stops after a step, with a checkpoint of it."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step + 1 == self.steps:
            engine.request_checkpoint("on purpose")
            engine.request_stop("on purpose")


class Training:
    """A training of a small model, whose averages `make` makes, or a hook."""

    def __init__(
        self,
        make: Callable[[nn.Module], WeightAverages] | None,
        hook: Hook | None = None,
        skipped: frozenset[int] = frozenset(),
        store: CheckpointStore | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        step = SupervisedStep(self.model, nn.MSELoss(), optimizer)
        loader = Loader(Points(), RandomSampler(20, seed=1), batch_size=4)
        self.seen: list[dict[str, Tensor]] = []

        def noted(batch: object) -> StepOutput:
            output = step(batch)
            self.seen.append(copies(self.model))
            return output._replace(stepped=len(self.seen) not in skipped)

        loop = EpochLoop(TrainWork(noted, loader), max_epochs=EPOCHS)
        parts: dict[str, Stateful] = {"model": self.model, "optimizer": optimizer, "batches": loader, "loop": loop}
        if make is not None:
            parts["averages"] = make(self.model)
        self.engine = Engine(parts, checkpointer=store)
        self.engine.attach(hook or AveragingHook(), "averaging")
        self.loop = loop

    @property
    def averages(self) -> WeightAverages:
        return self.engine.part("averages", WeightAverages)

    def run(self, resume: dict[str, object] | None = None) -> None:
        self.engine.run(self.loop, resume=resume)


def ema(model: nn.Module) -> WeightAverages:
    return exponential_average(model, momentum=0.2, buffers="average", begin_step=3)


def test_averages_are_of_the_weights_after_each_step() -> None:
    training = Training(lambda model: exponential_average(model, momentum=0.25))
    training.run()
    assert len(training.seen) == EPOCHS * STEPS
    expected = training.seen[0]["0.weight"]
    for seen in training.seen[1:]:
        expected = expected.lerp(seen["0.weight"], 0.25)
    assert torch.equal(training.averages.view().get_parameter("0.weight"), expected)


def test_a_skipped_step_does_not_advance_averages() -> None:
    training = Training(uniform_average, skipped=frozenset({2, 3, 7}))
    training.run()
    assert training.averages.updates == training.averages.averaged == EPOCHS * STEPS - 3
    mean = torch.stack([seen["0.bias"] for step, seen in enumerate(training.seen, 1) if step not in (2, 3, 7)]).mean(0)
    torch.testing.assert_close(training.averages.view().get_parameter("0.bias").detach(), mean)


@pytest.mark.parametrize(
    ("make", "updates"),
    [
        (lambda model: uniform_average(model, begin_epoch=2), 2 * STEPS),
        (lambda model: uniform_average(model, begin_epoch=EPOCHS), STEPS),
        (lambda model: uniform_average(model, begin_step=EPOCHS * STEPS), 1),
        (lambda model: uniform_average(model, begin_step=1), EPOCHS * STEPS),
    ],
)
def test_averages_begin_at_a_step_or_an_epoch(make: Callable[[nn.Module], WeightAverages], updates: int) -> None:
    training = Training(make)
    training.run()
    assert training.averages.updates == updates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin_step": 16}, "begin_step=16 never begin, the training ends with 15; lower begin_step"),
        ({"begin_epoch": 4}, "begin_epoch=4 never begin, the training ends with 3"),
    ],
)
def test_averages_that_would_never_begin_are_an_error(options: dict[str, int], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Training(lambda model: uniform_average(model, **options)).run()  # type: ignore[arg-type]  # these are ints


MAKERS: dict[str, Callable[[nn.Module], WeightAverages]] = {
    "ema": ema,
    "annealed": lambda model: annealed_average(model, gamma=3, interval=2),
    "swa": lambda model: uniform_average(model, interval=3, begin_epoch=2),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_a_run_that_is_stopped_and_resumed_has_the_same_averages(kind: str, stop: int, tmp_path: Path) -> None:
    whole = Training(MAKERS[kind])
    whole.run()
    store = CheckpointStore(LocalFiles(tmp_path))
    stopped = Training(MAKERS[kind], store=store)
    stopped.engine.attach(StopAfter(stop), "stop")
    stopped.run()
    _, state = store.load()
    resumed = Training(MAKERS[kind])
    resumed.run(state)
    assert resumed.engine.step == EPOCHS * STEPS
    assert len(resumed.seen) == EPOCHS * STEPS - stop
    assert_same(copies(resumed.model), copies(whole.model))
    assert_same(copies(resumed.averages.view()), copies(whole.averages.view()))
    for name in ("weights", "buffers"):
        found, expected = resumed.averages.state_dict()[name], whole.averages.state_dict()[name]
        assert isinstance(found, dict)
        assert isinstance(expected, dict)
        assert_same(found, expected)


def test_the_hook_asks_for_averages() -> None:
    with pytest.raises(EngineError, match="the engine holds no part 'averages'"):
        Training(None).run()


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"momentum": 0.25, "interval": 2}, lambda model: exponential_average(model, momentum=0.25, interval=2)),
        (
            {"begin_epoch": 2, "update_buffers": True},
            lambda m: exponential_average(m, begin_epoch=2, buffers="average"),
        ),
        ({"ema_type": "MomentumAnnealingEMA", "gamma": 3}, lambda model: annealed_average(model, gamma=3)),
        ({"ema_type": "ExpMomentumEMA", "gamma": 9}, lambda m: annealed_average(m, gamma=9, curve="exponential")),
        ({"ema_type": "ExpMomentumEMA"}, lambda model: annealed_average(model, curve="exponential")),
        ({"ema_type": "StochasticWeightAverage", "begin_iter": 4}, lambda m: uniform_average(m, begin_step=4)),
    ],
)
def test_mmengines_hook_makes_the_averages(
    options: dict[str, object], make: Callable[[nn.Module], WeightAverages]
) -> None:
    config = msgspec.convert(options, struct_of(EMAHook))
    named = Training(None, EMAHook(**{name: getattr(config, name) for name in options}))
    ours = Training(make)
    for training in (named, ours):
        training.run()
    assert named.averages.updates == ours.averages.updates
    assert_same(copies(named.averages.view()), copies(ours.averages.view()))
    named.run()  # an engine may run again
    assert named.averages.updates == ours.averages.updates


def test_mmengines_hook_resumes_and_begins_anew_where_a_checkpoint_has_no_averages(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    whole, resumed = (Training(None, EMAHook(momentum=0.3)) for _ in range(2))
    stopped = Training(None, EMAHook(momentum=0.3), store=store)
    whole.run()
    stopped.engine.attach(StopAfter(7), "stop")
    stopped.run()
    _, saved = store.load()
    resumed.run(saved)
    assert_same(copies(resumed.averages.view()), copies(whole.averages.view()))

    without = {name: value for name, value in saved.items() if name != "averages"}
    anew = Training(None, EMAHook(momentum=0.3))
    anew.run(dict(without))
    assert anew.averages.updates == EPOCHS * STEPS - 7
    anew.run(dict(without))  # with averages from the run before
    assert anew.averages.updates == EPOCHS * STEPS - 7
    with pytest.raises(StateError, match="has no state for the part 'averages'"):
        Training(None, EMAHook(strict_load=True)).run(dict(without))


def test_mmengines_hook_explains_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="begin_iter=1 and begin_epoch=2 exclude each other"):
        EMAHook(begin_iter=1, begin_epoch=2)
    with pytest.raises(ValueError, match="StochasticWeightAverage has no momentum; leave it out"):
        EMAHook("StochasticWeightAverage", momentum=0.1)
    with pytest.raises(ValueError, match="ExponentialMovingAverage has no gamma; leave it out"):
        EMAHook(gamma=3)
    with pytest.raises(
        ValueError, match="ema_type is 'EMA', must be ExponentialMovingAverage, StochasticWeightAverage"
    ):
        EMAHook("EMA")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(HookError, match="the engine has a part 'averages' already"):
        Training(uniform_average, EMAHook()).run()
    with pytest.raises(TrainingError, match="begin_step=99 never begin"):
        Training(None, EMAHook(begin_iter=99)).run()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"momentum": 1.0}, "Expected `float` < 1.0 - at `$.momentum`"),
        ({"interval": 0}, "Expected `int` >= 1 - at `$.interval`"),
        ({"buffers": "swap"}, "Invalid enum value 'swap' - at `$.buffers`"),
        ({"decay": 0.999}, "unknown field `decay`"),
    ],
)
def test_a_wrong_config_is_an_error_of_the_schema(config: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(config, struct_of(exponential_average, awaited=1))
    assert message in str(caught.value)

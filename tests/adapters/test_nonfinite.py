"""What becomes of a training whose loss or gradients are not finite: it stops, or skips the update."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.data import Batches
from treenail.adapters.hooks import (
    BoundSchedule,
    CheckpointHook,
    LoggerHook,
    NonFiniteHook,
    ScheduleHook,
    Schedules,
)
from treenail.adapters.logging import terminal_logger
from treenail.adapters.loops import EpochLoop
from treenail.adapters.optim import OptimWrapper, OptimWrapperDict, OwnStep, SupervisedStep
from treenail.contracts import StepOutput, TrainWork
from treenail.kernel import Engine, Hook, Record, TrainingError

INFINITE = float("inf")


def batches(*scales: float) -> list[tuple[Tensor, Tensor]]:
    """Return a batch for each scale, which its inputs are multiplied with."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, generator=generator) * scale, torch.randn(4, 2, generator=generator)) for scale in scales
    ]


class Training:
    """A small training whose batches are scaled, with hooks."""

    def __init__(self, scales: list[float], *hooks: Hook, loss: nn.Module | None = None, **updates: object) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.updater = OptimWrapper(self.optimizer, **updates)  # type: ignore[arg-type]  # each test gives what it takes
        scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.records: list[Record] = []
        step = SupervisedStep(self.model, loss or nn.MSELoss(), self.updater)
        self.loop = EpochLoop(TrainWork(step, Batches(batches(*scales))), max_epochs=1)
        self.engine = Engine(
            {"model": self.model, "updates": self.updater, "schedules": Schedules([BoundSchedule(scheduler, "step")])}
        )
        self.engine.subscribe(self.records.append)
        for hook in (ScheduleHook(), *hooks):
            self.engine.attach(hook)

    def run(self) -> Training:
        self.engine.run(self.loop)
        return self

    def weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.model.parameters()]


def silent() -> StringIO:
    return StringIO()


def hook(action: str = "stop", look_at: str = "both", **arguments: int) -> NonFiniteHook:
    return NonFiniteHook(action, look_at, terminal=terminal_logger(silent()), **arguments)  # type: ignore[arg-type]  # of tests


def logger(interval: int = 100) -> LoggerHook:
    return LoggerHook(interval, terminal=terminal_logger(silent()))


def plain(scales: list[float]) -> list[Tensor]:
    """Return the weights of a loop in plain torch over batches, without those whose scale is not finite."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for scale, (inputs, targets) in zip(scales, batches(*scales), strict=True):
        if scale != INFINITE:
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.mse_loss(model(inputs), targets))
            optimizer.step()
            scheduler.step()
    return [each.detach() for each in model.parameters()]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_stop_names_the_step_and_the_gradients_and_leaves_the_weights_alone() -> None:
    training = Training([1, 1, INFINITE, 1], hook("stop"))
    with pytest.raises(TrainingError) as caught:
        training.run()
    message = str(caught.value)
    assert "step 3: the loss is" in message
    assert "the norm of the gradients" in message
    assert "not finite those of weight" in message
    assert "its update was not made" in message
    assert "the last checkpoint is as it was" in message
    assert training.engine.step == 2
    assert equal(training.weights(), plain([1, 1])), "the bad update touched the weights"


def test_only_what_is_not_finite_is_named() -> None:
    class LogOfFirst(nn.Module):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs[:, 1].sum() * 0.0 + outputs[:, 0].sum()

    training = Training([1], hook("stop"), loss=LogOfFirst())
    training.model.bias.register_hook(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        lambda gradient: gradient * INFINITE
    )
    with pytest.raises(TrainingError, match=r"not finite those of bias; its update was not made"):
        training.run()


@pytest.mark.parametrize(("clip_norm", "clip_value"), [(1.0, None), (None, 1.0), (1.0, 0.1)])
def test_clipping_does_not_spread_what_is_not_finite(clip_norm: float | None, clip_value: float | None) -> None:
    """torch multiplies all gradients with a number that is NaN where their norm is."""
    training = Training([1], hook("stop"), clip_norm=clip_norm, clip_value=clip_value)
    training.model.bias.register_hook(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        lambda gradient: gradient * float("nan")
    )
    with pytest.raises(TrainingError, match=r"not finite those of bias; its update was not made"):
        training.run()


def test_a_loss_that_is_not_finite_though_its_gradients_are_stops_too() -> None:
    class Shifted(nn.Module):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs.sum() + INFINITE

    with pytest.raises(TrainingError, match=r"step 1: the loss is inf.*its update was made"):
        Training([1, 1], logger(1), hook("stop", "loss"), loss=Shifted()).run()
    Training([1, 1], hook("stop", "gradients"), loss=Shifted()).run()


def test_skip_leaves_out_the_update_and_everything_that_counts_updates() -> None:
    scales = [1, INFINITE, 1, INFINITE, INFINITE, 1]
    training = Training(scales, hook("skip"), logger(3)).run()
    assert equal(training.weights(), plain(scales))
    assert training.engine.step == 6
    assert training.updater.skipped == 3
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**3)
    assert [record.values.get("skipped_steps") for record in training.records] == [1.0, 3.0]
    assert all(torch.isfinite(torch.tensor(record.values["train/loss"])) for record in training.records)
    assert all("train/grad_norm" in record.values for record in training.records)


def test_too_many_skips_in_a_row_end_the_run() -> None:
    few = [1, INFINITE, INFINITE, 1, INFINITE, INFINITE, 1]
    assert Training(few, hook("skip", max_consecutive=2)).run().engine.step == 7
    with pytest.raises(TrainingError, match=r"3 steps in a row were skipped; step 5"):
        Training([1, 1, *[INFINITE] * 3, 1], hook("skip", max_consecutive=2)).run()


def test_every_step_of_a_window_may_be_skipped() -> None:
    training = Training([INFINITE, INFINITE, 1, 1], hook("skip"), logger(2)).run()
    assert [("train/loss" in record.values, record.values["skipped_steps"]) for record in training.records] == [
        (False, 2.0),
        (True, 2.0),
    ]


def test_an_overflow_that_lowers_the_loss_scale_is_no_failure() -> None:
    scales = [1.0] * 12
    training = Training(scales, hook("stop", "gradients"), precision="float16", loss_scale=2.0**24).run()
    assert 0 < training.updater.skipped < 12
    with pytest.raises(TrainingError, match="steps in a row were skipped"):
        Training(scales, hook("stop", "gradients", max_consecutive=2), precision="float16", loss_scale=2.0**60).run()


def test_without_an_updater_nothing_can_be_skipped() -> None:
    engine = Engine({"model": nn.Linear(1, 1)})
    engine.attach(hook("skip"))
    step = SupervisedStep(nn.Linear(3, 2), nn.MSELoss(), torch.optim.SGD([nn.Parameter(torch.ones(1))]))
    with pytest.raises(TrainingError, match="no part that is an OptimWrapper"):
        engine.run(EpochLoop(TrainWork(step, Batches(batches(1))), max_epochs=1))


def test_an_optimizer_that_makes_several_updates_in_a_step_is_looked_at_by_its_loss() -> None:
    model = nn.Linear(3, 2)
    wrapper = OptimWrapper(torch.optim.LBFGS(model.parameters()))
    step = SupervisedStep(model, nn.MSELoss(), wrapper)
    for look_at, message in (("gradients", "let look_at be loss"), ("loss", "step 1: the loss is nan")):
        engine = Engine({"model": model, "updates": wrapper})
        engine.attach(hook("stop", look_at))
        with pytest.raises(TrainingError, match=message):
            engine.run(EpochLoop(TrainWork(step, Batches(batches(INFINITE))), max_epochs=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "ignore"}, "there is no action='ignore'"),
        ({"look_at": "nothing"}, "with look_at='nothing'"),
        ({"max_consecutive": 0}, "max_consecutive=0 "),
        ({"max_rollbacks": 0}, "max_rollbacks=0 "),
        ({"action": "skip", "look_at": "loss"}, "look_at cannot be loss"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonFiniteHook(**arguments)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("interval", "when"), [(4, "in the 4 steps up to step 4"), (100, "in the 4 steps up to step 4"), (1, "by step 2")]
)
def test_the_logger_names_the_first_step_whose_loss_was_not_finite(interval: int, when: str) -> None:
    with pytest.raises(TrainingError, match=rf"the loss became (nan|inf) {when}, first in step 2;"):
        Training([1, INFINITE, 1, 1], logger(interval)).run()


def test_skipped_steps_are_counted_where_the_first_loss_that_was_not_finite_is_named() -> None:
    told = iter([StepOutput(1.0, 1), StepOutput(INFINITE, 1, stepped=False), StepOutput(INFINITE, 1)])
    engine = Engine()
    engine.attach(logger(10))
    with pytest.raises(TrainingError, match=r"the loss became inf in the 3 steps up to step 3, first in step 3;"):
        engine.run(EpochLoop(TrainWork(lambda _: next(told), Batches(batches(1, 1, 1))), max_epochs=1))


def test_the_logger_averages_what_a_step_tells() -> None:
    class Step:
        def __init__(self) -> None:
            self.count = 0

        def __call__(self, batch: object) -> StepOutput:
            self.count += 1
            return StepOutput(1.0, 2.0, logs={"grad_norm": torch.tensor(float(self.count)), "loss_box": 0.5})

    engine, records = Engine(), list[Record]()
    engine.subscribe(records.append)
    engine.attach(logger(4))
    engine.run(EpochLoop(TrainWork(Step(), Batches(batches(1, 1, 1, 1))), max_epochs=1))
    assert records[0].values["train/grad_norm"] == 2.5
    assert records[0].values["train/loss_box"] == 0.5


class Two(nn.Module):
    """Trains two layers with an optimizer each; the second one's loss sees batches as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def train_step(self, data: tuple[Tensor, Tensor], optim_wrapper: Mapping[str, OptimWrapper]) -> dict[str, Tensor]:
        inputs, targets = data
        finite = inputs.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)
        losses = {"a": nn.functional.mse_loss(self.a(finite), targets)}
        optim_wrapper["a"].update_params(losses["a"])
        losses["b"] = nn.functional.mse_loss(self.b(inputs), targets)
        optim_wrapper["b"].update_params(losses["b"])
        return {"loss_a": losses["a"], "loss_b": losses["b"]}


class One(nn.Module):
    """Trains a layer with a step of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def train_step(self, data: tuple[Tensor, Tensor], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        loss = nn.functional.mse_loss(self.layer(data[0]), data[1])
        optim_wrapper.update_params(loss)
        return {"loss": loss}


def own_training(
    model: One | Two, updaters: OptimWrapper | OptimWrapperDict, scales: list[float], *hooks: Hook
) -> list[Record]:
    records: list[Record] = []
    engine = Engine({"model": model, "updates": updaters})
    engine.subscribe(records.append)
    for each in hooks:
        engine.attach(each)
    engine.run(EpochLoop(TrainWork(OwnStep(model, updaters), Batches(batches(*scales))), max_epochs=1))
    return records


def two_updaters(model: Two, **of_first: str) -> OptimWrapperDict:
    rates = {"a": model.a, "b": model.b}
    optimizers = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in rates.items()}
    return OptimWrapperDict(
        a=OptimWrapper(optimizers["a"], **of_first),  # type: ignore[arg-type]  # each test gives what it takes
        b=OptimWrapper(optimizers["b"]),
    )


def test_a_step_of_which_one_optimizer_was_skipped_is_left_out_of_the_log() -> None:
    model = Two()
    updaters = two_updaters(model)
    records = own_training(model, updaters, [1, INFINITE, 1, 1], hook("skip"), logger(1))
    assert (updaters["a"].steps, updaters["b"].steps, updaters["b"].skipped) == (4, 3, 1)
    assert ["train/loss" in record.values for record in records] == [True, False, True, True]
    assert [record.values.get("skipped_steps") for record in records] == [None, 1.0, 1.0, 1.0]


def test_each_of_several_updaters_fails_by_itself() -> None:
    """Although another one, in float16, may skip steps as a matter of course."""
    model = Two()
    model.b.weight.register_hook(  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        lambda gradient: gradient * INFINITE
    )
    with pytest.raises(TrainingError, match=r"step 1: .*; 'b' made no update, the norm of the gradients is (inf|nan)"):
        own_training(model, two_updaters(model, precision="float16"), [1, 1], hook("stop", "gradients"))


def test_a_failed_step_of_a_models_own_says_what_its_updater_saw() -> None:
    model = One()
    updater = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(
        TrainingError, match=r"step 2: .*the norm of the gradients is (inf|nan); its update was not made"
    ):
        own_training(model, updater, [1, INFINITE], hook("stop"))


def test_a_step_that_tells_no_loss_cannot_be_looked_at() -> None:
    engine = Engine()
    engine.attach(hook("stop", "loss"))
    with pytest.raises(TrainingError, match="returned a dict"):
        engine.run(EpochLoop(TrainWork(lambda _: {"loss": INFINITE}, Batches([0])), max_epochs=1))  # type: ignore[arg-type, return-value]  # that is the point


@pytest.mark.parametrize("scales", [[1.0, 1.0], [1.0, INFINITE]])
def test_updaters_are_left_as_they_were(scales: list[float]) -> None:
    for before in (False, True):
        training = Training(scales, hook("stop"), skip_nonfinite=before)
        if INFINITE in scales:
            with pytest.raises(TrainingError, match="step 2"):
                training.run()
        else:
            training.run()
        assert training.updater.skip_nonfinite is before


def test_a_skipped_step_leaves_running_statistics_as_they_were() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.layer(self.norm(inputs))
            return outputs

    def trained(data: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Normalised()
        updater = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        engine = Engine({"model": model, "updates": updater})
        engine.attach(hook("skip"))
        engine.run(EpochLoop(TrainWork(SupervisedStep(model, nn.MSELoss(), updater), Batches(data)), max_epochs=1))
        CheckpointHook().before_save_checkpoint(engine, engine.state_dict())
        return model.state_dict()

    whole = batches(1, INFINITE, 1, INFINITE)
    ours, theirs = trained(whole), trained([whole[0], whole[2]])
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_model_whose_buffers_are_lost_is_not_saved() -> None:
    model = nn.BatchNorm1d(2)
    model.register_buffer("mask", torch.tensor([0.0, -INFINITE]))
    model.register_buffer("scratch", torch.tensor([float("nan")]), persistent=False)
    engine, save = Engine({"model": model}), CheckpointHook().before_save_checkpoint
    save(engine, engine.state_dict())
    model(torch.full((2, 2), INFINITE))
    with pytest.raises(TrainingError, match="the buffer 'running_var' is not finite after step 0"):
        save(engine, engine.state_dict())

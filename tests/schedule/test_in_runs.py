"""Schedules of configs: when they step, on which optimizer, and what a run shows of them."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim import scheduler as theirs
from ruamel.yaml import YAML
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from tests.schedule.mmengine_runs import TABLE, Arguments, Clocked, N, build
from tests.schedule.runs import adam, assert_close, sgd, trace, values
from treenail.adapters import optim as ours
from treenail.adapters.config import Catalog, InvalidConfigError, load_run
from treenail.adapters.hooks import BoundSchedule, ScheduleHook, Schedules
from treenail.adapters.loops import EpochLoop
from treenail.adapters.schedule import Cosine, Exponential, Linear, ReduceOnPlateau, compat, scheduled_params
from treenail.contracts import Run, Schedule, StepOutput, TrainWork
from treenail.kernel import ConfigError, Engine, Late, StateError, TrainingError, late

LENGTH = 15
"""Steps of an epoch."""

TORCHS = {"ConstantLR", "CosineAnnealingLR", "ExponentialLR", "LinearLR", "MultiStepLR", "OneCycleLR", "StepLR"}
"""Names of mmengine's that mean torch's here."""

BASE: Mapping[str, object] = {
    "model": {"type": "Linear", "in_features": 64, "out_features": 10},
    "loss": {"type": "cross_entropy"},
    "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
    "train": {"dataset": {"type": "digits", "split": "train"}, "batch_size": 64},
    "val": {"dataset": {"type": "digits", "split": "val"}, "batch_size": 256},
    "loop": {"type": "epochs", "max_epochs": 2},
}


@pytest.fixture(autouse=True)
def _nobody_steps_the_optimizers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run_with(tmp_path: Path, *schedules: Mapping[str, object], **fields: object) -> Run:
    path = tmp_path / "config.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump({**BASE, "schedules": list(schedules), **fields}, file)
    return load_run(path)


class Batches:
    """As many batches an epoch as are asked for."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length, self.consumed = length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[object]:
        return iter(range(self.consumed, self.length))

    def advance(self) -> None:
        self.consumed += 1

    def set_epoch(self, epoch: int) -> None:
        self.consumed = 0

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        raise AssertionError("nothing is resumed here")


class Validation:
    """Gives a loss after each epoch."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = iter(losses)
        self.metrics: Mapping[str, float] | None = None

    def run(self, engine: Engine) -> None:
        self.metrics = {"val/loss": next(self.losses)}
        if fire := engine.points.after_val_epoch:
            fire(engine, dict(self.metrics))


def train(
    optimizer: Any,
    schedules: Schedules,
    epochs: int,
    *,
    losses: list[float] | None = None,
    length: int = LENGTH,
    param: str = "lr",
) -> list[list[float]]:
    """Train with the real loop and hook; return the groups' values before each step and after the last one."""
    found: list[list[float]] = []

    def step(batch: object) -> StepOutput:
        found.append(values(optimizer, param))
        return StepOutput(0.0, 1.0)

    engine = Engine({"optimizer": optimizer, "schedules": schedules})
    engine.attach(ScheduleHook())
    validation = Validation(losses) if losses is not None else None
    engine.run(EpochLoop(TrainWork(step, Batches(length), validation), max_epochs=epochs))
    return [*found, values(optimizer, param)]


def named(name: str) -> str:
    return f"mmengine.{name}" if name in TORCHS else name


@pytest.mark.parametrize("row", TABLE)
def test_a_param_scheduler_of_mmengines_gives_its_values_in_a_run(tmp_path: Path, row: str) -> None:
    """The migration table and the guides: their dicts stand under `schedules`, one after the other."""
    configs = TABLE[row]
    run = run_with(tmp_path, *({"scheduler": {"type": named(name), **given}} for name, given in configs))
    optimizer = sgd()
    found = train(optimizer, Schedules.built(run.schedules, optimizer, LENGTH), N)
    other = trace(
        sgd(), lambda o: [Clocked(build(theirs, name, o, given), LENGTH) for name, given in configs], LENGTH * N
    )
    assert_close(found, other)


def test_momentum_and_any_other_parameter_stand_in_the_same_list(tmp_path: Path) -> None:
    params: list[tuple[str, Arguments]] = [
        ("LinearLR", {"start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 10}),
        ("LinearMomentum", {"start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 10}),
        (
            "LinearParamScheduler",
            {"param_name": "weight_decay", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 10},
        ),
        ("CosineAnnealingMomentum", {"eta_min": 0.1, "T_max": N, "begin": 1, "end": N, "by_epoch": True}),
    ]
    run = run_with(tmp_path, *({"scheduler": {"type": named(name), **given}} for name, given in params))

    def make() -> Optimizer:
        optimizer = sgd(0.1)
        optimizer.param_groups[0]["weight_decay"] = 0.05
        return optimizer

    for param, scale in (("lr", 0.1), ("momentum", 0.9), ("weight_decay", 0.05)):
        optimizer = make()
        found = train(optimizer, Schedules.built(run.schedules, optimizer, LENGTH), N, param=param)
        other = trace(
            make(),
            lambda o: [Clocked(build(theirs, name, o, given), LENGTH) for name, given in params],
            LENGTH * N,
            param,
        )
        assert_close(found, other, scale)


def test_a_name_that_torch_has_too_means_torchs(tmp_path: Path) -> None:
    run = run_with(tmp_path, {"scheduler": {"type": "LinearLR", "total_iters": 3}}, {"scheduler": {"type": "PolyLR"}})
    built = [each.scheduler.target for each in run.schedules]
    assert built[0] is lr_scheduler.LinearLR
    with pytest.raises(InvalidConfigError, match="LinearLR takes no 'begin'"):
        run_with(tmp_path, {"scheduler": {"type": "LinearLR", "begin": 3}})


@pytest.mark.parametrize(
    ("schedule", "by_epoch"),
    [
        ({"scheduler": {"type": "exponential", "gamma": 0.5}}, True),
        ({"scheduler": {"type": "exponential", "gamma": 0.5, "by_epoch": False}}, False),
        ({"scheduler": {"type": "exponential", "gamma": 0.5}, "every": "epoch"}, True),
        ({"scheduler": {"type": "exponential", "gamma": 0.5, "by_epoch": False}, "every": "step"}, False),
        ({"scheduler": {"type": "exponential", "gamma": 0.5, "convert_to_iter_based": True}}, False),
        ({"scheduler": {"type": "mmengine.ExponentialLR", "gamma": 0.5, "by_epoch": False}}, False),
        ({"scheduler": {"type": "ExponentialLR", "gamma": 0.5}}, True),
        ({"scheduler": {"type": "ExponentialLR", "gamma": 0.5}, "every": "step"}, False),
    ],
)
def test_a_schedule_steps_after_what_it_counts(tmp_path: Path, schedule: Mapping[str, object], by_epoch: bool) -> None:
    optimizer = sgd(0.1)
    built = Schedules.built(run_with(tmp_path, schedule).schedules, optimizer, 3)
    assert [each.by_epoch for each in built.schedules] == [by_epoch]
    found = [value for (value,) in train(optimizer, built, 2, length=3)]
    assert found == [0.1 * 0.5 ** (step // 3 if by_epoch else step) for step in range(7)]


@pytest.mark.parametrize(
    ("scheduler", "every", "message"),
    [
        (late(Exponential)(gamma=0.5), "step", "the lengths of Exponential count each epoch"),
        (late(Exponential)(gamma=0.5, by_epoch=False), "epoch", "the lengths of Exponential count each step"),
        (late(Cosine)(end=3, convert_to_iter_based=True), "epoch", "the lengths of Cosine count each step"),
        (late(compat.ReduceOnPlateauLR)(), "step", "the lengths of ReduceOnPlateauLR count each epoch"),
    ],
)
def test_after_what_a_schedule_steps_cannot_contradict_its_lengths(
    tmp_path: Path, scheduler: Late[Optimizer, Any], every: Literal["step", "epoch"], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"{message}, as its by_epoch says, and 'every' says {every}"):
        Schedules.built([Schedule(scheduler=scheduler, every=every)], sgd(), LENGTH)
    names: dict[object, str] = {
        Exponential: "exponential",
        Cosine: "cosine",
        compat.ReduceOnPlateauLR: "ReduceOnPlateauLR",
    }
    written = {"type": names[scheduler.target], **scheduler.kwargs}
    with pytest.raises(InvalidConfigError, match=rf"schedules\[0\].every: {message}, as its by_epoch says"):
        run_with(tmp_path, {"scheduler": written, "every": every})


def test_a_metric_is_for_schedulers_that_take_one(tmp_path: Path) -> None:
    steps_by_itself = late(Cosine)(end=3), late(lr_scheduler.StepLR)(step_size=1)
    for scheduler in (*steps_by_itself, late(Quiet)()):
        with pytest.raises(ConfigError, match=r"(Cosine|StepLR|Quiet) steps without a metric; leave 'metric' out"):
            Schedules.built([Schedule(scheduler=scheduler, metric="val/loss")], sgd())
    message = "a schedule with a metric steps after each validation; leave 'every' out"
    written = {"scheduler": {"type": "reduce_on_plateau"}, "metric": "val/loss", "every": "step"}
    with pytest.raises(ConfigError, match=f"config.yaml.*: {message}"):
        Schedules.built(run_with(tmp_path, written).schedules, sgd())
    for kind in (ReduceOnPlateau, lr_scheduler.ReduceLROnPlateau):
        given = Schedule(scheduler=late(kind)(), metric="val/loss")
        assert [each.metric for each in Schedules.built([given], sgd()).schedules] == ["val/loss"]
        with pytest.raises(ValueError, match=message):
            Schedules([BoundSchedule(kind(sgd()), "step", "val/loss")])


class Quiet(lr_scheduler.LRScheduler):
    """A scheduler whose step takes nothing."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:  # type: ignore[override]  # as that of torch's SequentialLR
        pass


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "cosine", "period": 12, "convert_to_iter_based": True},
        {"type": "mmengine.CosineAnnealingLR", "T_max": 12, "by_epoch": True, "convert_to_iter_based": True},
        {"type": "wsd", "warmup": 1, "decay": 0.5, "end": 12, "convert_to_iter_based": True},
        {"type": "mmengine.MultiStepLR", "milestones": [8, 11], "convert_to_iter_based": True},
    ],
)
def test_a_run_knows_how_many_steps_an_epoch_has(tmp_path: Path, scheduler: Arguments) -> None:
    optimizer, other = sgd(0.1), sgd(0.1)
    schedules = run_with(tmp_path, {"scheduler": scheduler}).schedules
    found = train(optimizer, Schedules.built(schedules, optimizer, LENGTH), N)
    lengths = ("period", "T_max", "warmup", "decay", "end")
    in_steps = {name: given * LENGTH if name in lengths else given for name, given in scheduler.items()}
    if "milestones" in in_steps:
        in_steps["milestones"] = [each * LENGTH for each in in_steps["milestones"]]
    in_steps |= {"by_epoch": False, "convert_to_iter_based": False}
    written = run_with(tmp_path, {"scheduler": in_steps}).schedules
    assert_close(found, train(other, Schedules.built(written, other, LENGTH), N))
    with pytest.raises(Exception, match="convert_to_iter_based needs epoch_length"):
        Schedules.built(schedules, sgd())


@pytest.mark.parametrize("begin", [0, 1, 4])
def test_a_plateau_of_mmengines_counts_epochs_and_chooses_its_metric(tmp_path: Path, begin: int) -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5]
    given: Arguments = {"monitor": "loss", "patience": 1, "begin": begin, "end": 9}
    run = run_with(tmp_path, {"scheduler": {"type": "ReduceOnPlateauLR", **given}})
    optimizer, other = sgd(), sgd()
    found = train(optimizer, Schedules.built(run.schedules, optimizer, 2), len(losses), losses=losses, length=2)
    scheduler = theirs.ReduceOnPlateauLR(other, **given)
    expected = []
    for loss in losses:
        expected += [values(other)] * 2
        scheduler.step()
        scheduler.step({"loss": loss})
    assert_close(found, [*expected, values(other)])
    assert len({value[0] for value in found}) > 1


def test_a_plateau_of_ours_counts_validations(tmp_path: Path) -> None:
    optimizer = sgd(0.1)
    plateau = {"type": "reduce_on_plateau", "patience": 0, "begin": 3, "factor": 0.5}
    run = run_with(tmp_path, {"scheduler": plateau, "metric": "val/loss"})
    found = train(optimizer, Schedules.built(run.schedules, optimizer, 1), 6, losses=[1.0] * 6, length=1)
    assert [value for (value,) in found] == [0.1] * 5 + [0.05, 0.025]


def test_a_plateau_without_its_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write metric: val/loss"):
        Schedules([BoundSchedule(ReduceOnPlateau(sgd()))])
    with pytest.raises(InvalidConfigError, match="ReduceOnPlateau steps on a metric"):
        run_with(tmp_path, {"scheduler": {"type": "reduce_on_plateau"}})
    optimizer = sgd()
    run = run_with(tmp_path, {"scheduler": {"type": "ReduceOnPlateauLR", "monitor": "acuracy"}})
    schedules = Schedules.built(run.schedules, optimizer)
    with pytest.raises(TrainingError, match="a plateau of 'acuracy' needs it"):
        train(optimizer, schedules, 1, losses=[1.0], length=1)


class Pair(dict[str, Optimizer]):
    """Two optimizers as one part of a run."""

    def state_dict(self) -> dict[str, object]:
        return {name: each.state_dict() for name, each in self.items()}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        for name, each in self.items():
            each.load_state_dict(state_dict[name])  # type: ignore[arg-type]  # what state_dict gave


def test_a_schedule_names_its_optimizer_or_is_for_all_of_them(tmp_path: Path) -> None:
    run = run_with(
        tmp_path,
        {"scheduler": {"type": "exponential", "gamma": 0.5}, "optimizer": "generator"},
        {"scheduler": {"type": "StepLR", "step_size": 1, "gamma": 0.1}},
    )
    pair = Pair(generator=adam(0.1), discriminator=sgd(0.2))
    schedules = Schedules.built(run.schedules, pair)
    assert [each.scheduler.optimizer for each in schedules.schedules] == [
        pair["generator"],
        pair["generator"],
        pair["discriminator"],
    ]
    engine = Engine({"optimizer": pair, "schedules": schedules})
    engine.attach(ScheduleHook())
    work = TrainWork(lambda _: StepOutput(0.0, 1.0), Batches(2))
    engine.run(EpochLoop(work, max_epochs=1))
    assert engine.meters.drain() == {"lr/generator": pytest.approx(0.005), "lr/discriminator": pytest.approx(0.02)}
    for name in ("generater", "optimizer"):
        wrong = run_with(tmp_path, {"scheduler": {"type": "StepLR", "step_size": 1}, "optimizer": name}).schedules
        mend = "did you mean 'generator'" if name == "generater" else "there are generator, discriminator"
        with pytest.raises(ConfigError, match=f"config.yaml.*for the optimizer '{name}', which there is not; {mend}"):
            Schedules.built(wrong, pair)
        with pytest.raises(ConfigError, match="there is one, without a name: leave it out"):
            Schedules.built(wrong, sgd())


def test_wrappers_of_optimizers_are_taken(tmp_path: Path) -> None:
    run = run_with(tmp_path, {"scheduler": {"type": "StepLR", "step_size": 1}, "optimizer": "a"})
    first, second = sgd(0.1), sgd(0.2)
    wrappers = OptimWrapperDict(a=OptimWrapper(first), b=OptimWrapper(second))
    schedules = Schedules.built(run.schedules, wrappers)
    assert [each.scheduler.optimizer for each in schedules.schedules] == [first]
    assert gauges(wrappers, schedules) == {"lr/a": 0.1, "lr/b": 0.2}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_each_of_several_optimizers_has_its_own_skipped_steps(names: tuple[str, str]) -> None:
    """Of three steps, a makes all, and b skips the second one; a third schedule's optimizer is no updater's."""
    parameters = {name: nn.Parameter(torch.ones(1)) for name in (*names, "free")}
    optimizers = {name: torch.optim.SGD([each], lr=1.0) for name, each in parameters.items()}
    updates = ours.OptimWrapperDict(
        **{name: ours.OptimWrapper(optimizers[name], skip_nonfinite=True) for name in names}
    )

    def step(batch: object) -> StepOutput:
        updates["a"].update_params(parameters["a"].sum())
        updates["b"].update_params((parameters["b"] * (float("nan") if batch == 1 else 1.0)).sum())
        return StepOutput(0.0, 1.0)

    made = [Exponential(each, gamma=0.5, by_epoch=False) for each in optimizers.values()]
    made.append(Exponential(optimizers["b"], gamma=0.1, by_epoch=False))  # together with the other one
    torchs = lr_scheduler.StepLR(optimizers["b"], 1, gamma=0.9)
    schedules = Schedules([*map(BoundSchedule, made), BoundSchedule(torchs, "step")])
    engine = Engine({"optimizer": Pair(optimizers), "schedules": schedules, "updates": updates})
    engine.attach(ScheduleHook())
    engine.run(EpochLoop(TrainWork(step, Batches(3)), max_epochs=1))
    assert updates["b"].skipped == 1
    assert {name: values(each) for name, each in optimizers.items()} == {
        "a": [0.125],
        "b": [pytest.approx((0.5 * 0.1 * 0.9) ** 2)],
        "free": [0.125],
    }


def gauges(optimizer: Any, schedules: Schedules | None = None) -> dict[str, float]:
    engine = Engine({"optimizer": optimizer} | ({"schedules": schedules} if schedules else {}))
    ScheduleHook().before_train(engine)
    return {name: gauge() for name, gauge in engine.meters.gauges.items()}


def test_what_a_run_shows() -> None:
    assert gauges(sgd(0.1)) == {"lr": 0.1}
    assert gauges(sgd(0.1, 0.2)) == {"lr/0": 0.1, "lr/1": 0.2}
    optimizer = sgd(0.1, 0.2)
    optimizer.param_groups[0]["name"], optimizer.param_groups[1]["name"] = "decay", "no decay"
    assert gauges(optimizer) == {"lr/decay": 0.1, "lr/no decay": 0.2}
    optimizer.param_groups[1]["name"] = "decay"
    assert gauges(optimizer) == {"lr/0": 0.1, "lr/1": 0.2}
    assert gauges(Pair(a=sgd(0.1, 0.2), b=sgd(0.3))) == {"lr/a/0": 0.1, "lr/a/1": 0.2, "lr/b": 0.3}
    for make in (sgd, adam):
        optimizer = make(0.1)
        schedules = Schedules([BoundSchedule(Linear(optimizer, start_factor=0.5, end=5, param="momentum"))])
        assert gauges(optimizer, schedules) == {"lr": 0.1, "momentum": 0.45}
    optimizer = sgd(0.1)
    both = Schedules([BoundSchedule(lr_scheduler.OneCycleLR(optimizer, 0.3, 10))])
    assert gauges(optimizer, both) == {"lr": pytest.approx(0.012), "momentum": 0.95}


def test_what_torchs_and_mmengines_schedulers_set_is_known() -> None:
    optimizer = sgd()
    parts = [lr_scheduler.LinearLR(optimizer), lr_scheduler.OneCycleLR(optimizer, 0.1, 5)]
    assert set(scheduled_params(lr_scheduler.SequentialLR(optimizer, parts, [3]))) == {"lr", "momentum"}
    assert set(scheduled_params(lr_scheduler.ChainedScheduler([Cosine(optimizer, period=3, param="momentum")]))) == {
        "momentum"
    }
    assert set(scheduled_params(theirs.LinearMomentum(sgd(), end=3))) == {"momentum"}


def test_what_is_shown_follows_a_loaded_state() -> None:
    optimizer = sgd(0.1)
    engine = Engine({"optimizer": optimizer})
    ScheduleHook().before_train(engine)
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.25
    optimizer.load_state_dict(state)
    assert engine.meters.gauges["lr"]() == 0.25


def test_the_state_of_other_schedules_is_refused() -> None:
    optimizer = sgd()
    schedules = Schedules([BoundSchedule(Exponential(optimizer, gamma=0.5))])
    with pytest.raises(StateError, match="not of 1 schedulers"):
        schedules.load_state_dict(Schedules().state_dict())


def test_every_argument_is_described() -> None:
    catalog = Catalog(described=True)
    registry = catalog.registry("scheduler")
    ours = {adapter.name for scope, adapter in registry if scope == "treenail"}
    assert len(ours) == 11 + 29
    for name in ours:
        schema = catalog.lookup("scheduler", name)
        assert schema.summary, name
        assert [field.name for field in schema.fields if not field.description] == [], name


def test_every_name_of_mmengines_can_be_checked(tmp_path: Path) -> None:
    """With all arguments of its signature, so that what a config may say is what the class takes."""
    given: Mapping[str, Arguments] = {
        "Constant": {"factor": 0.5},
        "CosineAnnealing": {"T_max": 5, "eta_min": 0.1},
        "CosineRestart": {"periods": [5], "restart_weights": [1.0], "eta_min": 0.1},
        "Exponential": {"gamma": 0.5},
        "Linear": {"start_factor": 0.5, "end_factor": 1.0},
        "MultiStep": {"milestones": [2], "gamma": 0.1},
        "OneCycle": {"eta_max": 0.1, "total_steps": 5, "pct_start": 0.3, "three_phase": True},
        "Poly": {"eta_min": 0.1, "power": 1.0},
        "ReduceOnPlateau": {"monitor": "loss", "rule": "greater", "min_value": 0.0},
        "Step": {"step_size": 3, "gamma": 0.1},
    }
    common: Arguments = {"begin": 0, "end": 5, "by_epoch": True, "last_step": -1, "verbose": False}
    schedules: list[Mapping[str, object]] = []
    for family, own in given.items():
        for suffix, extra in (("LR", {}), ("Momentum", {}), ("ParamScheduler", {"param_name": "lr"})):
            if (family, suffix) != ("OneCycle", "Momentum"):
                converted = {} if family == "ReduceOnPlateau" else {"convert_to_iter_based": True}
                kind = f"mmengine.{family}{suffix}"
                schedules.append({"scheduler": {"type": kind, **own, **common, **extra, **converted}})
    run = run_with(tmp_path, *schedules)
    optimizer = sgd(0.1)
    assert len(Schedules.built(run.schedules, optimizer, LENGTH).schedules) == 29

"""mmengine's names give mmengine's values, step for step, but where mmengine breaks its own promises."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim import OptimWrapper
from mmengine.optim import scheduler as theirs
from torch.optim import Optimizer

from tests.schedule.mmengine_runs import TABLE, Arguments, Clocked, N, build
from tests.schedule.runs import Steps, adam, assert_close, sgd, trace
from treenail.adapters.schedule import compat
from treenail.kernel import TrainingError

few = settings(deadline=None, max_examples=20)


@pytest.fixture(autouse=True)
def _nobody_steps_the_optimizers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def same(
    configs: list[tuple[str, Arguments]],
    steps: int,
    *,
    make: Callable[[], Optimizer] = sgd,
    param: str = "lr",
    epoch_length: int = 1,
    scale: float = 0.1,
) -> list[list[float]]:
    """Check a list of schedules, stepped in its order, by epoch or not; return the values."""

    def of(module: Any) -> Callable[[Optimizer], list[Steps]]:
        return lambda optimizer: [
            Clocked(build(module, name, optimizer, given), epoch_length) for name, given in configs
        ]

    ours, other = (trace(make(), of(module), steps, param) for module in (compat, theirs))
    assert_close(ours, other, scale)
    return ours


unit = st.floats(0.05, 1.0)
bounds = st.tuples(st.integers(0, 6), st.integers(3, 12)).map(lambda pair: {"begin": pair[0], "end": pair[0] + pair[1]})


@st.composite
def factors(draw: st.DrawFn) -> tuple[str, Arguments]:
    """A schedule that multiplies, so that any number of them may overlap."""
    name = draw(st.sampled_from(["Constant", "Linear", "Exponential", "Step", "MultiStep", "Cosine", "Poly"]))
    span = draw(bounds)
    length = span["end"] - span["begin"]
    if name == "Constant":
        return "ConstantLR", span | {"factor": draw(unit)}
    if name == "Linear":
        return "LinearLR", span | {"start_factor": draw(unit), "end_factor": draw(unit)}
    if name == "Exponential":
        return "ExponentialLR", span | {"gamma": draw(unit)}
    if name == "Step":
        return "StepLR", span | {"step_size": draw(st.integers(1, 5)), "gamma": draw(unit)}
    if name == "MultiStep":
        return "MultiStepLR", span | {"milestones": draw(st.lists(st.integers(1, 8), max_size=4)), "gamma": draw(unit)}
    if name == "Cosine":  # beyond its bottom mmengine forgets what the others did
        return "CosineAnnealingLR", span | {"T_max": length + draw(st.integers(0, 5))}
    return "PolyLR", span | {"power": draw(st.floats(0.3, 2.0)), "end": span["end"] + 1}


@few
@given(st.lists(factors(), min_size=1, max_size=4), st.integers(1, 3), st.data())
def test_factors_multiply_with_gaps_and_overlaps_in_any_order(
    configs: list[tuple[str, Arguments]], epoch_length: int, data: st.DataObject
) -> None:
    configs = [(name, given | {"by_epoch": data.draw(st.booleans())}) for name, given in configs]
    values = same(configs, 25, epoch_length=epoch_length)
    other_order = data.draw(st.permutations(configs))
    assert_close(same(other_order, 25, epoch_length=epoch_length), values)


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["CosineAnnealingLR", "PolyLR", "LinearLR"]), st.integers(3, 8), st.floats(0.001, 0.4)
        )
    ),
    st.data(),
)
def test_floors_hold_for_what_came_before_whatever_the_order_of_the_list(
    parts: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    """Among them the cyclic schedule of 3D detectors, which rises to ten times the base and falls from there."""
    begin, configs = 0, []
    for name, length, level in parts[:4]:
        span: Arguments = {"begin": begin, "end": begin + length}
        if name == "LinearLR":
            configs.append((name, span | {"start_factor": 1.0, "end_factor": min(level * 2, 1)}))
        else:
            configs.append((name, span | {"eta_min": level}))
        begin += length + data.draw(st.integers(0, 2))
    same(data.draw(st.permutations(configs)), begin + 3)


@few
@given(factors(), st.integers(1, 4), st.booleans())
def test_converted_to_iterations(config: tuple[str, Arguments], epoch_length: int, floats: bool) -> None:
    name, given = config
    if floats:  # bounds may be fractions of an epoch
        given = given | {"begin": given["begin"] + 0.5, "end": given["end"] + 0.5}
    converted = given | {"convert_to_iter_based": True, "epoch_length": epoch_length}
    if name in {"LinearLR", "ConstantLR", "PolyLR"} and given["end"] - given["begin"] < 3:
        return
    same([(name, converted)], 20 * epoch_length, epoch_length=epoch_length)
    by_key = getattr(compat, name)(sgd(), **converted)
    assert not by_key.by_epoch
    assert (by_key.begin, by_key.end) == (int(given["begin"] * epoch_length), int(given["end"] * epoch_length))


@few
@given(st.integers(0, 4), st.lists(st.tuples(st.integers(2, 6), unit), min_size=1, max_size=4), st.floats(0, 0.02))
def test_cosine_restarts_and_what_comes_after_them(
    begin: int, periods: list[tuple[int, float]], eta_min: float
) -> None:
    given = {
        "periods": [period for period, _ in periods],
        "restart_weights": [weight for _, weight in periods],
        "eta_min": eta_min,
        "begin": begin,
    }
    same([("CosineRestartLR", given)], 30)


@few
@given(st.integers(10, 30), st.floats(0.15, 0.5), st.sampled_from(["cos", "linear"]), st.booleans(), st.integers(0, 4))
def test_one_cycle(steps: int, pct: float, strategy: str, three: bool, begin: int) -> None:
    given: Arguments = {
        "eta_max": 0.3,
        "pct_start": pct,
        "anneal_strategy": strategy,
        "three_phase": three,
        "begin": begin,
    }
    same([("OneCycleLR", given | {"end": begin + steps})], steps + 8)
    same([("OneCycleLR", given | {"total_steps": steps})], begin + steps - 1)


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("LinearMomentum", {"start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 10}),
        ("CosineAnnealingMomentum", {"eta_min": 0.1, "T_max": 12, "begin": 0, "end": 12}),
        ("ConstantMomentum", {"factor": 0.5, "end": 5}),
        ("ExponentialMomentum", {"gamma": 0.9}),
        ("MultiStepMomentum", {"milestones": [3, 5]}),
        ("StepMomentum", {"step_size": 4}),
        ("PolyMomentum", {"eta_min": 0.3, "end": 9}),
        ("CosineRestartMomentum", {"periods": [3, 4], "restart_weights": [1, 0.5], "eta_min": 0.1}),
    ],
)
def test_momentum_of_sgd_and_the_first_beta_of_adam(make: Callable[[], Optimizer], name: str, given: Arguments) -> None:
    same([(name, given)], 15, make=make, param="momentum", scale=0.9)


@pytest.mark.parametrize("name", [name for name in compat.__all__ if name.endswith("ParamScheduler")])
def test_arguments_are_mmengines_in_mmengines_order(name: str) -> None:
    def positional(kind: Callable[..., object]) -> list[tuple[str, object]]:
        found = inspect.signature(kind).parameters.values()
        return [(each.name, each.default) for each in found if each.kind is each.POSITIONAL_OR_KEYWORD]

    ours, expected = positional(getattr(compat, name)), positional(getattr(theirs, name))
    assert [each for each, _ in ours] == [each for each, _ in expected]
    for (argument, default), (_, their_default) in zip(ours, expected, strict=True):
        if argument != "restart_weights":  # a tuple here, for a default is shared
            assert default == their_default or (argument == "eta_min" and not default and not their_default), argument
    for suffix in ("LR", "Momentum"):
        other = getattr(compat, name.replace("ParamScheduler", suffix), None)
        if other is not None:
            assert positional(other) == [each for each in ours if each[0] != "param_name"]


def test_any_parameter() -> None:
    def decayed() -> Optimizer:
        optimizer = sgd()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.05
        return optimizer

    given = {"param_name": "weight_decay", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 10}
    same([("LinearParamScheduler", given)], 12, make=decayed, param="weight_decay")
    as_lr = trace(sgd(), lambda o: compat.LinearParamScheduler(o, "lr", 0.001, end=10), 12)
    assert as_lr == trace(sgd(), lambda o: compat.LinearLR(o, 0.001, end=10), 12)


@pytest.mark.parametrize("row", TABLE)
def test_the_migration_table_and_the_guides(row: str) -> None:
    same(TABLE[row], 15 * N, epoch_length=15)


def test_the_numbers_of_the_guides() -> None:
    by_epoch = same([("MultiStepLR", {"milestones": [8, 11], "gamma": 0.1})], 12)
    assert [round(values[0], 6) for values in by_epoch] == [0.1] * 8 + [0.01] * 3 + [0.001] * 2
    built = compat.MultiStepLR.build_iter_from_epoch(sgd(), milestones=(8, 11), gamma=0.1, epoch_length=75)
    assert [built.curve(step) for step in (599, 600, 824, 825)] == pytest.approx([1, 0.1, 0.1, 0.01])


@few
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=40), st.integers(0, 3), st.sampled_from(["less", "greater"]), bounds
)
def test_reduce_on_plateau(metrics: list[float], patience: int, rule: str, span: Arguments) -> None:
    ours, other = sgd(), sgd()
    arguments: Arguments = {"monitor": "loss", "rule": rule, "patience": patience} | span
    mine, of_mmengine = compat.ReduceOnPlateauLR(ours, **arguments), theirs.ReduceOnPlateauLR(other, **arguments)
    for metric in metrics:
        for each in (mine, of_mmengine):
            each.step()
            each.step({"loss": metric})
        assert mine.get_last_value() == pytest.approx(of_mmengine.get_last_value(), rel=1e-12, abs=1e-18)


def test_mmengines_own_wrapper_is_taken() -> None:
    optimizer = sgd()
    compat.ConstantLR(OptimWrapper(optimizer), factor=0.5)
    assert optimizer.param_groups[0]["lr"] == 0.05


class TestWhereMmengineBreaksItsPromises:
    """Each with what mmengine gives, so that a mended mmengine is noticed."""

    def test_a_constant_factor_ends_although_its_end_is_a_fraction(self) -> None:
        given: Arguments = {"factor": 0.5, "end": 4.5}
        assert trace(sgd(0.1), lambda o: theirs.ConstantLR(o, **given), 6)[-1] == [0.05]
        assert trace(sgd(0.1), lambda o: compat.ConstantLR(o, **given), 6)[-1] == [0.1]

    def test_a_constant_factor_of_zero_can_be_undone(self) -> None:
        with pytest.raises(ZeroDivisionError):
            trace(sgd(0.1), lambda o: theirs.ConstantLR(o, factor=0.0, end=3), 3)
        assert trace(sgd(0.1), lambda o: compat.ConstantLR(o, factor=0.0, end=3), 3) == [[0.0], [0.0], [0.1], [0.1]]

    def test_a_line_does_not_go_past_a_fraction_of_a_step(self) -> None:
        given: Arguments = {"start_factor": 0.5, "end": 4.5}
        assert trace(sgd(0.1), lambda o: theirs.LinearLR(o, **given), 6)[-1][0] > 0.105
        assert trace(sgd(0.1), lambda o: compat.LinearLR(o, **given), 6)[-1] == [0.1]

    def test_a_warm_up_of_one_step_is_refused(self) -> None:
        assert trace(sgd(0.1), lambda o: theirs.LinearLR(o, start_factor=0.001, end=1), 3)[-1] == [0.1 * 0.001]
        with pytest.raises(ValueError, match="warm-up of one step stays at its start_factor"):
            compat.LinearLR(sgd(0.1), start_factor=0.001, end=1)

    def test_a_constant_factor_of_one_step_is_refused(self) -> None:
        assert trace(sgd(0.1), lambda o: theirs.ConstantLR(o, factor=0.5, end=1), 3)[-1] == [0.05]
        with pytest.raises(ValueError, match=r"a constant factor of 0.5 .* and here is one"):
            compat.ConstantLR(sgd(0.1), factor=0.5, end=1)
        assert trace(sgd(0.1), lambda o: compat.ConstantLR(o, factor=1.0, end=1), 3)[-1] == [0.1]

    def test_a_milestone_between_two_steps_is_reached(self) -> None:
        assert trace(sgd(0.1), lambda o: theirs.MultiStepLR(o, [2.5]), 4)[-1] == [0.1]
        assert trace(sgd(0.1), lambda o: compat.MultiStepLR(o, (2.5,)), 4)[-1] == [pytest.approx(0.01)]

    def test_a_power_of_what_is_left_ends_although_its_end_is_a_fraction(self) -> None:
        given: Arguments = {"power": 0.5, "end": 4.5}
        with pytest.raises(TypeError, match="complex"):
            trace(sgd(0.1), lambda o: theirs.PolyLR(o, **given), 6)
        assert trace(sgd(0.1), lambda o: compat.PolyLR(o, **given), 6)[-1] == [0.0]

    def test_a_one_cycle_stays_where_it_ended(self) -> None:
        given: Arguments = {"eta_max": 0.3, "total_steps": 10}
        with pytest.raises(ValueError, match="Tried to step"):
            trace(sgd(0.1), lambda o: theirs.OneCycleLR(o, **given), 15)
        found = trace(sgd(0.1), lambda o: compat.OneCycleLR(o, **given), 15)
        assert found[9] == found[15] == [pytest.approx(0.3 / 25 / 1e4)]

    def test_a_warm_up_beside_restarts_is_kept(self) -> None:
        def both(module: Any) -> list[list[float]]:
            return trace(
                sgd(0.1),
                lambda o: [
                    module.LinearLR(o, start_factor=0.001, end=5),
                    module.CosineRestartLR(o, periods=[20], restart_weights=[1], eta_min=0.0),
                ],
                6,
            )

        assert max(both(theirs))[0] > 50  # times the warm-up's inverse
        assert max(both(compat))[0] <= 0.1

    def test_a_cosine_past_its_bottom_remembers_what_came_before(self) -> None:
        def both(module: Any) -> list[list[float]]:
            optimizer = sgd(0.1)
            for group in optimizer.param_groups:
                group["initial_lr"], group["lr"] = 0.1, 0.05
            return trace(optimizer, lambda o: [module.CosineAnnealingLR(o, T_max=4)], 8)

        assert both(theirs)[8][0] > 0.09  # twice what it came down from
        assert both(compat)[8][0] == pytest.approx(0.05)


def test_what_mmengine_refuses_is_refused() -> None:
    wrong: list[tuple[str, Arguments]] = [
        ("ConstantLR", {"factor": 1.5}),
        ("LinearLR", {"start_factor": 1.5}),
        ("LinearLR", {"end_factor": -0.5}),
        ("ConstantLR", {"begin": 5, "end": 5}),
        ("OneCycleLR", {"eta_max": 1.0, "pct_start": 1.5, "end": 10}),
        ("OneCycleLR", {"eta_max": (1.0,), "end": 10}),
        ("CosineRestartLR", {"periods": [2], "restart_weights": [1, 1], "eta_min": 0}),
        ("CosineAnnealingLR", {"eta_min": 0.1, "eta_min_ratio": 0.1}),
        ("StepLR", {"step_size": 2, "convert_to_iter_based": True}),
        ("StepLR", {"step_size": 2, "convert_to_iter_based": True, "by_epoch": False, "epoch_length": 2}),
        ("ReduceOnPlateauLR", {"factor": 1.0}),
        ("ReduceOnPlateauLR", {"rule": "best"}),
        ("ReduceOnPlateauLR", {"by_epoch": False}),
    ]
    for name, arguments in wrong:
        with pytest.raises(ValueError):
            getattr(compat, name)(sgd(), **arguments)
    with pytest.raises(TrainingError, match="did you mean 'los'"):
        compat.ReduceOnPlateauLR(sgd()).step({"los": 1.0})

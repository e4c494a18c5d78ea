"""Arguments and states that schedules refuse, and factors that nothing can hold."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.schedule.runs import assert_close, sgd, trace, values
from treenail.adapters.schedule import (
    Annealing,
    Constant,
    Cosine,
    CosineRestarts,
    DecayShape,
    Exponential,
    Interval,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Step,
    WarmupStableDecay,
    compat,
)
from treenail.kernel import StateError, TrainingError


@pytest.fixture(autouse=True)
def _nobody_steps_the_optimizers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Cosine(o, period=5, param="lrr"), "no 'lrr' to schedule: did you mean 'lr'"),
        (lambda o: Cosine(o, period=5, param="nesterov"), "no number to schedule"),
        (lambda o: Cosine(o, period=5, begin=4, end=4), "end must be after begin"),
        (Cosine, "cosine without period needs an end"),
        (lambda o: Cosine(o, period=0), "period is 0: expected `float` > 0.0"),
        (lambda o: Cosine(o, period=math.nan), "period is nan: expected `float` > 0.0"),
        (lambda o: Cosine(o, period=5, begin=-1), "begin is -1: expected `float` >= 0.0"),
        (lambda o: compat.LinearLR(o, begin=-5, end=5), "begin is -5: expected `float` >= 0.0"),
        (
            lambda o: Cosine(o, end=math.inf),
            "end must be after begin: they are inf and 0; what has no end leaves it out",
        ),
        (lambda o: Linear(o, end=math.inf, convert_to_iter_based=True, epoch_length=5), "they are inf and 0"),
        (lambda o: Linear(o, end=math.nan), "they are nan and 0"),
        (lambda _: Interval(math.nan, 5), "begin must be a step from 0 on: it is nan"),
        (lambda o: ReduceOnPlateau(o, begin=3, end=3), "they are 3 and 3"),
        (lambda o: compat.ReduceOnPlateauLR(o, begin=3, end=math.inf), "they are inf and 3"),
        (lambda o: Constant(o, begin=2, end=3), "a constant factor of 0.33.* and here is one"),
        (lambda o: Constant(o, factor=-1, end=3), "factor is -1: expected `float` >= 0.0"),
        (lambda o: Exponential(o, gamma=-0.5), "gamma is -0.5: expected `float` >= 0.0"),
        (lambda o: Step(o, step_size=0), "step_size is 0: expected `float` > 0.0"),
        (lambda o: Polynomial(o, power=-1, end=3), "power is -1: expected `float` >= 0.0"),
        (lambda o: CosineRestarts(o, periods=(1, 0)), r"periods is \[1, 0\]: expected `float` > 0.0 - at `\$\[1\]`"),
        (
            lambda o: WarmupStableDecay(o, warmup=0, decay=3, end=4, shape=cast("DecayShape", "foo")),
            "shape is 'foo': there are linear, cosine, one_minus_sqrt",
        ),
        (
            lambda o: OneCycle(o, eta_max=1, end=4, anneal_strategy=cast("Annealing", "foo")),
            "anneal_strategy is 'foo': there are cos, linear",
        ),
        (lambda o: OneCycle(o, eta_max=1, end=4, pct_start=1.5), "pct_start is 1.5: expected `float` <= 1.0"),
        (lambda o: ReduceOnPlateau(o, patience=-1), "patience is -1: expected `int` >= 0"),
        (lambda o: ReduceOnPlateau(o, mode=cast("Any", "foo")), "mode is 'foo': there are min, max"),
        (lambda o: compat.ReduceOnPlateauLR(o, cooldown=-1), "cooldown is -1: expected `int` >= 0"),
        (Linear, "linear needs an end"),
        (lambda o: Linear(o, end=1), "a warm-up of one step"),
        (Polynomial, "polynomial needs an end"),
        (
            lambda o: WarmupStableDecay(o, warmup=5, decay=6, end=10),
            "warm-up and decay take 5 \\+ 6 steps, and there are 10",
        ),
        (lambda o: OneCycle(o, eta_max=(1.0,), end=10), "there are 1 maxima for 2 groups"),
        (lambda o: CosineRestarts(o, periods=(1, 2), weights=(1.0,)), "2 periods and 1 weights"),
        (lambda o: Step(o, step_size=2, convert_to_iter_based=True), "needs epoch_length"),
        (lambda o: Step(o, step_size=2, last_step=-2), "last_step is -2: expected `int` >= -1"),
        (lambda o: compat.StepLR(o, 2, last_step=-2), "the step to go on after is"),
        (lambda _: Step(cast("Optimizer", nn.Linear(1, 1)), step_size=2), "and this is a Linear"),
        (lambda o: ReduceOnPlateau(o, factor=1.0), "factor is 1.0: expected `float` < 1.0"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[Optimizer], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(sgd())


def test_numbers_of_numpy_and_torch_are_arguments_too() -> None:
    found = trace(
        sgd(), lambda o: Cosine(o, end=cast("float", np.int64(6)), period=np.float64(4), eta_min=np.float64(0.01)), 8
    )
    assert_close(found, trace(sgd(), lambda o: Cosine(o, end=6, period=4, eta_min=0.01), 8))
    with pytest.raises(ValueError, match=r"period is 0\.0: expected `float` > 0\.0"):
        Cosine(sgd(), period=cast("float", torch.tensor(0.0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "Linear"}, "schedule Cosine of 'lr': it is of a Linear of 'lr'"),
        ({"param": "momentum"}, "schedule Cosine of 'lr': it is of a Cosine of 'momentum'"),
        ({"last_epoch": "3"}, r"expected `int`, got `str` - at `\$.last_epoch`"),
        ({"last_epoch": -7}, r"expected `int` >= -1 - at `\$.last_epoch`"),
        ({"order": "x"}, r"got `str` - at `\$.order`"),
        ({"outside": None}, r"got `null` - at `\$.outside`"),
        ({"outside": ["x"]}, r"expected `float`, got `str` - at `\$.outside\[0\]`"),
    ],
)
def test_a_state_that_is_refused_changes_nothing(wrong: dict[str, object], message: str) -> None:
    other = Cosine(sgd(), period=5)
    other.step()
    schedule = Cosine(sgd(), period=5)
    before = schedule.state_dict(), values(schedule.optimizer)
    with pytest.raises(StateError, match=message):
        schedule.load_state_dict(other.state_dict() | wrong)
    assert (schedule.state_dict(), values(schedule.optimizer)) == before


@pytest.mark.parametrize("wrong", [{"scales": ["x"]}, {"best": "x"}, {"cooldown_counter": -1}, {"epochs": None}])
def test_a_plateaus_state_that_is_refused_changes_nothing(wrong: dict[str, object]) -> None:
    other, plateau = compat.ReduceOnPlateauLR(sgd(), patience=0), compat.ReduceOnPlateauLR(sgd(), patience=0)
    for _ in range(3):
        other.step(1.0)
    before = plateau.state_dict(), values(plateau.optimizer)
    with pytest.raises(StateError, match="not of a schedule ReduceOnPlateau of 'lr'"):
        plateau.load_state_dict(other.state_dict() | wrong)
    assert (plateau.state_dict(), values(plateau.optimizer)) == before


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (lambda o: Exponential(o, gamma=2.0), 1023),
        (lambda o: Step(o, step_size=2, gamma=2.0), 2047),
        (lambda o: MultiStep(o, milestones=(1, 2, 3), gamma=1e150), 2),
    ],
)
def test_a_factor_that_no_number_holds_is_told(make: Callable[[Optimizer], Schedule], last: int) -> None:
    schedule = make(sgd())
    schedule.step(last)
    with pytest.raises(TrainingError, match=r"gamma .* to the power of .* is more than a number can hold"):
        schedule.step()


def test_the_state_of_something_else_is_refused() -> None:
    with pytest.raises(StateError, match="the state is not of a schedule Exponential of 'lr': missing required field"):
        Exponential(sgd(), gamma=0.9).load_state_dict({})
    with pytest.raises(StateError, match="not of a schedule ReduceOnPlateau"):
        ReduceOnPlateau(sgd()).load_state_dict(Cosine(sgd(), period=5).state_dict())
    optimizer = sgd(0.1)
    schedule = OneCycle(optimizer, eta_max=(0.3,), end=10)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="the optimizer has more groups"):
        schedule.step()

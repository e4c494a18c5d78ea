"""Schedules equal those of torch, step for step."""

import warnings
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import Optimizer, lr_scheduler

from tests.schedule.runs import adam, assert_close, sgd, trace
from treenail.adapters import schedule

Mode = Literal["min", "max"]
ThresholdMode = Literal["rel", "abs"]
MODES: tuple[Mode, ...] = ("min", "max")
THRESHOLD_MODES: tuple[ThresholdMode, ...] = ("rel", "abs")

few = settings(deadline=None, max_examples=20)
unit = st.floats(0.01, 1.0)
total = st.integers(2, 20)
extra = st.integers(0, 8)


@pytest.fixture(autouse=True)
def _nobody_steps_the_optimizers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@few
@given(unit, total, extra)
def test_constant(factor: float, steps: int, more: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Constant(o, factor=factor, end=steps + 1), steps + more)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.ConstantLR(o, factor, steps), steps + more))


@few
@given(unit, unit, total, extra)
def test_linear(start: float, end: float, steps: int, more: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Linear(o, start_factor=start, end_factor=end, end=steps + 1), steps + more)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.LinearLR(o, start, end, steps), steps + more))


@few
@given(st.integers(1, 20), st.floats(0, 0.02), st.integers(1, 50))
def test_cosine_through_its_bottom_and_up_again(period: int, eta_min: float, steps: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Cosine(o, period=period, eta_min=eta_min), steps)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.CosineAnnealingLR(o, period, eta_min), steps))


@few
@given(st.floats(0.1, 1.1), st.integers(1, 40))
def test_exponential(gamma: float, steps: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Exponential(o, gamma=gamma), steps)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.ExponentialLR(o, gamma), steps))


@few
@given(st.integers(1, 7), unit, st.integers(1, 40))
def test_step(size: int, gamma: float, steps: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Step(o, step_size=size, gamma=gamma), steps)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.StepLR(o, size, gamma), steps))


@few
@given(st.lists(st.integers(1, 30), max_size=5), unit, st.integers(1, 40))
def test_multi_step_with_milestones_that_come_twice(milestones: list[int], gamma: float, steps: int) -> None:
    ours = trace(sgd(), lambda o: schedule.MultiStep(o, milestones=tuple(milestones), gamma=gamma), steps)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma), steps))


@few
@given(st.floats(0.3, 3.0), total, extra)
def test_polynomial(power: float, steps: int, more: int) -> None:
    ours = trace(sgd(), lambda o: schedule.Polynomial(o, power=power, end=steps + 1), steps + more)
    assert_close(ours, trace(sgd(), lambda o: lr_scheduler.PolynomialLR(o, steps, power), steps + more))


@few
@given(st.integers(3, 20), st.integers(1, 4))
def test_cosine_restarts(period: int, times: int) -> None:
    ours = trace(sgd(), lambda o: schedule.CosineRestarts(o, periods=(period,) * times), period * times - 1)
    theirs = trace(sgd(), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period), period * times - 1)
    assert_close(ours, theirs)


@few
@given(
    st.integers(10, 40),
    st.floats(0.15, 0.5),
    st.sampled_from(["cos", "linear"]),
    st.floats(2, 30),
    st.floats(2, 1e4),
    st.booleans(),
)
def test_one_cycle_of_learning_rate_and_momentum(
    steps: int, pct: float, strategy: schedule.Annealing, div: float, final: float, three: bool
) -> None:
    def ours(optimizer: Optimizer) -> list[schedule.Schedule]:
        return [
            schedule.OneCycle(
                optimizer,
                eta_max=(0.3, 0.6),
                total_steps=steps,
                pct_start=pct,
                anneal_strategy=strategy,
                div_factor=div,
                final_div_factor=final,
                three_phase=three,
            ),
            schedule.OneCycle(
                optimizer,
                param="momentum",
                eta_max=0.85,
                total_steps=steps,
                pct_start=pct,
                anneal_strategy=strategy,
                div_factor=0.85 / 0.95,
                final_div_factor=1,
                three_phase=three,
            ),
        ]

    def theirs(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            [0.3, 0.6],
            steps,
            pct_start=pct,
            anneal_strategy=strategy,
            div_factor=div,
            final_div_factor=final,
            three_phase=three,
        )

    for make in (sgd, adam):
        for param in ("lr", "momentum"):
            assert_close(trace(make(), ours, steps - 1, param), trace(make(), theirs, steps - 1, param))


def test_a_one_cycle_stays_where_it_ended_and_has_no_phase_without_length() -> None:
    # torch divides by zero at the first step of the first, and raises at a step after the cycle of both.
    found = trace(sgd(), lambda o: schedule.OneCycle(o, eta_max=0.3, total_steps=10, pct_start=0.1), 15)
    assert found[0] == [0.3, 0.3]
    assert found[9] == found[15] == [pytest.approx(0.3 / 25 / 1e4)] * 2


@few
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(MODES),
    st.sampled_from(THRESHOLD_MODES),
    st.sampled_from([0.0, 1e-3]),
)
def test_reduce_on_plateau(
    metrics: list[float], patience: int, cooldown: int, mode: Mode, kind: ThresholdMode, low: float
) -> None:
    ours, theirs = sgd(), sgd()
    mine = schedule.ReduceOnPlateau(
        ours, mode=mode, patience=patience, cooldown=cooldown, threshold_mode=kind, minimum=low
    )
    torchs = lr_scheduler.ReduceLROnPlateau(
        theirs, mode, 0.1, patience, cooldown=cooldown, threshold_mode=kind, min_lr=low
    )
    for metric in metrics:
        mine.step(metric)
        torchs.step(metric)
        assert mine.get_last_lr() == pytest.approx(torchs.get_last_lr(), rel=1e-12, abs=1e-18)
        assert (mine.best, mine.num_bad_epochs, mine.last_epoch) == (
            torchs.best,
            torchs.num_bad_epochs,
            torchs.last_epoch,
        )


def test_torchs_sequential_and_chained_schedulers_take_ours() -> None:
    def sequential(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        parts = [schedule.Linear(optimizer, start_factor=0.1, end=5), schedule.Cosine(optimizer, period=10)]
        return lr_scheduler.SequentialLR(optimizer, [*parts], [5])

    def by_bounds(optimizer: Optimizer) -> list[schedule.Schedule]:
        return [schedule.Linear(optimizer, start_factor=0.1, end=5), schedule.Cosine(optimizer, period=10, begin=5)]

    assert_close(trace(sgd(), sequential, 12), trace(sgd(), by_bounds, 12))

    def chained(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.ChainedScheduler(
            [schedule.Linear(optimizer, start_factor=0.1, end=6), schedule.Exponential(optimizer, gamma=0.9)]
        )

    def also(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 5), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        )

    assert_close(trace(sgd(), chained, 12), trace(sgd(), also, 12))

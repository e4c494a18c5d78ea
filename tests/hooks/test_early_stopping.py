"""Trainings that stop when they no longer improve."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hooks.small_runs import listening, reason_of, small_run
from treenail.adapters.comm import run_threads
from treenail.adapters.hooks.early_stopping import EarlyStoppingHook
from treenail.adapters.runtime import train
from treenail.kernel import Communicator, Engine, StateError, TrainingError, spec


def stopped_at(hook: EarlyStoppingHook, values: list[float]) -> tuple[int, str] | None:
    """Return after which validation a hook asks for a stop, and why."""
    engine = Engine()
    for count, value in enumerate(values, start=1):
        hook.after_val_epoch(engine, {"val/m": value})
        if engine.stop_reason is not None:
            return count, engine.stop_reason
    return None


@pytest.mark.parametrize(
    ("mode", "values", "count"),
    [
        ("min", [3, 2, 1, 1, 1], 5),
        ("min", [3, 2, 2.5, 1, 0.5], None),
        ("max", [3, 2, 1], 3),
        ("max", [1, 2, 3, 4], None),
        ("max", [nan, nan, 3], 1),
        ("min", [1, inf], 2),
    ],
)
def test_it_stops_at_so_many_validations_without_improvement(
    mode: Literal["min", "max"], values: list[float], count: int | None
) -> None:
    found = stopped_at(EarlyStoppingHook("val/m", mode, patience=2), values)
    assert (found[0] if found else None) == count


def test_a_value_that_is_better_by_no_more_than_the_delta_is_no_improvement() -> None:
    values = [1.0, 0.95, 0.92, 0.89]
    assert stopped_at(EarlyStoppingHook("val/m", "min", patience=2, min_delta=0.1), values) == (
        3,
        "early stopping: val/m has not improved in 2 validations (best 1)",
    )
    assert stopped_at(EarlyStoppingHook("val/m", "min", patience=3, min_delta=0.1), values) is None


def test_thresholds_stop_at_once() -> None:
    good = EarlyStoppingHook("val/m", "max", patience=9, stopping_threshold=0.9)
    assert stopped_at(good, [0.5, 0.9]) == (2, "early stopping: val/m 0.9 has reached 0.9")
    bad = EarlyStoppingHook("val/m", "max", patience=9, divergence_threshold=0.1)
    assert stopped_at(bad, [0.1, 0.05]) == (2, "early stopping: val/m 0.05 is worse than 0.1")


def test_a_value_that_is_not_finite_is_no_improvement_where_it_is_not_looked_for() -> None:
    hook = EarlyStoppingHook("val/m", "min", patience=2, check_finite=False)
    assert stopped_at(hook, [nan, nan]) == (
        2,
        "early stopping: val/m has not improved in 2 validations (never finite)",
    )
    assert stopped_at(EarlyStoppingHook("val/m", "min", patience=2, check_finite=False), [-inf, 1, 0.5]) is None


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-5, 5), max_size=12), cut=st.integers(0, 12), patience=st.integers(1, 4))
def test_a_resumed_hook_stops_where_an_undisturbed_one_does(values: list[float], cut: int, patience: int) -> None:
    whole = EarlyStoppingHook("val/m", "min", patience, min_delta=0.25)
    found = stopped_at(whole, values)
    first = EarlyStoppingHook("val/m", "min", patience, min_delta=0.25)
    before = stopped_at(first, values[:cut])
    if before is None:
        second = EarlyStoppingHook("val/m", "min", patience, min_delta=0.25)
        second.load_state_dict(first.state_dict())
        after = stopped_at(second, values[cut:])
        before = None if after is None else (after[0] + len(values[:cut]), after[1])
    assert before == found


def test_a_run_is_stopped_saved_and_says_why_and_a_resume_says_so_again(tmp_path: Path) -> None:
    said = listening()
    hook = spec(EarlyStoppingHook)("val/loss", "min", patience=2, min_delta=100.0, terminal=said.terminal)
    summary = train(small_run(9, early=hook), tmp_path)
    reason = "early stopping: val/loss has not improved in 2 validations"
    assert (summary.stop_reason or "").startswith(reason)
    assert (summary.step, summary.epoch) == (12, 3)
    assert reason_of(tmp_path).startswith(reason)

    again = train(small_run(9, early=hook), tmp_path, resume="latest")
    assert again.step == 12, "it was trained further"
    assert (again.stop_reason or "").endswith("(already before this resume)")
    assert "stopped early before this resume, and again" in said.text

    patient = spec(EarlyStoppingHook)("val/loss", "min", patience=4, min_delta=100.0, terminal=said.terminal)
    on = train(small_run(9, early=patient), tmp_path, resume="latest", allow_changes=True)
    assert on.epoch == 5, "two more validations were accepted"
    assert "goes on with other settings" in said.text


def test_ranks_that_were_stopped_agree_before_the_first_step_after_a_resume() -> None:
    first = EarlyStoppingHook("val/m", "min", patience=1)
    assert stopped_at(first, [1, 2]) is not None
    again = EarlyStoppingHook("val/m", "min", patience=1, terminal=listening().terminal)
    again.load_state_dict(first.state_dict())
    engine = Engine(agree=lambda reason: reason)  # as of several ranks, which ask each other at commits
    again.before_train(engine)
    assert engine.stop_reason is not None


def test_one_rank_tells_of_a_stop_before_a_resume() -> None:
    first = EarlyStoppingHook("val/m", "min", patience=1)
    assert stopped_at(first, [1, 2]) is not None

    def resumed(ranks: Communicator) -> str:
        said = listening()
        again = EarlyStoppingHook("val/m", "min", patience=1, communicator=ranks, terminal=said.terminal)
        again.load_state_dict(first.state_dict())
        again.before_train(Engine(agree=lambda reason: reason))
        return said.text

    told, silent = run_threads(2, resumed)
    assert "stopped early before this resume, and again" in told
    assert not silent


def test_it_may_join_a_run_that_is_resumed(tmp_path: Path) -> None:
    train(small_run(1), tmp_path)
    hook = spec(EarlyStoppingHook)("val/loss", "min", patience=1, min_delta=100.0)
    summary = train(small_run(9, early=hook), tmp_path, resume="latest")
    assert summary.epoch == 3, "the first validation is one without a better one before it"


def test_a_metric_that_there_is_not_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"'val/los'.*did you mean 'val/loss'"):
        EarlyStoppingHook("val/los", "min").after_val_epoch(Engine(), {"val/loss": 1.0})


def test_what_cannot_be_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"patience": 0}, {"min_delta": -1.0}, {"min_delta": nan}, {"mode": "best"}]
    wrong += [{"stopping_threshold": nan}, {"divergence_threshold": nan}]
    for arguments in wrong:
        with pytest.raises(ValueError):
            EarlyStoppingHook(**{"metric": "val/m", "mode": "min", **arguments})
    hook = EarlyStoppingHook("val/m", "min")
    hook.load_state_dict({**hook.state_dict(), "metric": "val/mistaken"})  # of which nothing was seen
    assert stopped_at(hook, [1.0]) is None
    with pytest.raises(StateError, match="looked at 'val/other'"):
        hook.load_state_dict({**hook.state_dict(), "metric": "val/other"})
    with pytest.raises(StateError, match="no state of early stopping"):
        hook.load_state_dict({**hook.state_dict(), "waited": None})

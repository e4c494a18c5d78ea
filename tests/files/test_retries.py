"""Requests that failed are made again, later each time, and not for ever."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files.http.retries import PassingError, RetryPolicy, Tries, asked_wait, retried
from treenail.kernel import FileError, FileMissingError


def busy(wait: float | None = None) -> PassingError:
    return PassingError("the server is busy", where="http://host/file", wait=wait)


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def tries(self, policy: RetryPolicy) -> Tries:
        return Tries(policy, "read", sleep=self.sleep, clock=lambda: self.now)


@given(st.integers(1, 200), st.floats(0, 10), st.floats(0, 100))
@settings(deadline=None)
def test_a_wait_is_between_nothing_and_a_doubling_bound(retry: int, first: float, longest: float) -> None:
    wait = RetryPolicy(backoff=first, longest_wait=longest).wait_before(retry)
    assert 0 <= wait <= min(longest, first * 2.0 ** (retry - 1))


def test_waits_are_jittered_over_the_whole_bound() -> None:
    policy = RetryPolicy(backoff=1.0)
    waits = [policy.wait_before(3) for _ in range(400)]
    assert min(waits) < 1.0 < 3.0 < max(waits) <= 4.0


def test_the_global_generator_is_left_alone() -> None:
    state = random.getstate()
    RetryPolicy().wait_before(3)
    assert random.getstate() == state


def test_what_the_server_asks_for_is_waited(capsys: pytest.CaptureFixture[str]) -> None:
    time = Time()
    time.tries(RetryPolicy()).failed(busy(wait=42.0))
    assert time.waits == [42.0]
    logged = capsys.readouterr().err
    assert "trying again" in logged
    assert "the server is busy" in logged


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    time = Time()
    with pytest.raises(FileError, match=r"asks for 100000 s more"):
        time.tries(RetryPolicy(patience=300)).failed(busy(wait=100_000.0))
    assert time.waits == []


@given(st.integers(0, 8))
@settings(deadline=None, max_examples=9)
def test_there_are_as_many_retries_as_were_granted(retries: int) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise busy()

    with pytest.raises(FileError, match=rf"cannot read: the server is busy; failed {retries + 1} times") as caught:
        retried(RetryPolicy(retries=retries, backoff=0.0), "read", fail)
    assert len(calls) == retries + 1
    assert isinstance(caught.value.__cause__, PassingError)
    assert not isinstance(caught.value, PassingError), "who calls would try again, too"


@given(st.lists(st.floats(0, 50), min_size=1, max_size=200))
@settings(deadline=None)
def test_no_sequence_of_waits_outlasts_the_patience(asked: list[float]) -> None:
    time = Time()
    tries = time.tries(RetryPolicy(retries=10**6, patience=100.0))
    try:
        for wait in asked:
            tries.failed(busy(wait=wait))
    except FileError:
        pass
    assert time.now <= 100.0


def test_progress_begins_the_count_anew() -> None:
    tries = Time().tries(RetryPolicy(retries=1))
    for _ in range(5):
        tries.failed(busy())
        tries.progressed()
    tries.failed(busy())
    with pytest.raises(FileError):
        tries.failed(busy())


def test_other_failures_are_not_tried_again() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise FileMissingError("there is no such file")

    with pytest.raises(FileMissingError):
        retried(RetryPolicy(), "read", fail)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "policy", [RetryPolicy(retries=-1), RetryPolicy(backoff=-0.1), RetryPolicy(patience=float("nan"))]
)
def test_an_impossible_policy_is_refused(policy: RetryPolicy) -> None:
    with pytest.raises(FileError, match="of at least 0"):
        policy.check()


@pytest.mark.parametrize(
    ("header", "wait"), [(None, None), ("7", 7.0), (" 0 ", 0.0), ("soon", None), ("-3", None), ("1e9", None)]
)
def test_retry_after_is_seconds(header: str | None, wait: float | None) -> None:
    assert asked_wait(header) == wait


@pytest.mark.parametrize(("ahead", "low", "high"), [(3600, 3500, 3600), (-3600, 0, 0)])
def test_retry_after_is_a_date(ahead: int, low: float, high: float) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    wait = asked_wait(date)
    assert wait is not None
    assert low <= wait <= high

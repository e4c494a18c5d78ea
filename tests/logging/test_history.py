"""A history's statistics: the seed's examples as they stand, and every window equal to the direct computation."""

from __future__ import annotations

import copy
import math
import pickle
import re
import threading
from contextvars import copy_context
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.logging.compat import ConflictError, HistoryBuffer, KindError, UnknownNameError
from treenail.adapters.logging.compat.windows import Entries, Extremes, Mean, Windows
from treenail.kernel import StateError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.one_of(st.integers(-(2**62), 2**62) | st.just(2**70), st.floats())


def shown(buffer: HistoryBuffer) -> str:
    values, counts = buffer.data
    return f"{values} {counts}"


def test_histories_begin_as_in_the_guide() -> None:
    assert shown(HistoryBuffer()) == "[] []"
    assert shown(HistoryBuffer([1, 2, 3], [1, 2, 3])) == "[1 2 3] [1 2 3]"
    message = "The length of history buffer(3) exceeds the max_length(2), the first few elements will be ignored."
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        buffer = HistoryBuffer([1, 2, 3], [1, 2, 3], max_length=2)
    assert shown(buffer) == "[2 3] [2 3]"


def test_updates_add_to_the_end_as_in_the_guide() -> None:
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    buffer.update(4)
    assert shown(buffer) == "[1 2 3 4] [1 1 1 1]"
    buffer.update(5, 2)
    assert shown(buffer) == "[1 2 3 4 5] [1 1 1 1 2]"


def test_statistics_are_those_of_the_guide() -> None:
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    assert (buffer.min(2), buffer.min()) == (2, 1)
    assert (buffer.max(2), buffer.max()) == (3, 3)
    assert (buffer.mean(2), buffer.mean()) == (2.5, 2)
    assert HistoryBuffer([1, 2, 3], [2, 2, 2]).mean() == 1  # by the sum of the counts, not weighted by them
    buffer.update(4, 1)
    assert buffer.current() == 4


def test_statistics_go_by_their_names_as_in_the_guide() -> None:
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    assert buffer.statistics("mean") == 2
    assert buffer.statistics("mean", 2) == 2.5
    with pytest.raises(TypeError):
        buffer.statistics("mean", 2, 3)
    with pytest.raises(KeyError, match="no statistic is called 'data'; there are mean, max, min, current") as caught:
        buffer.statistics("data")
    assert isinstance(caught.value, UnknownNameError)


def test_the_example_of_the_guide_prints_its_numbers() -> None:
    logs = {"lr": HistoryBuffer(), "loss": HistoryBuffer()}
    found: list[float] = []
    for step in range(1, 11):
        logs["lr"].update(step / 10 * 0.1, 1)
        logs["loss"].update(1 / step, 1)
        if step % 5 == 0:
            found += logs["lr"].statistics("current"), logs["loss"].statistics("mean", 5)
    # In float64, 1 + 1/2 + … + 1/5, over 5, is 0.45666666666666667 in every order; the guide shows the float after it.
    assert found == [0.05, pytest.approx(0.4566666666666667, rel=2e-16), 0.1, 0.12912698412698415]


def test_a_registered_statistic_is_called_by_its_name() -> None:
    def register() -> None:
        @HistoryBuffer.register_statistics
        def weighted_mean(self: HistoryBuffer, window_size: int, weight: list[float]) -> float:
            assert len(weight) == window_size
            # The guide divides by the counts themselves, which gives [4., 4.]; it says that 2 is meant.
            total = (self._log_history[-window_size:] * np.array(weight)).sum()
            return float(total / self._count_history[-window_size:].sum())

        buffer = HistoryBuffer([1, 2], [1, 1])
        assert buffer.statistics("weighted_mean", 2, [2, 1]) == 2  # (2 * 1 + 1 * 2) / (1 + 1)
        assert pickle.loads(pickle.dumps(buffer)).statistics("weighted_mean", 2, [2, 1]) == 2
        with pytest.raises(ConflictError, match="'weighted_mean' is already registered"):
            HistoryBuffer.register_statistics(weighted_mean)

    copy_context().run(register)
    with pytest.raises(UnknownNameError):  # it stays in its context
        HistoryBuffer([1], [1]).statistics("weighted_mean", 1, [1])


def test_a_built_in_statistic_cannot_be_replaced() -> None:
    def mean(self: HistoryBuffer) -> float:
        return 0.0

    with pytest.raises(AssertionError, match="'mean' is already registered"):
        HistoryBuffer.register_statistics(mean)


def test_what_a_thread_registers_is_its_own() -> None:
    def register() -> None:
        @HistoryBuffer.register_statistics
        def of_a_thread(self: HistoryBuffer) -> float:
            return 0.0

    thread = threading.Thread(target=register)
    thread.start()
    thread.join()
    with pytest.raises(UnknownNameError):
        HistoryBuffer([1], [1]).statistics("of_a_thread")


def direct_mean(values: list[float], counts: list[float]) -> float:
    odd = {str(value) for value in values if not math.isfinite(value)}
    if odd:
        return float(odd.pop()) if len(odd) == 1 else math.nan
    total, count = (sum(map(Fraction, each), Fraction()) for each in (values, counts))
    if not count:
        return math.nan
    try:
        return float(total) / float(count)
    except OverflowError:
        return math.inf if total > 0 else -math.inf  # as a float the sum would overflow here, too


def same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(ANY, st.integers(0, 5) | st.floats(0, 5)), max_size=60),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 25)), max_size=120),
)
def test_every_window_that_is_followed_equals_the_direct_computation(
    entries: list[tuple[float, float]], max_length: int, asked: list[tuple[int, int]]
) -> None:
    """Windows of any size, asked for at any time, of values of any size, NaN and infinities among them."""
    held = Entries(max_length)
    means, extremes = Windows(Mean), Windows(Extremes)
    questions: dict[int, list[int]] = {}
    for after, size in asked:
        questions.setdefault(after, []).append(size)
    floats = False
    for number, (value, count) in enumerate(entries):
        if held.append(value, count):
            means.clear()
            extremes.clear()
        floats = floats or not (isinstance(value, int) and abs(value) <= 2**62)
        kept = entries[max(number + 1 - max_length, 0) : number + 1]
        for size in [*questions.get(number, ()), max_length]:
            # Integers that are stored beside floats are rounded to floats, as numpy does it.
            values = [float(each) if floats else each for each, _ in kept[-size:]]
            counts = [each for _, each in kept[-size:]]
            assert same(means.last(held, size).value(), direct_mean(values, counts))
            nans = any(math.isnan(each) for each in values)
            assert same(extremes.last(held, size).greatest(), math.nan if nans else max(values))
            assert same(extremes.last(held, size).least(), math.nan if nans else min(values))
    assert held.last - held.first == min(len(entries), max_length)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 150), st.lists(st.integers(1, 160), min_size=1, max_size=9))
def test_statistics_of_short_and_long_windows_equal_numpy(seed: int, max_length: int, sizes: list[int]) -> None:
    random = np.random.default_rng(seed)
    values, counts = random.normal(size=200) * 10.0 ** random.integers(-9, 9, size=200), random.integers(1, 9, size=200)
    buffer = HistoryBuffer(max_length=max_length)
    for number in range(200):
        buffer.update(values[number], int(counts[number]))
        for size in sizes:
            window = slice(number + 1 - min(size, max_length, number + 1), number + 1)
            exact = math.fsum(values[window]) / int(counts[window].sum())
            assert buffer.mean(size) == pytest.approx(exact, rel=1e-12, abs=1e-6)
            assert buffer.mean(size) == exact or window.stop - window.start <= 32
            assert buffer.max(size) == values[window].max()
            assert buffer.min(size) == values[window].min()


@pytest.mark.parametrize("size", [3, 40])
def test_nan_shows_as_long_as_it_is_in_the_window(size: int) -> None:
    buffer = HistoryBuffer()
    for value in (1.0, math.nan, *map(float, range(size - 1))):
        buffer.update(value)
    assert all(math.isnan(each(size)) for each in (buffer.mean, buffer.max, buffer.min))
    buffer.update(0.0)
    assert (buffer.mean(size), buffer.max(size), buffer.min(size)) == ((size - 2) * (size - 1) / 2 / size, size - 2, 0)
    assert math.isnan(buffer.mean())


def test_a_mean_over_no_count_is_nan() -> None:
    for size in (1, 40):
        assert math.isnan(HistoryBuffer([1.0] * size, [0] * size).mean())


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=50))
def test_nothing_is_left_of_values_that_went(values: list[float]) -> None:
    held, means = Entries(1000), Windows(Mean)
    for value in [*values, 1e300, -1e-300, 5e-324]:
        held.append(value, 1)
        means.last(held, 1)
        means.last(held, 2)
    held.append(0.1, 1)
    held.append(0.2, 1)
    assert means.last(held, 2).value() == math.fsum([0.1, 0.2]) / 2
    assert means.last(held, 1).value() == 0.2


def test_a_window_that_grows_with_the_epoch_beside_others() -> None:
    buffer = HistoryBuffer()
    for step in range(300):
        value = math.sin(step)
        buffer.update(value)
        done = step % 137 + 1
        window = [math.sin(each) for each in range(step + 1 - done, step + 1)]
        assert buffer.mean(done) == pytest.approx(math.fsum(window) / done)
        assert (buffer.min(done), buffer.max(done)) == (min(window), max(window))
        recent = [math.sin(each) for each in range(max(step - 9, 0), step + 1)]
        assert buffer.mean(10) == pytest.approx(math.fsum(recent) / len(recent))


def test_the_work_of_a_step_does_not_grow_with_the_window() -> None:
    """What is added and removed is counted, not timed: a window of 100,000 values is passed over once, not at each step."""
    work = []

    class Counting(Mean):
        def _push(self, number: int, value: float, count: float) -> None:
            work.append(number)
            super()._push(number, value, count)

        def _drop(self, number: int, value: float, count: float) -> None:
            work.append(number)
            super()._drop(number, value, count)

    entries, window, size = Entries(1_000_000), Counting(), 100_000
    for number in range(size):
        entries.append(number % 7, 1)
    window.move(entries, 0, size)
    assert len(work) == size
    for step in range(1, 5001):
        entries.append(step % 7, 1)
        window.move(entries, step, size + step)
    assert len(work) == size + 2 * 5000
    assert window.value() == sum(entries.values[-size:]) / size


def test_memory_stays_bounded() -> None:
    buffer = HistoryBuffer(max_length=100)
    for step in range(1000):
        buffer.update(step)
        for size in range(40, 60):
            buffer.max(size)
    assert len(buffer._entries.values) <= 150
    assert len(buffer._extremes._by_size) <= 8
    assert shown(buffer) == f"{np.arange(900, 1000)} {np.ones(100, dtype=int)}"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(ANY, st.integers(0, 5)), max_size=30), st.integers(1, 10))
def test_a_state_and_a_pickle_hold_the_whole_history(entries: list[tuple[float, int]], max_length: int) -> None:
    buffer = HistoryBuffer(max_length=max_length)
    for value, count in entries:
        buffer.update(value, count)
    loaded = HistoryBuffer([7], [7])
    loaded.load_state_dict(buffer.state_dict())
    for other in (loaded, pickle.loads(pickle.dumps(buffer)), copy.deepcopy(buffer)):
        assert shown(other) == shown(buffer)
        assert other.max_length == max_length
        other.update(1.0)
        buffer_after = copy.deepcopy(buffer)
        buffer_after.update(1.0)
        assert same(other.mean(), buffer_after.mean())


def test_a_state_is_no_live_view() -> None:
    buffer = HistoryBuffer([1.0], [1])
    state = buffer.state_dict()
    buffer.update(2.0)
    values = state["log_history"]
    assert isinstance(values, torch.Tensor)
    assert values.tolist() == [1.0]


def test_histories_do_not_share_their_defaults() -> None:
    one, other = HistoryBuffer(), HistoryBuffer()
    one.update(1)
    assert len(other) == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "log_history: expected a tensor"),
        (
            {"log_history": torch.ones(2, dtype=torch.float64), "count_history": torch.ones(1, dtype=torch.int64)},
            "2 values and 1 counts",
        ),
        (
            {
                "log_history": torch.ones(2, dtype=torch.int64),
                "count_history": torch.ones(2, dtype=torch.int64),
                "max_length": 1,
            },
            "no history of at most 1",
        ),
    ],
)
def test_another_state_is_refused_by_name(state: dict[str, object], message: str) -> None:
    with pytest.raises(StateError, match=message):
        HistoryBuffer().load_state_dict(state)


def test_mistakes_are_named() -> None:
    with pytest.raises(AssertionError, match="2 values, but 1 counts"):
        HistoryBuffer([1, 2], [1])
    with pytest.raises(ValueError, match="max_length is 0"):
        HistoryBuffer(max_length=0)
    buffer = HistoryBuffer([1], [1])
    with pytest.raises(TypeError, match="log_val is a str, must be a number"):
        buffer.update("1")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(KindError, match="log_val is a Tensor"):
        buffer.update(torch.ones(1))  # type: ignore[arg-type]  # the mistake
    for count in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="count is"):
            buffer.update(1, count)
    with pytest.raises(ValueError, match="window_size is 0"):
        buffer.mean(0)
    with pytest.raises(TypeError, match=r"window_size is 2\.5"):
        buffer.max(2.5)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="the history is empty"):
        HistoryBuffer().current()
    with pytest.raises(ValueError, match="the history is empty"):
        HistoryBuffer().mean()

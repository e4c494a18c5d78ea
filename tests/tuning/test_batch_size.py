"""The largest batch that fits: by doubling and bisection, on a GPU or in a process with a limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parallel.forks import fork_server
from tests.tuning import memory_hungry
from tests.tuning.memory_hungry import Hungry, Normalised, run
from treenail.adapters.runtime import train_two_steps, tune_batch_size
from treenail.adapters.sampling import BucketBatchSampler
from treenail.adapters.tuning import find_batch_size, fits_in_process, fits_on_device
from treenail.kernel import ConfigError, TrainingError, late, spec

MEGABYTE = memory_hungry.MEGABYTE


@settings(deadline=None)
@given(largest=st.integers(0, 5000), first=st.integers(1, 40), most=st.integers(40, 4000))
def test_the_largest_is_found_in_few_tries(largest: int, first: int, most: int) -> None:
    found = find_batch_size(lambda size: size <= largest, first=first, most=most)
    assert found.largest == min(largest, most)
    assert len({size for size, _ in found.tries}) == len(found.tries), "a size was tried twice"
    assert len(found.tries) <= 2 * most.bit_length() + 1
    assert all(fits == (size <= largest) for size, fits in found.tries)
    assert all(1 <= size <= most for size, _ in found.tries)
    power = found.power_of_two
    assert (power == 0) == (found.largest == 0)
    assert power <= found.largest < 2 * power or found.largest == 0


def test_wrong_bounds_are_refused() -> None:
    for first, most in ((0, 4), (5, 4)):
        with pytest.raises(ValueError, match="1 <= first <= most"):
            find_batch_size(lambda _: True, first=first, most=most)
    with pytest.raises(ValueError, match="number of bytes"):
        fits_in_process(memory_hungry.idle, 0)


def test_running_out_of_memory_is_no_error_and_others_are() -> None:
    def attempt(size: int) -> None:
        if size > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert find_batch_size(fits_on_device(attempt), most=64).largest == 12

    def wrong(size: int) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fits_on_device(wrong)(1)


def peak_of(attempt: Callable[[int], None]) -> int:
    """Return how much a new process takes at its peak."""
    context = fork_server()
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=memory_hungry.tell_peak, args=(attempt, sending))
    child.start()
    peak = receiving.recv()
    child.join()
    assert isinstance(peak, int)
    return peak


def test_a_process_is_measured_against_its_limit() -> None:
    fits = fits_in_process(memory_hungry.hold, 1536 * MEGABYTE)  # three times what Python and torch take
    assert fits(10)
    assert not fits(1536)


def test_a_process_that_the_system_killed_or_that_got_no_memory_does_not_fit() -> None:
    assert not fits_in_process(memory_hungry.killed, 2**40, fork_server())(1)
    assert not fits_in_process(memory_hungry.too_much, 2**40, fork_server())(1)


def test_a_try_that_fails_otherwise_says_how() -> None:
    with pytest.raises(TrainingError, match="batches of 3 samples failed: ArithmeticError: 3 of "):
        fits_in_process(memory_hungry.wrong, 2**40, fork_server())(3)
    with pytest.raises(TrainingError, match="exit code 7"):
        fits_in_process(memory_hungry.ended, 2**40, fork_server())(3)


def test_the_largest_batch_of_a_run_on_the_cpu() -> None:
    one = peak_of(memory_hungry.train_one)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = tune_batch_size(run(drop_last=True), memory_limit=one + 96 * MEGABYTE, most=3, context=fork_server())
    assert torch.equal(torch.get_rng_state(), before)
    assert found.tries == ((2, True), (3, False)), "one sample, and one more of 64 MiB"


def test_two_steps_are_trained_with_the_size_that_is_asked_for() -> None:
    train_two_steps(run(spec(Hungry)(20)), 20)
    with pytest.raises(torch.OutOfMemoryError):
        train_two_steps(run(spec(Hungry)(20)), 21)


def test_a_model_that_takes_no_single_sample_is_tuned() -> None:
    attempt, context = memory_hungry.train_normalised, fork_server()
    found = tune_batch_size(run(spec(Normalised)()), memory_limit=2**40, most=2, attempt=attempt, context=context)
    assert found.tries == ((2, True),)
    with pytest.raises(
        TrainingError, match=r"batches of 1 samples failed: .*more than 1 value.*begin with larger ones"
    ):
        tune_batch_size(run(spec(Normalised)()), memory_limit=2**40, first=1, most=4, attempt=attempt, context=context)


def test_a_config_that_cannot_be_tuned_says_why() -> None:
    for first, most in ((2, 0), (2, -2), (0, None)):
        with pytest.raises(ConfigError, match=f"first={first} and most={most}: a batch has at least one sample"):
            tune_batch_size(run(), memory_limit=2**33, first=first, most=most)
    with pytest.raises(ConfigError, match="give a memory limit"):
        tune_batch_size(run())
    with pytest.raises(ConfigError, match="the batch sampler decides"):
        tune_batch_size(
            run(batch_sampler=late(BucketBatchSampler)(lengths=[1] * 48, boundaries=[2])), memory_limit=2**33
        )

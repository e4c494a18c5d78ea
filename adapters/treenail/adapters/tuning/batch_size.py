"""Finds the largest batch that fits into memory: doubling, then bisection."""

from __future__ import annotations

import gc
import multiprocessing
import re
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

import torch

from treenail.kernel import TrainingError

Attempt = Callable[[int], object]
"""Trains with batches of the given number of samples for as long as it takes to know what memory is needed: two steps."""


class BatchSizes(NamedTuple):
    """What was tried, and what came of it.

    Args:
        largest: The largest size that fits; 0 if none does.
        tries: (size, whether it fits), in the order in which they were tried.
    """

    largest: int
    tries: tuple[tuple[int, bool], ...]

    @property
    def power_of_two(self) -> int:
        """The largest power of two that fits; 0 if none does."""
        return 1 << self.largest.bit_length() - 1 if self.largest else 0


def find_batch_size(fits: Callable[[int], bool], *, first: int = 1, most: int) -> BatchSizes:
    """Find the largest size that fits, if every smaller one does, too.

    Sizes are doubled until one does not fit, then the gap is halved; that takes about 2 log2(result) tries.

    Args:
        fits: Whether a size does; `fits_on_device` or `fits_in_process` of an attempt.
        first: The size to begin with.
        most: The largest size that is of interest: the samples of the dataset.

    Raises:
        ValueError: Not 1 <= first <= most.
    """
    if not 1 <= first <= most:
        raise ValueError(f"{first=} and {most=} must be 1 <= first <= most")
    tries: list[tuple[int, bool]] = []

    def tried(size: int) -> bool:
        tries.append((size, fits(size)))
        return tries[-1][1]

    good, bad, size = 0, most + 1, first
    while tried(size):
        good = size
        if good == most:
            return BatchSizes(most, tuple(tries))
        size = min(2 * size, most)
    bad = size
    while bad - good > 1:
        middle = (good + bad) // 2
        if tried(middle):
            good = middle
        else:
            bad = middle
    return BatchSizes(good, tuple(tries))


def fits_on_device(attempt: Attempt) -> Callable[[int], bool]:
    """Return what tells whether an attempt stays within the memory of its GPU.

    The memory is given back after each try. Weights that the attempt changes are its own to care for: let it build its model,
    or use `left_unchanged`.

    Args:
        attempt: Raises `torch.OutOfMemoryError` where a batch does not fit.
    """

    def fits(size: int) -> bool:
        try:
            attempt(size)
        except torch.cuda.OutOfMemoryError:  # torch.OutOfMemoryError, under the name that torch 2.4 has, too
            fitted = False
        else:
            fitted = True
        gc.collect()  # modules and their hooks are circles of references
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return fitted

    return fits


def fits_in_process(attempt: Attempt, limit: int, context: BaseContext | None = None) -> Callable[[int], bool]:
    """Return what tells whether an attempt stays within a limit of the main memory, in a new process for each size.

    This process and its model are not touched, whatever becomes of the other one. A size that needs more than the limit is
    tried all the same, so that the limit should be at most half of what the machine has.

    Args:
        attempt: Can be pickled: a function of a module, or a `functools.partial` of one.
        limit: Bytes that the new process may hold at its peak, Python and torch included.
        context: Of `multiprocessing`, what starts the processes; None: "spawn". What a "forkserver" has imported is imported
            once for all sizes, and counts; a "fork" has all that this process holds, which counts, too.

    Raises:
        ValueError: The limit is not positive.
        TrainingError: (when called) the attempt failed by something else than memory.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}, must be a number of bytes")
    starts = context or multiprocessing.get_context("spawn")

    def fits(size: int) -> bool:
        """Tell whether a process of its own can do it with so many samples."""
        receiving, sending = starts.Pipe(duplex=False)
        process = starts.Process(target=_measure, args=(attempt, size, sending))  # type: ignore[attr-defined]  # of each context
        process.start()
        sending.close()
        try:
            told = receiving.recv()
        except EOFError:  # it died without a word
            told = None
        finally:
            receiving.close()
            process.join()
        if told is None and process.exitcode == -9:
            return False  # the system ended what took the memory of others
        if told is None:
            told = f"the process ended with exit code {process.exitcode}"
        if isinstance(told, str):
            raise TrainingError(
                f"a try with batches of {size} samples failed: {told}",
                mend="if such batches are too small for the model, begin with larger ones (first)",
            )
        return bool(told <= limit)

    return fits


def _measure(attempt: Attempt, size: int, answer: Connection) -> None:
    """Send the peak of this process's memory in bytes, infinite if there was not enough; or what went wrong."""
    try:
        attempt(size)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        answer.send(float("inf"))
    except Exception as error:
        if "can't allocate memory" in str(error):  # as torch's allocator for the CPU says it, in a RuntimeError
            answer.send(float("inf"))
        else:
            answer.send(f"{type(error).__name__}: {error}")
    else:
        answer.send(peak_memory())


def peak_memory() -> int:
    """Return the most main memory in bytes that this process has held at once.

    Raises:
        TrainingError: This system does not tell.
    """
    status = Path("/proc/self/status")
    if status.exists():  # Linux; what getrusage tells there includes the process that this one was forked from
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        raise TrainingError("this system does not tell how much memory a process took") from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

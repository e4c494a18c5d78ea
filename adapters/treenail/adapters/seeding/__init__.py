"""The random number generators of a process: seeding, saving, restoring and shielding them."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Generator

from treenail.adapters.seeding.deterministic import cudnn_benchmark, deterministic_algorithms
from treenail.kernel import StateError, mix

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "RngState",
    "SampleRng",
    "WorkerInit",
    "cudnn_benchmark",
    "deterministic_algorithms",
    "sample_rng",
    "seed_process",
    "seed_sample",
    "shielded_rng",
]


def seed_process(seed: int) -> None:
    """Seed torch (all devices), random, and numpy where it is imported, each from its own hash of `seed`."""
    torch.manual_seed(mix(seed, "torch"))
    random.seed(mix(seed, "random"))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(mix(seed, "numpy") % 2**32)


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed the generators that transforms draw from, by (seed, epoch, index) alone: never by the worker.

    Seeds torch's CPU generator, random, and numpy where it is imported.
    """
    mixed = mix(seed, epoch, index)
    torch.default_generator.manual_seed(mixed)
    random.seed(mixed)
    if numpy := sys.modules.get("numpy"):
        # Both are Mersenne Twisters, and torch's takes the lower 32 bits: from the same ones, numpy would draw the same.
        numpy.random.seed(mixed >> 31)


class SampleRng:
    """Generators of one sample, one for each library a transform may draw from; none is a global one.

    Each is made when it is first asked for, and goes on from there.

    Args:
        seed: Of all three.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @cached_property
    def torch(self) -> Generator:
        """For torch's functions: ``torch.rand(3, generator=rng.torch)``."""
        return Generator().manual_seed(self.seed)

    @cached_property
    def random(self) -> Random:
        """For Python: ``rng.random.uniform(0, 1)``."""
        return Random(self.seed)

    @cached_property
    def numpy(self) -> np.random.Generator:
        """For numpy: ``rng.numpy.normal(size=3)``."""
        import numpy as np

        return np.random.default_rng(self.seed)


def sample_rng(seed: int, epoch: int, index: int) -> SampleRng:
    """Return the generators that transforms of a sample draw from, by (seed, epoch, index) alone.

    Args:
        seed: Seed of the samples' randomness.
        epoch: The epoch, from 0; `treenail.adapters.sampling.SampleIndex` brings it to a dataset in a loader worker.
        index: The sample's index in its dataset.
    """
    return SampleRng(mix(seed, epoch, index))


class WorkerInit:
    """A ``worker_init_fn`` for torch's DataLoader: seeds torch, random and numpy in each loader worker.

    What a worker draws depends on which samples it happens to get; `sample_rng` and `seed_sample` do not have that flaw.

    Args:
        seed: Seed of the run.
        rank: Rank of the process whose workers they are.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self._seed = seed
        self._rank = rank

    def __call__(self, worker: int) -> None:
        """Seed the generators of a worker."""
        seed_process(mix(self._seed, self._rank, worker))


class RngState:
    """The states of all generators of this process, as a stateful part of a run.

    torch's CPU and CUDA generators, random's, and numpy's global one where numpy is imported.
    """

    def state_dict(self) -> dict[str, object]:
        """Return the generators' states."""
        version, words, gauss = random.getstate()
        state: dict[str, object] = {
            "torch": torch.get_rng_state(),
            "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
            "random": [version, list(words), gauss],
        }
        if numpy := sys.modules.get("numpy"):
            name, keys, position, has_gauss, cached = numpy.random.get_state()
            state["numpy"] = [name, [int(key) for key in keys], position, has_gauss, cached]
        return state

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore the generators.

        Raises:
            StateError: The state lacks a generator, or is for another number of CUDA devices.
        """
        cpu, cuda, python = (state_dict.get(name) for name in ("torch", "cuda", "random"))
        if not isinstance(cpu, torch.Tensor) or not isinstance(cuda, list) or not isinstance(python, list):
            raise StateError("the state lacks one of torch, cuda, random", where="rng")
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if cuda and len(cuda) != devices:
            raise StateError(
                f"the state is for {len(cuda)} CUDA devices, here are {devices}",
                where="rng",
                mend="resume on the machine it was saved on",
            )
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        version, words, gauss = python
        random.setstate((version, tuple(words), gauss))
        numbers = state_dict.get("numpy")
        if isinstance(numbers, list):
            import numpy as np

            name, keys, position, has_gauss, cached = numbers
            np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


@contextmanager
def shielded_rng(*, devices: bool = False) -> Iterator[None]:
    """Leave the generators of torch, random and numpy afterwards as they were before.

    Args:
        devices: Those of the CUDA devices, too, which waits for them.
    """
    cuda = torch.cuda.get_rng_state_all() if devices and torch.cuda.is_available() else []
    cpu, python = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        random.setstate(python)
        if numpy and numbers is not None:
            numpy.random.set_state(numbers)

"""The samplers of the benchmark `samplers`, each shuffling, with its own way to resume."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore,attr-defined"

from __future__ import annotations

import json
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from types import ModuleType
from typing import NamedTuple

import torch
from torch.utils.data import DistributedSampler, RandomSampler

from treenail.adapters import sampling

SEED = 3
_HELIOS_ALSO_IMPORTS = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")


class Contestant(NamedTuple):
    """A sampler as the benchmark uses it.

    Args:
        name: What the tables call it.
        start: Makes a sampler of so many samples and begins an epoch.
        resume: Makes a sampler of so many samples and begins at a position of the epoch.
        state: What has to be kept to resume at a position, None where there is nothing to keep it in.
        slow: So slow that only some of the indices are drawn.
    """

    name: str
    start: Callable[[int], Iterator[int]]
    resume: Callable[[int, int], Iterator[int]]
    state: Callable[[int, int], object] = lambda _size, _position: None
    slow: bool = False

    def state_size(self, size: int, position: int) -> int | None:
        """Return the bytes of its state: as JSON where that can hold it, else pickled."""
        state = self.state(size, position)
        if state is None:
            return None
        try:
            return len(json.dumps(state))
        except TypeError:
            return len(pickle.dumps(state))


def torch_random() -> Contestant:
    """The reference: torch's RandomSampler, which can be resumed only by drawing again what was drawn."""

    def start(size: int) -> Iterator[int]:
        return iter(RandomSampler(range(size), generator=torch.Generator().manual_seed(SEED)))

    return Contestant("torch RandomSampler", start, partial(_replay, start))


def contestants() -> list[Contestant]:
    """Everybody but the reference."""
    return [torch_distributed(), helios(), *torchdata(), mmengine(), *grain(), treenail("torch"), treenail("hashed")]


def torch_distributed() -> Contestant:
    def start(size: int) -> Iterator[int]:
        return iter(DistributedSampler(range(size), 1, 0, seed=SEED))  # type: ignore[arg-type]  # needs no more than len

    return Contestant("torch DistributedSampler", start, partial(_replay, start))


def helios() -> Contestant:
    # helios-ml imports torchvision for its transforms, which no sampler uses: empty modules take its place meanwhile.
    stand_ins = {name: ModuleType(name) for name in _HELIOS_ALSO_IMPORTS if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        from helios.data.samplers import ResumableRandomSampler
    finally:
        for name in stand_ins:
            del sys.modules[name]

    def resume(size: int, position: int) -> Iterator[int]:
        sampler = ResumableRandomSampler(range(size), seed=SEED)
        sampler.start_iter = position
        return iter(sampler)

    def state(_size: int, position: int) -> object:
        return {"epoch": 0, "start_iter": position}

    return Contestant("helios ResumableRandomSampler", lambda size: resume(size, 0), resume, state)


def torchdata() -> list[Contestant]:
    from torchdata.stateful_dataloader.sampler import RandomSampler as Random
    from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

    def start(size: int) -> Iterator[int]:
        return iter(Random(range(size), generator=torch.Generator().manual_seed(SEED)))

    def state(_size: int, position: int) -> dict[str, object]:
        return {"yielded": position, "generator": torch.Generator().manual_seed(SEED).get_state()}

    def resume(size: int, position: int) -> Iterator[int]:
        # Its loader makes an iterator, and loads the state into it.
        sampler = Random(range(size), generator=torch.Generator())
        iterator: Iterator[int] = iter(sampler)
        iterator.load_state_dict(state(size, position))
        return iterator

    def start_distributed(size: int) -> Iterator[int]:
        return iter(StatefulDistributedSampler(range(size), 1, 0, seed=SEED))

    def state_distributed(_size: int, position: int) -> dict[str, object]:
        return {"yielded": position}

    def resume_distributed(size: int, position: int) -> Iterator[int]:
        sampler = StatefulDistributedSampler(range(size), 1, 0, seed=SEED)
        sampler.load_state_dict(state_distributed(size, position))
        return iter(sampler)

    return [
        Contestant("torchdata RandomSampler", start, resume, state),
        Contestant("torchdata StatefulDistributedSampler", start_distributed, resume_distributed, state_distributed),
    ]


def mmengine() -> Contestant:
    from mmengine.dataset import DefaultSampler

    def start(size: int) -> Iterator[int]:
        return iter(DefaultSampler(range(size), seed=SEED))

    return Contestant("mmengine DefaultSampler", start, partial(_replay, start))


def grain() -> list[Contestant]:
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns that jax is not there
    from grain.experimental import index_shuffle
    from grain.python import IndexSampler

    def shuffled(size: int, position: int) -> Iterator[int]:
        for index in range(position, size):
            yield index_shuffle(index, max_index=size - 1, seed=SEED, rounds=4)

    def sampled(size: int, position: int) -> Iterator[int]:
        sampler = IndexSampler(size, shuffle=True, num_epochs=1, seed=SEED)
        for index in range(position, size):
            yield sampler[index].record_key

    return [
        Contestant("grain index_shuffle", lambda size: shuffled(size, 0), shuffled, _position, slow=True),
        Contestant("grain IndexSampler", lambda size: sampled(size, 0), sampled, _position, slow=True),
    ]


def treenail(shuffle: sampling.Shuffle) -> Contestant:
    def state(size: int, position: int) -> dict[str, object]:
        sampler = sampling.RandomSampler(size, SEED, shuffle=shuffle)
        sampler.advance(position)
        return sampler.state_dict()

    def start(size: int) -> Iterator[int]:
        return iter(sampling.RandomSampler(size, SEED, shuffle=shuffle))

    def resume(size: int, position: int) -> Iterator[int]:
        sampler = sampling.RandomSampler(size, SEED, shuffle=shuffle)
        sampler.load_state_dict(state(size, position))
        return iter(sampler)

    return Contestant("treenail" if shuffle == "hashed" else 'treenail shuffle="torch"', start, resume, state)


def check(every: list[Contestant], size: int = 1000) -> None:
    """Make sure that everybody does the work: gives each index once, and goes on after a resume as it would have.

    Raises:
        AssertionError: Somebody does not.
    """
    for each in every:
        order = list(each.start(size))
        assert sorted(order) == list(range(size)), each.name
        assert order != sorted(order), each.name
        assert list(each.resume(size, size * 9 // 10)) == order[size * 9 // 10 :], each.name
    orders = {each.name: list(each.start(size)) for each in every}
    assert orders['treenail shuffle="torch"'] == orders["torch DistributedSampler"]


def _replay(start: Callable[[int], Iterator[int]], size: int, position: int) -> Iterator[int]:
    return islice(start(size), position, None)


def _position(_size: int, position: int) -> object:
    return position

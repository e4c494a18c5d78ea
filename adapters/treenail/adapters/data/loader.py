"""Batches that resume exactly: what counts is what was consumed, not what workers prefetched."""

from __future__ import annotations

import atexit
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import count, islice, repeat
from traceback import walk_tb
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from treenail.adapters.data.failures import DataError, FailedBatch, WatchedWorkers
from treenail.adapters.data.indexed import Indexed
from treenail.adapters.data.overlap import copied_ahead
from treenail.adapters.files import Mounts, current_mounts, use_mounts
from treenail.adapters.sampling import SampleIndex, Shard
from treenail.adapters.seeding import seed_sample, shielded_rng
from treenail.contracts import BatchSampler, Dataset, SamplerShard
from treenail.kernel import Sampler, StateError, mix

T = TypeVar("T")


class Loader:
    """torch's DataLoader over a sampler: a `BatchSource`.

    Every sample is drawn under generators seeded by (seed, epoch, index), so that a transform that uses torch's, random's
    or numpy's global generator gives the same sample in any worker, in any order, and after a resume; the process's own
    generators are left as they were. Where a sampler repeats samples within an epoch, the position counts, too, so that
    the repeated ones are not copies.

    Args:
        dataset: Samples by index.
        sampler: Their order, or an order of batches; or what this rank draws of one. Its cursor says what was consumed.
        batch_size: Samples of a batch; None where the sampler gives whole batches.
        num_workers: Loader processes, kept from epoch to epoch; 0 loads in this process.
        drop_last: Leave out an incomplete last batch. Not for a sampler that gives whole batches.
        seed: Seed of the samples' randomness.
        collate: Makes a batch of a list of samples; torch's default_collate when None.
        pin_memory: Put batches into page-locked memory, for copies to a GPU.
        rank: Which of several ranks this is: it loads every world_size-th sample of each batch, from `rank` on, so that
            batches do not depend on the number of ranks. Where a batch has less samples than there are ranks, those
            without one load the batch's first sample.
        world_size: Number of ranks. 1 where the sampler is one rank's share already; batch_size is then this rank's.
        limit: Batches of an epoch at most, its first ones. Not for passes that follow each other by themselves beyond the first
            epoch: nothing cuts them.
        device: A CUDA device on which batches are yielded: while one is at work, the next is copied there from page-locked
            memory, by a stream of its own. Elsewhere, and with None, batches stay where they are.

    Attributes:
        dataset: As given; of one that is `Indexed`, that which has the samples.
        endless: Whether passes over the data follow each other by themselves, whatever `set_epoch` says.
        share: Of the batch that was yielded last, (how many of its samples are this rank's, how many it has); None where
            world_size is 1.

    Raises:
        ValueError: batch_size does not fit the sampler, the limit is below 1, or there is no such rank.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler | BatchSampler | SamplerShard[int] | SamplerShard[list[int]],
        *,
        batch_size: int | None,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        collate: Callable[[list[object]], object] | None = None,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}, must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"there is no rank {rank} in a world of {world_size}")
        if world_size > 1 and isinstance(sampler, SamplerShard):
            raise ValueError(f"{type(sampler).__name__} is one rank's share already; a share of it would lose samples")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        order = sampler.sampler if isinstance(sampler, Shard) else sampler
        if not isinstance(sampler, Sampler | BatchSampler | SamplerShard):
            raise ValueError(f"{type(sampler).__name__} is no sampler of Treenail's, which could be resumed")
        if isinstance(order, BatchSampler) and batch_size is not None:
            raise ValueError(f"{type(order).__name__} gives whole batches: leave batch_size out")
        if isinstance(order, Sampler) and batch_size is None:
            raise ValueError(f"{type(order).__name__} gives single indices: a batch_size is needed")
        if drop_last and getattr(order, "endless", False):
            raise ValueError(f"passes of {type(sampler).__name__} follow each other: there is no last batch to drop")
        if batch_size is None and drop_last:
            raise ValueError("drop_last is the batch sampler's to know; give it there")
        self.dataset = dataset.dataset if isinstance(dataset, Indexed) else dataset
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.limit = limit
        self._device = device if device is not None and device.type == "cuda" else None
        self._shard = sampler if isinstance(sampler, SamplerShard) else Shard(sampler, 0, 1)
        self.endless = isinstance(self._shard, Shard) and bool(getattr(self._shard.sampler, "endless", False))
        self.share: tuple[int, int] | None = None
        self._keys = _Keys(self._shard, batch_size, drop_last=drop_last, rank=rank, world_size=world_size)
        # The loader's own generator keeps the process's one untouched when an iterator is made.
        self._generator = torch.Generator().manual_seed(mix(seed, "workers"))
        self._loader: DataLoader[object] = DataLoader(
            _SeededBatches(dataset, seed, collate or default_collate, shield=num_workers == 0),
            batch_sampler=self._keys,
            num_workers=num_workers,
            collate_fn=_unchanged,
            generator=self._generator,
            pin_memory=pin_memory or self._device is not None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_BeginWorker() if num_workers else None,
        )
        self._workers: _Workers | None = None

    def __len__(self) -> int:
        whole = self._batches(len(self._shard))
        return whole if self.limit is None else min(whole, self.limit)

    def _batches(self, items: int) -> int:
        """Return how many batches so many items of the sampler make."""
        size = self.batch_size or 1
        return items // size if self.drop_last else -(-items // size)

    def __iter__(self) -> Iterator[object]:
        if self.limit is not None:
            self._keys.most = max(0, len(self) - self.consumed)
        if self._workers is not None and self._workers.watched.failed:
            self.close()
        try:
            batches: Iterator[object] = iter(self._loader)
        except BaseException as error:
            found = None if self._workers is None else self._workers.watched.failure(error)
            _kill_started(error)
            if found is not None:
                raise found from error
            raise
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            if self._workers is None:
                self._workers = _Workers(batches, self.dataset)
            batches = self._workers.watched.checked(batches)
        if self._device is not None:
            batches = copied_ahead(batches, self._device)
        return self._iterate(batches)

    def _iterate(self, batches: Iterator[object]) -> Iterator[object]:
        # As a generator's frame it also keeps this loader, and so the workers, for as long as somebody iterates.
        if self._keys.world_size == 1:
            yield from batches
            return
        shares = self._keys.shares
        for batch in batches:
            self.share = shares.popleft()
            yield batch

    def close(self) -> None:
        """End the worker processes; the end of the process does so, too. The next iteration starts new ones."""
        if (workers := self._workers) is not None:
            self._workers = self._loader._iterator = None
            workers.end()

    def __del__(self) -> None:
        if getattr(self, "_workers", None) is not None:  # it may have been refused when it was made
            self.close()

    @property
    def consumed(self) -> int:
        """How many batches of the current epoch have been consumed."""
        return self._batches(len(self._shard)) - self._batches(self._shard.remaining)

    def advance(self) -> None:
        """Record that one further batch was consumed, by each rank."""
        count = self.batch_size or 1
        if self.endless:
            count = min(
                count, self._shard.remaining
            )  # a pass's last batch is short, and nothing else says where it ends
        self._shard.advance(count)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one."""
        self._shard.set_epoch(epoch)

    def state_dict(self) -> dict[str, object]:
        """Return the sampler's state; a few integers, whatever the number of workers."""
        return self._shard.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands; no data is read."""
        self._shard.load_state_dict(state_dict)


class _Workers:
    """Loader processes that have to be ended: they ignore SIGTERM, and multiprocessing would wait for them at exit for ever.

    Until then torch's iterator is held here. Python's garbage collector would take its queues apart before the iterator could
    tell the processes through them to end.
    """

    def __init__(self, iterator: _MultiProcessingDataLoaderIter, dataset: object) -> None:
        self.watched = WatchedWorkers(iterator, dataset)
        self._iterator = iterator
        self._owner = os.getpid()
        atexit.register(self.end)

    def end(self) -> None:
        """Let the processes end, and kill those that do not."""
        if os.getpid() != self._owner:
            self._iterator._shutdown = True  # a forked process's copy; dropped there, it would end the parent's workers
        self.watched.end()
        try:
            self._iterator._shutdown_workers()
        finally:
            if os.getpid() == self._owner:
                for worker in self._iterator._workers:
                    worker.kill()
        atexit.unregister(self.end)


def _kill_started(error: BaseException) -> None:
    """Kill the workers of an iterator that could not start all of them, which only the error's traceback knows."""
    for frame, _ in walk_tb(error.__traceback__):
        if isinstance(iterator := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter):
            iterator._shutdown = True  # it is half made, and could not end them itself
            for worker in getattr(iterator, "_workers", ()):
                worker.kill()


class _BeginWorker:
    """Leaves signals to the parent, and finds files as it does.

    Ctrl-C reaches the whole process group; the parent decides, and still needs its workers until the next commit. A forked
    worker has the parent's mounts in its context already; a spawned one gets those in use when it is started.
    """

    def __init__(self, mounts: Mounts | None = None) -> None:
        self._chosen = None if mounts is None else use_mounts(mounts)

    def __reduce__(self) -> tuple[object, ...]:
        return _BeginWorker, (current_mounts(),)

    def __call__(self, _worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for name in ("SIGUSR1", "SIGUSR2"):  # which Windows does not have, and Slurm sends to every process of a job
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        if self._chosen is not None:
            self._chosen.__enter__()  # until the process ends


_Key = tuple[int, int, int | None]
"""(epoch, index, position or None): what decides a sample and its randomness. Samplers of records give those as index."""


class _Keys:
    """The batches of an epoch, from where a rank stands, as lists of keys."""

    def __init__(
        self,
        shard: SamplerShard[int] | SamplerShard[list[int]],
        batch_size: int | None,
        *,
        drop_last: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self._shard = shard
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._rank = rank
        self.world_size = world_size
        self.shares: deque[tuple[int, int]] = deque()
        self.most: int | None = None

    def __iter__(self) -> Iterator[list[_Key]]:
        return islice(self._whole() if self.world_size == 1 else self._shares(), self.most)

    def _shares(self) -> Iterator[list[_Key]]:
        self.shares.clear()
        for batch in self._whole():
            mine = batch[self._rank :: self.world_size]
            self.shares.append((len(mine), len(batch)))
            yield mine or batch[:1]

    def _whole(self) -> Iterator[list[_Key]]:
        shard, size = self._shard, self._batch_size
        epoch, items = shard.epoch, islice(shard, shard.remaining)  # an order without end has epochs, too
        positions: Iterator[int | None] = repeat(None)
        if isinstance(shard, Shard) and getattr(shard.sampler, "repeats_items", False):
            positions = count(shard.cursor + shard.rank, shard.world_size)
        if size is None:
            for batch in items:
                if not isinstance(batch, list):
                    raise TypeError("the sampler gives no whole batches: give the Loader a batch_size")
                position = next(positions)
                yield [_key(epoch, index, position) for index in batch]
            return
        while batch := list(islice(items, size)):
            if self._drop_last and len(batch) < size:
                return
            yield [_key(epoch, index, next(positions)) for index in batch]  # type: ignore[arg-type]  # `_key` looks


def _key(epoch: int, index: int | list[int], position: int | None) -> _Key:
    if isinstance(index, list):
        raise TypeError("the sampler gives whole batches: leave the Loader's batch_size out")
    # A marked index knows its epoch better where passes follow each other without end.
    return (index.epoch if isinstance(index, SampleIndex) else epoch, index, position)


class _SeededBatches(TorchDataset[object]):
    """Draws each sample under its own seed, and collates; torch's fetcher asks for the samples of a batch at once."""

    def __init__(self, dataset: Dataset, seed: int, collate: Callable[[list[object]], object], *, shield: bool) -> None:
        self._dataset = dataset
        self._seed = seed
        self._collate = collate
        self._shield = shield

    def __getitems__(self, keys: list[_Key]) -> object:
        # A worker process has no generators to protect.
        with shielded_rng() if self._shield else nullcontext():
            samples: list[object] = []
            try:
                for epoch, index, position in keys:
                    seed_sample(self._seed if position is None else mix(self._seed, position), epoch, index)
                    samples.append(self._dataset[index])
                return self._collate(samples)
            except (StopIteration, MemoryError, torch.cuda.OutOfMemoryError):  # no sample's fault: who iterates tells
                raise
            except Exception as error:
                failed = FailedBatch.of(self._dataset, [index for _, index, _ in keys], len(samples), error)
                if self._shield:
                    raise DataError(failed.message, where=failed.where, mend=failed.mend) from error
                return failed


def _unchanged(batch: T) -> T:
    return batch


class Batches:
    """Ready-made batches in memory, in the given order every epoch: a `BatchSource`.

    Args:
        batches: The batches of an epoch.
    """

    def __init__(self, batches: Sequence[T]) -> None:
        self._batches = batches
        self._epoch = 0
        self._consumed = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[object]:
        return iter(self._batches[self._consumed :] if self._consumed else self._batches)

    @property
    def consumed(self) -> int:
        """How many batches of the current epoch have been consumed."""
        return self._consumed

    def advance(self) -> None:
        """Record that one further batch was consumed."""
        self._consumed += 1

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is the current one."""
        if epoch != self._epoch:
            self._epoch, self._consumed = epoch, 0

    def state_dict(self) -> dict[str, object]:
        """Return the epoch and how many of its batches were consumed."""
        return {"epoch": self._epoch, "consumed": self._consumed, "size": len(self._batches)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: The state is of another number of batches, or its position does not exist.
        """
        epoch, consumed, size = (state_dict.get(name) for name in ("epoch", "consumed", "size"))
        if size != len(self._batches):
            raise StateError(f"the state is of {size!r} batches, here are {len(self._batches)}", where="Batches")
        if not isinstance(epoch, int) or not isinstance(consumed, int) or not 0 <= consumed <= len(self._batches):
            raise StateError(f"no position epoch {epoch!r}, batch {consumed!r}", where="Batches")
        self._epoch, self._consumed = epoch, consumed

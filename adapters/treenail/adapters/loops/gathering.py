"""Batches of evaluation data on many ranks, and what these computed, brought to rank 0 in the order of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from treenail.adapters.comm import gather_object
from treenail.adapters.data import DataError, IndexedBatch
from treenail.adapters.sampling import Shard
from treenail.kernel import BatchSource, Communicator, TrainingError

T = TypeVar("T")


class RankBatch(NamedTuple):
    """What a rank has of a batch.

    Args:
        batch: As the dataset's samples were collated.
        indices: Of its samples in the dataset, int64[samples], those of padding included; None where batches do not tell them.
        counting: Which of its samples count, int64[…]: none of padding; None where all do.
        shared: Whether it is a part of a batch that the ranks share.
    """

    batch: object
    indices: Tensor | None
    counting: Tensor | None
    shared: bool


class RankBatches:
    """Goes through evaluation data in step with the other ranks, which may have fewer batches, or none.

    Args:
        batches: This rank's batches.
        ranks: The ranks; None: only this process.
        what: Which data they are, for messages.
    """

    def __init__(self, batches: BatchSource, ranks: Communicator | None, what: str) -> None:
        self._batches = batches
        self.ranks = ranks
        self._what = what

    def __iter__(self) -> Iterator[RankBatch | None]:
        """Yield this rank's batches, then None for as long as another rank has one.

        Raises:
            TrainingError: There are less batches than the data say, none at all, or repeated samples that nothing tells from
                others; or there are many ranks, and no rank knows its number of batches.
            DataError: A batch cannot be loaded.
        """
        batches, ranks = self._batches, self.ranks
        self._refuse_unmarked(getattr(batches, "sampler", None))
        batches.set_epoch(0)
        own = rounds = self._length()
        if ranks is not None and own is not None:
            rounds = int(ranks.all_reduce(torch.tensor(own), "max"))
        seen = 0
        try:
            for item in batches:
                yield self._described(item)
                seen += 1
        except DataError as error:
            error.add_note(f"batch {seen} of the {self._what} data")
            raise
        if own is None:
            if not seen:
                raise TrainingError(f"the {self._what} data gave no batch at all", mend="is it empty?")
            return
        if not rounds or seen != own:
            raise TrainingError(
                f"the {self._what} data ended after {seen} of {own} batches",
                mend="is the dataset empty, does it raise StopIteration, or have another length than it says?",
            )
        for _ in range(seen, rounds or 0):
            yield None

    def _length(self) -> int | None:
        """Return how many batches this rank has; None where nobody knows, which one process need not."""
        try:
            return len(self._batches)
        except TypeError:
            if self.ranks is None:
                return None
            raise TrainingError(
                f"nobody knows how many batches the {self._what} data have, and {self.ranks.world_size} ranks go through "
                "theirs in step",
                mend="evaluate in one process, or let the batches have a len",
            ) from None

    def _refuse_unmarked(self, sampler: object) -> None:
        if not isinstance(sampler, Shard) or sampler.padding != "repeat" or sampler.marked:
            return
        if len(sampler.sampler) % sampler.world_size:
            raise TrainingError(
                f"{type(sampler).__name__} repeats samples of the {self._what} data, so that {sampler.world_size} ranks have "
                "equally many, and does not mark them: they would be measured twice",
                mend="give it marked=True or padding='none'",
            )

    def _described(self, item: object) -> RankBatch:
        share = None if self.ranks is None else getattr(self._batches, "share", None)
        batch, indices, padding = item if isinstance(item, IndexedBatch) else (item, None, None)
        counting = None
        if share is not None and share[0] == 0:  # a rank without a sample was given one that does not count
            counting = torch.empty(0, dtype=torch.int64)
        elif padding is not None and padding.any():
            counting = (~padding).nonzero().flatten()
        return RankBatch(batch, indices, counting, share is not None)

    def merge(self, mine: RankBatch | None, data: T | None) -> T | None:
        """Return what all ranks computed for their batches, in the order of the data, on rank 0; None elsewhere.

        Args:
            mine: This rank's batch; None where it has no more.
            data: What it computed: tensors [samples, …], lists of one a sample, or mappings and tuples of such.

        Raises:
            TrainingError: It is something else, or what ranks computed is unlike.
        """
        if data is not None and mine is not None and mine.counting is not None:
            data = rows_of(data, mine.counting)
        if self.ranks is None:
            return data
        if (
            mine is not None and mine.shared and isinstance(data, Tensor) and data.ndim
        ):  # one message, since its form is known
            parts = self.ranks.gather(data)
            return None if parts is None else interleave(parts)  # type: ignore[return-value]  # T is Tensor
        told = gather_object(self.ranks, data)
        found = [each for each in told or () if each is not None]
        return _interleaved(found) if found else None


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Return rows in the order in which ranks drew them: the first of each part, the second of each, and so on.

    Args:
        parts: [rows, …] of each rank.
    """
    return torch.cat(tuple(parts)).index_select(0, _turns([len(part) for part in parts]).to(parts[0].device))


def _turns(sizes: Sequence[int]) -> Tensor:
    """Return which rows of parts that follow each other come in turn, int64[sum of sizes]."""
    turn = torch.cat([torch.arange(size) for size in sizes])
    return turn.argsort(stable=True)


def in_turns(parts: Sequence[Sequence[T]]) -> list[T]:
    """Return the first item of each part, then the second of each, and so on."""
    flat = [item for part in parts for item in part]
    return [flat[place] for place in _turns([len(part) for part in parts]).tolist()]


def _interleaved(parts: list[Any]) -> Any:  # Any: what goes in comes out
    """Return what ranks computed as one: tensors and lists in turns, mappings and tuples place by place."""
    first = parts[0]
    if all(isinstance(part, Tensor) for part in parts):
        if first.ndim and len({part.shape[1:] for part in parts}) == 1:
            return interleave([part.to(first.device) for part in parts])
    elif all(isinstance(part, Mapping) and part.keys() == first.keys() for part in parts):
        return {name: _interleaved([part[name] for part in parts]) for name in first}
    elif all(isinstance(part, tuple) and len(part) == len(first) for part in parts):
        return tuple(_interleaved(list(values)) for values in zip(*parts, strict=True))
    elif all(isinstance(part, list) for part in parts):
        return in_turns(parts)
    raise TrainingError(
        f"the ranks computed {', '.join(map(_form, parts))} for their samples of a batch, which are not one",
        mend="let the model return tensors [batch, …], of the same sizes for every batch, or a list of one a sample",
    )


def _form(data: object) -> str:
    if isinstance(data, Tensor):
        return f"a tensor {list(data.shape)}"
    return f"{{{', '.join(map(str, data))}}}" if isinstance(data, Mapping) else f"a {type(data).__name__}"


def rows_of(data: Any, rows: Tensor) -> Any:  # Any: what goes in comes out
    """Return what was computed for some samples of a batch.

    Args:
        data: Tensors [samples, …], lists of one a sample, or mappings and tuples of such.
        rows: Which, int64[…].

    Raises:
        TrainingError: They are something else.
    """
    if isinstance(data, Tensor) and data.ndim:
        return data.index_select(0, rows.to(data.device))
    if isinstance(data, Mapping):
        return {name: rows_of(value, rows) for name, value in data.items()}
    if isinstance(data, tuple):
        return tuple(rows_of(value, rows) for value in data)
    if isinstance(data, list) and max(rows.tolist(), default=-1) < len(data):
        return [data[row] for row in rows.tolist()]
    raise TrainingError(
        f"what was computed for a batch is {_form(data)}, not one a sample",
        mend="let the model return tensors [batch, …], or a list of one a sample",
    )

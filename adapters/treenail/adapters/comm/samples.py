"""What ranks computed for samples, brought together in the order of the dataset: each sample once, whoever had it.

Everything that is gathered has a value for each sample, and the sample's index beside it; so a mean over a rank's samples,
which cannot be merged rightly, is refused, by a type checker and at run time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import torch
from msgspec import Struct
from torch import Tensor

from treenail.adapters.comm.arguments import check_rank
from treenail.adapters.comm.objects import broadcast_object, exchange, require_equal
from treenail.adapters.comm.packing import describe
from treenail.adapters.comm.structures import gathered
from treenail.adapters.comm.tree import Kind, Structure
from treenail.kernel import CommunicationError, Communicator

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]  # as the standard library has it


# The items of a list, and the dtype of an array, may be anything.
Batch: TypeAlias = "Tensor | list[Any] | NDArray[Any] | tuple[Batch, ...] | Mapping[str, Batch] | _Dataclass | Struct"
"""Values for n samples: tensors and arrays [n, …], lists of n, and dicts, tuples, dataclasses and Structs of these."""

B = TypeVar("B", bound="Batch")

_COPIES = 3
"""How many times rank 0 may hold a piece for a moment: its own share twice, what it receives, and that in order."""


class Samples(NamedTuple, Generic[B]):
    """What was computed for samples, in the order of the dataset.

    Args:
        values: As one rank gave them, now of all samples: [number of samples, …].
        indices: Which samples they are, ascending, each once: int64[number of samples], on the CPU.
    """

    values: B
    indices: Tensor


def gather_samples(
    communicator: Communicator,
    data: B,
    indices: Sequence[int] | Tensor,
    destination: int = 0,
    *,
    size: int | None = None,
    device: torch.device | str = "cpu",
) -> Samples[B] | None:
    """Return the samples of all ranks in the order of the dataset on rank `destination`, None elsewhere.

    A sample that several ranks have, or one rank several times, is kept once: the first that is no padding.

    Args:
        communicator: The ranks.
        data: Values of this rank's n samples: tensors and arrays [n, …], lists of n, in any nesting of dicts, tuples,
            dataclasses and Structs. n may differ between ranks, and be 0.
        indices: The samples' indices in the dataset: n ints, or int64[n]. Those of `treenail.adapters.sampling.SampleIndex`
            say which are padding.
        destination: Who receives.
        size: Number of samples in the dataset, if all of them are to be here.
        device: Where the tensors of the result shall be.

    Raises:
        CommunicationError: A value has none for each sample (the message has its path), the structures differ, an index is out
            of range, a sample is missing, or the ranks disagree; on every rank.
    """
    return _Plan(communicator, "gather_samples", data, indices, destination, size).whole(device)


def all_gather_samples(
    communicator: Communicator,
    data: B,
    indices: Sequence[int] | Tensor,
    *,
    size: int | None = None,
    device: torch.device | str = "cpu",
) -> Samples[B]:
    """Return the samples of all ranks in the order of the dataset, on every rank.

    Args:
        communicator: The ranks.
        data: As for `gather_samples`.
        indices: As for `gather_samples`.
        size: As for `gather_samples`.
        device: Where the tensors of the result shall be.

    Raises:
        CommunicationError: As of `gather_samples`.
    """
    result = _Plan(communicator, "all_gather_samples", data, indices, None, size).whole(device)
    if result is None:
        raise AssertionError("without a destination every rank receives")
    return result


def gather_sample_chunks(
    communicator: Communicator,
    data: B,
    indices: Sequence[int] | Tensor,
    destination: int = 0,
    *,
    chunk_bytes: int,
    size: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Samples[B]]:
    """Yield the samples of all ranks in the order of the dataset, piece by piece, on rank `destination`.

    Every rank iterates to the end; on the others nothing is yielded. When the iteration is closed early on the rank that
    receives (by `break`, for instance), it ends on the others.

    What a rank holds beyond its own data, the pieces that were yielded to it and are kept, and about 100 bytes for each
    sample of the dataset, is at most `chunk_bytes`; more only where a single sample has more than a third of them. To hold
    the ranks' own data in the memory of the host, give tensors on the CPU.

    Args:
        communicator: The ranks.
        data: As for `gather_samples`.
        indices: As for `gather_samples`.
        destination: Who receives.
        chunk_bytes: Bytes of memory that a rank may use for the pieces; a piece has at most a third of them.
        size: As for `gather_samples`.
        device: Where the tensors of a piece shall be.

    Raises:
        CommunicationError: As of `gather_samples`, or chunk_bytes is not positive or not the same on every rank.
    """
    plan = _Plan(communicator, "gather_sample_chunks", data, indices, destination, size, chunk_bytes)
    bounds = plan.bounds(chunk_bytes // _COPIES)
    for start, stop in pairwise(bounds):
        if not broadcast_object(communicator, True, destination):
            return
        if not plan.receives:
            plan.piece(start, stop, device)
            continue
        try:
            yield cast("Samples[B]", plan.piece(start, stop, device))  # this rank receives
        except GeneratorExit:
            if stop < bounds[-1]:  # the others wait for what comes next
                broadcast_object(communicator, False, destination)
            raise


class _Plan(Generic[B]):
    """Which rank sends which of its samples, known to all of them.

    Args:
        communicator: The ranks.
        doing: What is done, for messages.
        data: This rank's values.
        indices: Their samples.
        destination: Who receives; all ranks where it is None.
        size: Number of samples of the dataset, if all are to be here.
        chunk_bytes: Bytes of pieces, where the samples' sizes matter.
    """

    def __init__(
        self,
        communicator: Communicator,
        doing: str,
        data: B,
        indices: Sequence[int] | Tensor,
        destination: int | None,
        size: int | None,
        chunk_bytes: int | None = None,
    ) -> None:
        self._communicator = communicator
        self._doing = doing
        self._destination = destination
        structures: list[Structure] = []

        def bring() -> list[Sequence[object]]:
            """Return what must be equal, and what the others must know of this rank's samples."""
            if destination is not None:
                check_rank(destination, communicator.world_size)
            if chunk_bytes is not None and chunk_bytes < 1:
                raise CommunicationError(f"chunk_bytes is {chunk_bytes}, must be positive")
            numbers, padding = _indices(indices, size)
            structures.append(structure := Structure(data))
            _check_batch(structure, len(numbers))
            sizes = torch.empty(0, dtype=torch.int64) if chunk_bytes is None else _sizes(structure, len(numbers))
            return [[destination, size, chunk_bytes], [numbers, padding, sizes]]

        told = exchange(communicator, doing, bring)
        require_equal(doing, ["destination", "size", "chunk_bytes"], [asked for asked, _ in told])
        self._structure = structures[0]
        columns = [cast("list[Tensor]", each[1]) for each in told]  # as brought above
        numbers, padding = (torch.cat([each[place] for each in columns]) for place in range(2))
        first = _first_of_each(numbers, padding)
        self._indices = numbers[first]
        starts = torch.tensor([0] + [len(each[0]) for each in columns]).cumsum(0)
        self._owners = torch.bucketize(first, starts[1:], right=True)
        self._rows = first - starts[self._owners]  # in the data of the rank that owns it
        self._sizes = torch.cat([each[2] for each in columns])[first] if chunk_bytes is not None else None
        if size is not None and len(first) < size:
            here = torch.zeros(size, dtype=torch.bool)
            here[self._indices] = True
            missing = (~here).nonzero().flatten()
            named = ", ".join(map(str, missing[:5].tolist())) + (", …" if len(missing) > 5 else "")
            raise CommunicationError(
                f"{doing}: {len(missing)} of {size} samples are on no rank: {named}",
                mend="let the ranks' samplers cover the dataset, or leave size out",
            )

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self._indices)

    @property
    def receives(self) -> bool:
        """Whether this rank is given the samples."""
        return self._destination in {None, self._communicator.rank}

    def bounds(self, most: int) -> list[int]:
        """Return where pieces of at most so many bytes, and at least one sample, begin and end."""
        if self._sizes is None:
            raise AssertionError("the samples' sizes were not asked for")
        ends = self._sizes.cumsum(0)
        bounds = [0]
        while bounds[-1] < self.count:
            before = int(ends[bounds[-1] - 1]) if bounds[-1] else 0
            fitting = int(torch.searchsorted(ends, before + most, right=True))
            bounds.append(max(fitting, bounds[-1] + 1))
        return bounds if len(bounds) > 1 else [0, 0]  # a dataset without samples is one empty piece

    def whole(self, device: torch.device | str) -> Samples[B] | None:
        """Return all samples where they are received, None elsewhere."""
        return self.piece(0, self.count, device)

    def piece(self, start: int, stop: int, device: torch.device | str) -> Samples[B] | None:
        """Return samples start … stop-1 of those in order where they are received, None elsewhere."""
        owners = self._owners[start:stop]
        rows = self._rows[start:stop][owners == self._communicator.rank]

        def select() -> Structure:
            return self._structure.with_leaves(_take(leaf.value, leaf.kind, rows) for leaf in self._structure.leaves)

        merged = gathered(self._communicator, self._doing, select, self._destination, device)
        if not self.receives:
            return None
        order = owners.argsort(stable=True).argsort()  # of what came in the order of ranks
        result = Structure(merged)
        values = [_take(leaf.value, leaf.kind, order) for leaf in result.leaves]
        return Samples(cast("B", result.rebuild(values)), self._indices[start:stop].clone())  # the structure of data


def _indices(indices: Sequence[int] | Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Return the indices as int64[n], and which of them are padding as bool[n]."""
    if isinstance(indices, Tensor):
        whole = not indices.dtype.is_floating_point and not indices.dtype.is_complex and indices.dtype is not torch.bool
        if indices.dim() != 1 or not whole:
            raise CommunicationError(
                f"indices are {str(indices.dtype).removeprefix('torch.')}{list(indices.shape)}", mend="give int64[n]"
            )
        numbers = indices.to("cpu", torch.int64)
        padding = torch.zeros(len(numbers), dtype=torch.bool)
    else:
        indices = list(indices)
        for place, index in enumerate(indices):
            if not hasattr(index, "__index__") or isinstance(index, bool):  # numpy's whole numbers have it, too
                raise CommunicationError(f"a {type(index).__name__} is no index", where=f"indices[{place}]")
        numbers = torch.tensor([operator.index(index) for index in indices], dtype=torch.int64)
        # treenail.adapters.sampling.SampleIndex knows it
        padding = torch.tensor([bool(getattr(index, "padding", False)) for index in indices], dtype=torch.bool)
    wrong = numbers < 0 if size is None else (numbers < 0) | (numbers >= size)
    if wrong.any():
        place = int(wrong.nonzero()[0])
        known = "indices begin at 0" if size is None else f"the dataset has samples 0 … {size - 1}"
        raise CommunicationError(f"there is no sample {int(numbers[place])}", where=f"indices[{place}]", mend=known)
    return numbers, padding


def _check_batch(structure: Structure, count: int) -> None:
    """Check that every leaf has a value for each sample."""
    for leaf in structure.leaves:
        where = leaf.path or None
        if leaf.kind is Kind.OBJECT or (leaf.kind is not Kind.LIST and not leaf.value.ndim):
            what = (
                f"a {type(leaf.value).__name__}"
                if leaf.kind is Kind.OBJECT
                else f"{leaf.kind.value} without a dimension"
            )
            raise CommunicationError(
                f"{what} is no value for each of {count} samples",
                where=where,
                mend="give a tensor [n, …] or a list of n, for instance losses that were not averaged yet",
            )
        if len(leaf.value) != count:
            raise CommunicationError(
                f"{len(leaf.value)} values for {count} indices", where=where, mend="give one for each"
            )


def _sizes(structure: Structure, count: int) -> Tensor:
    """Return about how many bytes each sample takes on its way, int64[n]."""
    sizes = torch.zeros(count, dtype=torch.int64)
    if not count:
        return sizes
    for leaf in structure.leaves:
        if leaf.kind is Kind.LIST:
            sizes += torch.tensor([describe([item]).nbytes for item in leaf.value])
        else:
            sizes += leaf.value.nbytes // count
    return sizes


def _first_of_each(numbers: Tensor, padding: Tensor) -> Tensor:
    """Return where each number stands first, as no padding if it can be; in the order of the numbers."""
    order = padding.argsort(stable=True)
    order = order[numbers[order].argsort(stable=True)]
    ordered = numbers[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def _take(value: Any, kind: Kind, rows: Tensor) -> object:
    """Return rows of a tensor, array or list, without a copy where they are consecutive."""
    count = len(rows)
    start = int(rows[0]) if count else 0
    if torch.equal(rows, torch.arange(start, start + count)):
        return value[start : start + count]
    if kind is Kind.TENSOR:
        return value.detach().index_select(0, rows.to(value.device))
    return [value[row] for row in rows.tolist()] if kind is Kind.LIST else value[rows.tolist()]

"""The benchmark `comm`: large tensors, uneven ones to one rank, and those of the collectives that torch has itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TypeAlias

import torch
import torch.distributed as dist
from scripts.benchmarks._comm_peers import ACCELERATE, accelerate_gather_uneven, bare_gather, gather_object
from scripts.benchmarks._comm_race import Contestant, Times, race
from torch import Tensor

from treenail.adapters.comm.samples import Samples, gather_sample_chunks, gather_samples
from treenail.adapters.comm.structures import gather_data, gather_list, gather_tensors
from treenail.kernel import Communicator

WIDTH = 256
FIELDS = ("boxes", "scores", "logits", "masks")
PIECES = 64
CHUNKS = 8

Fields: TypeAlias = dict[str, Tensor]


class Uneven:
    """Float32 tensors [n, 256] of the same bytes on every rank, in uneven parts.

    Args:
        rank: Whose.
        world_size: How many ranks there are.
        nbytes: Of each rank, about.
    """

    def __init__(self, rank: int, world_size: int, nbytes: int) -> None:
        self.world_size = world_size
        # Four fields whose rows are as 1:2:3:4, another one the longest on each rank: no rank has more to send than in an even
        # gather, and no tensor is as long as its counterparts.
        unit = max(nbytes // (4 * WIDTH * 10), 1)
        self.lengths = [
            {field: unit * (1 + (place + each) % 4) for place, field in enumerate(FIELDS)} for each in range(world_size)
        ]
        self.rows = unit * 10
        self.data = {field: _filled(rank, place, self.lengths[rank][field]) for place, field in enumerate(FIELDS)}
        self.flat = torch.full((self.rows * WIDTH,), float(rank))

    def pieces(self, rank: int) -> list[int]:
        """Return the rows of a list's tensors on a rank: many sizes, and in all as many as the fields have."""
        weights = [1 + (7 * place + rank) % 13 for place in range(PIECES)]
        ends = [self.rows * each // sum(weights) for each in accumulate(weights)]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def check(self, found: Fields | None) -> None:
        """Compare the fields of all ranks, in rank order, with what they should be.

        Raises:
            AssertionError: They are something else.
        """
        if found is None:
            assert dist.get_rank() != 0
            return
        for place, field in enumerate(FIELDS):
            lengths = [each[field] for each in self.lengths]
            assert found[field].shape == (sum(lengths), WIDTH)
            for rank, part in enumerate(found[field].split_with_sizes(lengths)):
                assert torch.equal(part, _filled(rank, place, len(part)))


def _filled(rank: int, place: int, rows: int) -> Tensor:
    return torch.full((rows, WIDTH), rank * 10.0 + place)


def race_uneven(communicator: Communicator, nbytes: int, rounds: int) -> dict[str, Times]:
    """Gather uneven float32 tensors of `nbytes` of each rank on rank 0."""
    rank, world_size = communicator.rank, communicator.world_size
    uneven = Uneven(rank, world_size, nbytes)
    row_counts = [uneven.pieces(each) for each in range(world_size)]
    pieces = list(torch.cat(list(uneven.data.values())).split_with_sizes(row_counts[rank]))
    # One tensor of each rank, as long as 1:2:…: rank 0, which receives, has the shortest, and the others more to send.
    lengths = [
        uneven.rows * world_size * 2 * (each + 1) // (world_size * (world_size + 1)) for each in range(world_size)
    ]
    one = _filled(rank, 0, lengths[rank])

    def check_pieces(found: list[Tensor] | None) -> None:
        if rank == 0:
            assert found is not None
            assert [len(each) for each in found] == [count for counts in row_counts for count in counts]
            for each in range(world_size):
                first = Uneven(each, world_size, nbytes)
                mine = torch.cat(found[each * PIECES : (each + 1) * PIECES])
                assert torch.equal(mine, torch.cat(list(first.data.values())))

    def check_one(found: Tensor | None) -> None:
        if rank == 0:
            assert found is not None
            assert torch.equal(found, torch.cat([_filled(each, 0, length) for each, length in enumerate(lengths)]))

    contestants = [
        Contestant("treenail gather_data, a dict of 4", lambda _: gather_data(communicator, uneven.data), uneven.check),
        Contestant("treenail gather_list, 64 tensors", lambda _: gather_list(communicator, pieces), check_pieces),
        Contestant("treenail gather_tensors, one 1:2:…", lambda _: gather_tensors(communicator, one), check_one),
        Contestant("torch gather, flat and even", lambda _: bare_gather(uneven.flat), _check_flat),
        Contestant("torch gather_object, a dict of 4", lambda _: _by_object(uneven.data), uneven.check),
    ]
    if ACCELERATE:
        contestants.append(
            Contestant("accelerate pad and gather, 4", lambda _: _by_accelerate(uneven.data), uneven.check)
        )
    return race(contestants, rounds)


def _check_flat(found: list[Tensor] | None) -> None:
    for rank, part in enumerate(found or []):
        assert bool((part == rank).all())


def _by_object(data: Fields) -> Fields | None:
    parts = gather_object(data)
    return None if parts is None else {field: torch.cat([part[field] for part in parts]) for field in data}


def _by_accelerate(data: Fields) -> Fields:
    return dict(zip(data, accelerate_gather_uneven(list(data.values())), strict=True))


def race_collectives(communicator: Communicator, nbytes: int, rounds: int) -> dict[str, dict[str, Times]]:
    """Run our broadcast, all_gather and all_reduce of one float32 tensor, and torch's."""
    rank, world_size = communicator.rank, communicator.world_size
    count = nbytes // 4

    def make() -> Tensor:
        return torch.full((count,), float(rank + 1))

    def all_gather(tensor: Tensor) -> list[Tensor]:
        received = [torch.empty_like(tensor) for _ in range(world_size)]
        dist.all_gather(received, tensor)
        return received

    def broadcast(tensor: Tensor) -> Tensor:
        dist.broadcast(tensor, 0)
        return tensor

    def all_reduce(tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def of_a_copy(torchs: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda tensor: torchs(tensor.clone())

    def right(values: list[float]) -> Callable[[Tensor | list[Tensor]], None]:
        def check(result: Tensor | list[Tensor]) -> None:
            parts = result if isinstance(result, list) else [result]
            assert [len(part) for part in parts] == [count] * len(values)
            assert all(bool((part == value).all()) for part, value in zip(parts, values, strict=True))

        return check

    total = right([world_size * (world_size + 1) / 2])
    each, first = right([rank + 1.0 for rank in range(world_size)]), right([1.0])

    def ours(tensor: Tensor) -> Tensor:
        return communicator.broadcast(tensor if rank == 0 else None)

    of_collectives = {
        "broadcast": [
            Contestant("treenail", ours, first, make),
            Contestant("torch, in place", broadcast, first, make),
            Contestant("torch, of a copy", of_a_copy(broadcast), first, make),
        ],
        "all_gather": [
            Contestant("treenail", communicator.all_gather, each, make),
            Contestant("torch", all_gather, each, make),
        ],
        "all_reduce": [
            Contestant("treenail", communicator.all_reduce, total, make),
            Contestant("torch, in place", all_reduce, total, make),
            Contestant("torch, of a copy", of_a_copy(all_reduce), total, make),
        ],
    }
    return {name: race(contestants, rounds) for name, contestants in of_collectives.items()}


# Memory ---------------------------------------------------------------------------------------------------------------


WAYS = (
    "treenail gather_data",
    "treenail gather_samples",
    f"treenail gather_sample_chunks, 1/{CHUNKS}",
    "torch gather",
    "torch gather_object",
    *(["accelerate pad and gather"] if ACCELERATE else []),
)
"""What `gatherers` returns, by name."""


def gatherers(communicator: Communicator, nbytes: int) -> dict[str, Callable[[], object]]:
    """Return ways to gather `nbytes` of each rank on rank 0, whose peak memory is measured; each makes its data when called.

    What each returns does the gathering, keeps what it needs to, and may be called once.
    """
    uneven = Uneven(communicator.rank, communicator.world_size, nbytes)
    indices = torch.arange(communicator.rank, uneven.rows * communicator.world_size, communicator.world_size)
    # Of samples each has a row: an even share of them on each rank, which to bring in order costs a copy.
    samples = uneven.flat.view(uneven.rows, WIDTH)

    def in_chunks() -> int:
        limit = nbytes * communicator.world_size // CHUNKS
        return sum(len(piece.indices) for piece in _chunks(communicator, samples, indices, limit))

    found: list[Callable[[], object]] = [
        lambda: gather_data(communicator, uneven.data),
        lambda: gather_samples(communicator, samples, indices),
        in_chunks,
        lambda: bare_gather(uneven.flat),
        lambda: _by_object(uneven.data),
        lambda: _by_accelerate(uneven.data),
    ]
    return dict(zip(WAYS, found, strict=False))


def _chunks(communicator: Communicator, samples: Tensor, indices: Tensor, limit: int) -> Iterator[Samples[Tensor]]:
    return gather_sample_chunks(communicator, samples, indices, chunk_bytes=limit)

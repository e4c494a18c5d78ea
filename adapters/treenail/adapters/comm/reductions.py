"""Reductions that are made of the communicator's own collectives, and messages of tensors."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from treenail.adapters.comm.arguments import check_rank, tensors_of_ranks
from treenail.adapters.comm.envelope import form_of, settled
from treenail.adapters.comm.objects import exchange, require_equal
from treenail.adapters.comm.operations import check_reducible, reduced
from treenail.adapters.comm.tree import difference, digest
from treenail.kernel import CommunicationError, Communicator

V = TypeVar("V", bound=Tensor | int | float | complex)

_SMALL = 2**16
"""Bytes up to which each rank sends all that it has to all, which is one collective."""

_SAME = "give the same operation, and tensors of the same names, shapes and dtypes, on every rank"

_NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


def reduce(communicator: Communicator, tensor: Tensor, destination: int = 0, op: str = "sum") -> Tensor | None:
    """Return the element-wise reduction over ranks on rank `destination`, None elsewhere.

    It is one collective for a tensor of at most 64 KiB, and one more for a larger one.

    Args:
        communicator: The ranks.
        tensor: Of the same shape and dtype on every rank.
        destination: Who gets it.
        op: As of `Communicator.all_reduce`.

    Raises:
        CommunicationError: The ranks disagree, the operation does not exist for this dtype, or there is no such rank.
    """

    def bring() -> list[list[object]]:
        check_rank(destination, communicator.world_size)
        mine = check_reducible(settled(tensor), op)
        return [[destination, op, str(form_of(mine))], [mine.detach()] if mine.nbytes <= _SMALL else []]

    told = exchange(communicator, "reduce", bring)
    require_equal("reduce", ["destination", "op", "tensor"], [asked for asked, _ in told])
    parts = [cast("list[Tensor]", sent) for _, sent in told]  # as brought above
    if not parts[0]:
        result = communicator.all_reduce(tensor, op)
        return result if communicator.rank == destination else None
    if communicator.rank != destination:
        return None
    return reduced([part for (part,) in parts], op).to(tensor.device)


def reduce_scatter(communicator: Communicator, tensors: Iterable[Tensor], op: str = "sum") -> Tensor:
    """Return the element-wise reduction over ranks of their tensors number `rank`.

    Args:
        communicator: The ranks.
        tensors: One for each rank; those of one number have the same shape and dtype on every rank.
        op: As of `Communicator.all_reduce`.

    Raises:
        CommunicationError: Not one tensor for each rank, the ranks' tensors do not fit, or the operation does not exist for
            their dtype; on every rank.
    """
    given: list[Tensor] = []
    forms = {"op": str(op)}

    def bring() -> list[list[object]]:
        given.extend(tensors_of_ranks(tensors, communicator.world_size))
        forms.update((f"[{place}]", str(form_of(check_reducible(each, op)))) for place, each in enumerate(given))
        return [[digest(forms)]]

    told = exchange(communicator, "reduce_scatter", bring)
    if any(columns != told[0] for columns in told):
        raise difference(communicator, "reduce_scatter: the tensors", forms, mend=_SAME)
    return reduced(communicator.all_to_all(given), op)


def send(communicator: Communicator, tensor: Tensor, destination: int, tag: int = 0) -> None:
    """Send a tensor to another rank; returns when the tensor may be changed.

    Raises:
        CommunicationError: There is no such rank, or it is gone.
    """
    communicator.isend(tensor, destination, tag)()


def recv(communicator: Communicator, source: int, tag: int = 0) -> Tensor:
    """Return the tensor that another rank sends with this tag, on the CPU.

    Raises:
        CommunicationError: There is no such rank, it is gone, or it sends nothing in time.
    """
    return communicator.irecv(source, tag)()


def all_reduce_dict(communicator: Communicator, values: Mapping[str, V], op: str = "sum") -> dict[str, V]:
    """Return the element-wise reduction over ranks of each value.

    It is one collective where the values have at most 64 KiB, and else one more for each dtype.

    Args:
        communicator: The ranks.
        values: Tensors of any shapes and dtypes, and Python numbers (of 64 bits); in the same keys on every rank, in any order.
        op: As of `Communicator.all_reduce`.

    Returns:
        The reductions in the order of `values`; numbers are numbers of the same type again.

    Raises:
        CommunicationError: The keys, shapes or dtypes differ between ranks, or the operation does not exist for one of the
            dtypes; on every rank, naming the keys.
    """
    groups: dict[torch.dtype, _Group] = {}
    forms = {"op": str(op)}

    def bring() -> list[Sequence[object]]:
        groups.update(_grouped(values, op))
        forms.update(sorted((repr(name), _form(value)) for name, value in values.items()))
        small = sum(group.flat.nbytes for group in groups.values()) <= _SMALL
        return [[digest(forms)], [group.flat for group in groups.values()] if small else []]

    told = exchange(communicator, "all_reduce_dict", bring)
    if len({columns[0][0] for columns in told}) > 1:
        raise difference(communicator, "all_reduce_dict: the values", forms, mend=_SAME)
    # Equal digests mean equal sizes, so that all ranks go the same way.
    if told[0][1]:
        brought = [cast("list[Tensor]", columns[1]) for columns in told]  # as above
        results = [reduced(parts, op) for parts in zip(*brought, strict=True)]
    else:
        results = [communicator.all_reduce(group.flat, op) for group in groups.values()]
    found: dict[str, Tensor | int | float | complex] = {}
    for group, flat in zip(groups.values(), results, strict=True):
        found.update(group.apart(flat))
    return {name: cast("V", found[name]) for name in values}  # of the same type


class _Group(NamedTuple):
    """The values of one dtype, as one tensor."""

    flat: Tensor
    numbers: list[str]
    tensors: dict[str, Tensor]

    def apart(self, flat: Tensor) -> Iterator[tuple[str, Tensor | int | float | complex]]:
        """Return the values in a tensor like `flat`, by name; tensors on the devices that theirs are on."""
        count = len(self.numbers)
        yield from zip(self.numbers, flat[:count].tolist(), strict=True)
        parts = _unflat(flat[count:], list(self.tensors.values()))
        for (name, like), part in zip(self.tensors.items(), parts, strict=True):
            yield name, part if part.device == like.device else part.to(like.device)


def _grouped(values: Mapping[str, Tensor | int | float | complex], op: str) -> dict[torch.dtype, _Group]:
    numbers: defaultdict[torch.dtype, list[str]] = defaultdict(list)
    tensors: defaultdict[torch.dtype, dict[str, Tensor]] = defaultdict(dict)
    for name in sorted(values, key=repr):
        value = values[name]
        known = _NUMBERS.get(type(value))
        if known is not None:
            numbers[known].append(name)
        elif isinstance(value, Tensor):
            tensors[value.dtype][name] = value
        else:
            raise CommunicationError(f"a {type(value).__name__} is neither a tensor nor a number", where=repr(name))
    groups = {}
    for dtype in sorted(numbers.keys() | tensors.keys(), key=str):
        names, of_dtype = numbers[dtype], tensors[dtype]
        try:
            column = torch.tensor([values[name] for name in names], dtype=dtype, device="cpu")
            flat = _flat([*([column] if names else []), *of_dtype.values()])
            groups[dtype] = _Group(check_reducible(flat, op), names, of_dtype)
        except (CommunicationError, RuntimeError, ValueError) as error:  # torch's for an int of more than 64 bits
            raise CommunicationError(str(error), where=", ".join(map(repr, [*names, *of_dtype][:5]))) from error
    return groups


def _form(value: object) -> str:
    return str(form_of(value)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def all_reduce_params(
    communicator: Communicator,
    params: Iterable[Tensor],
    coalesce: bool = True,
    bucket_size_mb: float = -1,
    op: str = "sum",
) -> None:
    """Replace tensors by their element-wise reductions over ranks, in place.

    Args:
        communicator: The ranks.
        params: Parameters or buffers, as many and the same on every rank; a generator is read once.
        coalesce: Reduce many as one, which takes fewer collectives.
        bucket_size_mb: Most MiB that are reduced as one (a larger tensor is by itself); all of a dtype where it is not positive.
        op: As of `Communicator.all_reduce`.

    Raises:
        CommunicationError: The ranks disagree, or the operation does not exist for a dtype; on every rank.
    """
    tensors = list(params)
    for bucket in _buckets(tensors, bucket_size_mb) if coalesce else ([tensor] for tensor in tensors):
        flat = communicator.all_reduce(_flat(bucket), op)
        with torch.no_grad():
            for tensor, result in zip(bucket, _unflat(flat, bucket), strict=True):
                tensor.copy_(result)


def _buckets(tensors: Sequence[Tensor], bucket_size_mb: float) -> Iterator[list[Tensor]]:
    groups: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype, tensor.device].append(tensor)
    limit = bucket_size_mb * 2**20 if bucket_size_mb > 0 else float("inf")
    for group in groups.values():
        bucket: list[Tensor] = []
        size = 0
        for tensor in group:
            if bucket and size + tensor.nbytes > limit:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    one_place = len({tensor.device for tensor in tensors}) == 1
    return torch.cat([(tensor if one_place else tensor.cpu()).detach().reshape(-1) for tensor in tensors])


def _unflat(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Split what `_flat` joined into views of it."""
    parts = flat.split_with_sizes([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def sync_random_seed(communicator: Communicator) -> int:
    """Return a random number of 31 bits, the same on every rank; global generators are left alone.

    Raises:
        CommunicationError: The ranks disagree on what they do.
    """
    drawn = torch.tensor(secrets.randbits(31), dtype=torch.int64, device="cpu")
    return int(communicator.broadcast(drawn if communicator.rank == 0 else None))

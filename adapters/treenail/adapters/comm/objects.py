"""Collectives of objects: any value travels as bytes, and what cannot is an error on every rank.

Tensors in objects arrive on the CPU, detached; large parts of a result may share memory with each other, never with what
was given. See `treenail.adapters.comm.packing` for what is pickled: ranks of one run trust each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from treenail.adapters.comm.packing import Packed, describe, pack
from treenail.adapters.comm.unpacking import unpack
from treenail.kernel import CommunicationError, Communicator

T = TypeVar("T")


def all_gather_object(communicator: Communicator, value: T) -> list[T]:
    """Return every rank's object in rank order.

    Args:
        communicator: The ranks.
        value: Any object that can be pickled.

    Raises:
        CommunicationError: A rank's object cannot be sent, or the ranks disagree; on every rank.
    """
    told = exchange(communicator, "all_gather_object", lambda: [[value]])
    return [columns[0][0] for columns in told]  # type: ignore[misc]  # every rank gives a value of one type


def gather_object(communicator: Communicator, value: T, destination: int = 0) -> list[T] | None:
    """Return every rank's object in rank order on rank `destination`, None elsewhere.

    Args:
        communicator: The ranks.
        value: Any object that can be pickled.
        destination: Who receives.

    Raises:
        CommunicationError: A rank's object cannot be sent, the ranks disagree, or there is no such rank; on every rank.
    """
    described: list[Packed] = []

    def bring() -> list[list[object]]:
        described.append(describe([value]))
        return []

    exchange(communicator, "gather_object", bring)
    parts = communicator.gather(pack(described), destination)
    return None if parts is None else [unpack(part)[0][0] for part in parts]  # type: ignore[misc]  # as in all_gather_object


def broadcast_object(communicator: Communicator, value: T | None = None, source: int = 0) -> T:
    """Return the object of rank `source`.

    Args:
        communicator: The ranks.
        value: Any object that can be pickled; ignored on other ranks than `source`.
        source: Who sends.

    Raises:
        CommunicationError: The object cannot be sent, the ranks disagree, or there is no such rank; on every rank.
    """
    sent = communicator.broadcast(_sealed(value) if communicator.rank == source else None, source)
    result: T = _opened(sent, "broadcast_object", source)  # type: ignore[assignment]  # as in all_gather_object
    return result


def broadcast_object_list(communicator: Communicator, values: list[T], source: int = 0) -> None:
    """Put the objects of rank `source`'s list into the lists of all ranks, in place.

    Args:
        communicator: The ranks.
        values: As long on every rank; its content is ignored on other ranks than `source`, and left alone there.
        source: Who sends.

    Raises:
        CommunicationError: An object cannot be sent, lists differ in length, the ranks disagree, or there is no such rank; on
            every rank.
    """
    sends = communicator.rank == source
    described: list[Packed] = []

    def bring() -> list[list[object]]:
        described.append(describe(values if sends else []))
        return [[len(values)]]

    lengths = [columns[0][0] for columns in exchange(communicator, "broadcast_object_list", bring)]
    if len(set(lengths)) > 1:
        raise CommunicationError(
            f"broadcast_object_list: the lists of ranks 0 … {len(lengths) - 1} have {', '.join(map(str, lengths))} items",
            mend="give lists of the same length on every rank",
        )
    sent = communicator.broadcast(pack(described) if sends else None, source)
    if not sends:
        values[:] = unpack(sent)[0]  # type: ignore[assignment]  # as in all_gather_object


def scatter_object_list(communicator: Communicator, values: Sequence[T] | None = None, source: int = 0) -> T:
    """Return this rank's one of the objects of rank `source`.

    Args:
        communicator: The ranks.
        values: One object for each rank; ignored on other ranks than `source`.
        source: Who sends.

    Raises:
        CommunicationError: An object cannot be sent, there is not one for each rank, the ranks disagree, or there is no such
            rank; on every rank.
    """
    contents = None
    if communicator.rank == source:
        given = list(values or ())
        pairs = [_described(value) for value in given]
        failure = next((failure for _, failure in pairs if failure is not None), None)
        if len(given) != communicator.world_size:
            failure = f"{len(given)} objects for {communicator.world_size} ranks; give one for each rank"
        if failure is None:
            contents = [pack(described) for described, _ in pairs]
        else:
            contents = [pack([describe([failure])])] * communicator.world_size
    received = communicator.scatter(contents, source)
    result: T = _opened(received, "scatter_object_list", source)  # type: ignore[assignment]  # as in all_gather_object
    return result


def send_object(communicator: Communicator, value: object, destination: int, tag: int = 0) -> None:
    """Send an object to another rank, which calls `recv_object`.

    Args:
        communicator: The ranks.
        value: Any object that can be pickled.
        destination: Who receives.
        tag: Tells messages apart.

    Raises:
        CommunicationError: The object cannot be sent (the receiver gets the same error), or there is no such rank.
    """
    described, failure = _described(value)
    communicator.isend(pack(described), destination, tag)()
    if failure is not None:
        raise CommunicationError(f"send_object: rank {communicator.rank}: {failure}")


def recv_object(communicator: Communicator, source: int, tag: int = 0) -> object:
    """Return the object that another rank sends by `send_object`.

    Args:
        communicator: The ranks.
        source: Who sends.
        tag: The tag it is sent with.

    Raises:
        CommunicationError: What was to be sent cannot be, there is no such rank, or nothing came.
    """
    return _opened(communicator.irecv(source, tag)(), "recv_object", source)


def exchange(
    communicator: Communicator, doing: str, bring: Callable[[], Sequence[Sequence[object]]]
) -> list[list[list[object]]]:
    """Return the columns of values that every rank brings, in rank order.

    Args:
        communicator: The ranks.
        doing: What the ranks do with them, which must be the same.
        bring: Returns this rank's columns; what it raises is told to the others in their place.

    Raises:
        CommunicationError: A rank raised one, has values that cannot be sent, or does something else; on every rank.
    """
    failure = None
    columns: list[Packed] = []
    try:
        columns = [describe(column) for column in bring()]
    except CommunicationError as error:
        failure = str(error)
    except Exception as error:  # the others wait for this rank
        failure = f"{type(error).__name__}: {error}"
    told = [unpack(part) for part in communicator.all_gather(pack([describe([doing, failure]), *columns]))]
    for rank, each in enumerate(told):
        if each[0][0] != doing:
            raise CommunicationError(
                f"the ranks disagree: rank {communicator.rank} calls {doing}, rank {rank} {each[0][0]}",
                mend="every rank must call the same functions in the same order",
            )
    raise_failures(doing, {rank: str(each[0][1]) for rank, each in enumerate(told) if each[0][1] is not None})
    return [each[1:] for each in told]


def check_rank(communicator: Communicator, rank: object) -> None:
    """Check that a rank is one of the communicator's.

    Raises:
        CommunicationError: It is not.
    """
    if rank not in range(communicator.world_size):
        raise CommunicationError(f"there is no rank {rank!r}", mend=f"ranks are 0 … {communicator.world_size - 1}")


def raise_failures(doing: str, failures: dict[int, str]) -> None:
    """Raise what ranks told of, if any did.

    Raises:
        CommunicationError: There are failures.
    """
    if failures:
        ranks: defaultdict[str, list[int]] = defaultdict(list)
        for rank, failure in failures.items():
            ranks[failure].append(rank)
        listed = [
            f"rank{'s' if len(where) > 1 else ''} {', '.join(map(str, where))}: {failure}"
            for failure, where in ranks.items()
        ]
        more = f"; and {len(listed) - 3} more" if len(listed) > 3 else ""
        raise CommunicationError(f"{doing}: {'; '.join(listed[:3])}{more}")


def _described(value: object) -> tuple[list[Packed], str | None]:
    """Describe a value, or why it cannot be sent: a column of the failure (None), and a column of the value."""
    try:
        return [describe([None]), describe([value])], None
    except CommunicationError as error:
        failure = str(error)
        return [describe([failure])], failure


def _sealed(value: object) -> Tensor:
    return pack(_described(value)[0])


def _opened(packed: Tensor, doing: str, source: int) -> object:
    """Return the value that was sealed on rank `source`."""
    columns = unpack(packed)
    if columns[0][0] is not None:
        raise_failures(doing, {source: str(columns[0][0])})
    return columns[1][0]

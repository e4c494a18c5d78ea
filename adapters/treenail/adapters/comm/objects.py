"""Collectives of objects: any value travels as bytes, and what cannot is an error on every rank.

Tensors in objects arrive on the CPU, detached; large parts of a result may share memory with each other, never with what
was given. See `treenail.adapters.comm.packing` for what is pickled: ranks of one run trust each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from treenail.adapters.comm import telling
from treenail.adapters.comm.arguments import items
from treenail.adapters.comm.envelope import OBJECT, ObjectMessageError, form_of, object_in
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
    sent = communicator.broadcast(_sealed(value)[0] if communicator.rank == source else None, source)
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
        if not isinstance(values, MutableSequence):  # whose items can be replaced
            raise CommunicationError(f"a {type(values).__name__} is no list of objects", mend="give a list")
        described.append(describe(values if sends else []))
        return [[len(values)]]

    told = exchange(communicator, "broadcast_object_list", bring)
    require_equal("broadcast_object_list", ["the number of objects"], [length for (length,) in told])
    sent = communicator.broadcast(pack(described) if sends else None, source)
    if not sends:
        values[:] = unpack(sent)[0]  # type: ignore[assignment]  # as in all_gather_object


def scatter_object_list(communicator: Communicator, values: Iterable[T] | None = None, source: int = 0) -> T:
    """Return this rank's one of the objects of rank `source`.

    Args:
        communicator: The ranks.
        values: One object for each rank; ignored on other ranks than `source`.
        source: Who sends.

    Raises:
        CommunicationError: An object cannot be sent, there is not one for each rank, the ranks disagree, or there is no such
            rank; on every rank.
    """
    size = communicator.world_size

    def bring() -> list[list[object]]:
        given = items(values, "objects")
        if len(given) != size:
            raise CommunicationError(f"{len(given)} objects for {size} ranks", mend="give one for each rank")
        return [[value] for value in given]

    contents = None
    if communicator.rank == source:
        columns, failure = _attempted(bring)
        told = describe([failure])
        contents = [pack([told, column]) for column in columns] or [pack([told])] * size
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
    sealed, failure = _sealed(value)
    communicator.isend(torch.cat([OBJECT, sealed]), destination, tag)()
    if failure is not None:
        raise CommunicationError(f"send_object: rank {communicator.rank}: {failure}")


def recv_object(communicator: Communicator, source: int, tag: int = 0) -> object:
    """Return the object that another rank sends by `send_object`.

    Args:
        communicator: The ranks.
        source: Who sends.
        tag: The tag it is sent with.

    Raises:
        CommunicationError: What was to be sent cannot be, there is no such rank, nothing came, or a tensor.
    """
    receive = communicator.irecv(source, tag)
    try:
        message = receive()
        sealed = object_in(message)
    except ObjectMessageError as error:  # which is no error here
        sealed = error.content
    if sealed is None:
        raise CommunicationError(
            f"rank {source} sent a tensor {form_of(message)}, no object", mend="receive it by irecv, or send an object"
        )
    return _opened(sealed, "recv_object", source)


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
    columns, failure = _attempted(bring)
    told = [unpack(part) for part in communicator.all_gather(pack([describe([doing, failure]), *columns]))]
    for rank, each in enumerate(told):
        if each[0][0] != doing:
            raise CommunicationError(
                f"the ranks disagree: rank {communicator.rank} calls {doing}, rank {rank} {each[0][0]}",
                mend="every rank must call the same functions in the same order",
            )
    raise_failures(doing, {rank: str(each[0][1]) for rank, each in enumerate(told) if each[0][1] is not None})
    return [each[1:] for each in told]


def raise_failures(doing: str, failures: dict[int, str]) -> None:
    """Raise what ranks told of, if any did.

    Raises:
        CommunicationError: There are failures.
    """
    if failures:
        raise CommunicationError(f"{doing}: {telling.of_ranks(failures)}")


def require_equal(doing: str, names: Sequence[str], told: Sequence[Sequence[object]]) -> None:
    """Check that ranks want the same.

    Args:
        doing: What the ranks do, for messages.
        names: Of what must be equal.
        told: The values on each rank, in the order of the names.

    Raises:
        CommunicationError: They are not; the message names what differs, and a rank.
    """
    for rank, values in enumerate(told):
        for name, value, first in zip(names, values, told[0], strict=True):
            if value != first:
                raise CommunicationError(
                    f"{doing}: {name} is {value!r} on rank {rank}, {first!r} on rank 0",
                    mend="give the same on every rank",
                )


def _attempted(bring: Callable[[], Sequence[Sequence[object]]]) -> tuple[list[Packed], str | None]:
    """Return columns, described, or why there are none: the others wait for this rank, whatever it raises."""
    try:
        return [describe(column) for column in bring()], None
    except CommunicationError as error:
        return [], str(error)
    except Exception as error:
        return [], f"{type(error).__name__}: {error}"


def _sealed(value: object) -> tuple[Tensor, str | None]:
    """Return a value packed, or in its place why it cannot be sent; and that reason."""
    columns, failure = _attempted(lambda: [[value]])
    return pack([describe([failure]), *columns]), failure


def _opened(packed: Tensor, doing: str, source: int) -> object:
    """Return the value that was sealed on rank `source`."""
    columns = unpack(packed)
    if columns[0][0] is not None:
        raise_failures(doing, {source: str(columns[0][0])})
    return columns[1][0]

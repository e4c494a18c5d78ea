"""What callers give, checked; a mistake is an error that says what is right."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor

from treenail.adapters.comm.envelope import settled
from treenail.kernel import CommunicationError

T = TypeVar("T")

TAGS = 2**20
"""Tags of messages are below it."""


def check_rank(rank: object, world_size: int) -> None:
    """Check that a rank is one of a world's.

    Raises:
        CommunicationError: It is not.
    """
    if not _is_whole(rank) or not 0 <= rank < world_size:  # type: ignore[operator]  # it is an int
        raise CommunicationError(
            f"there is no rank {rank!r} in a world of {world_size}", mend=f"ranks are 0 … {world_size - 1}"
        )


def check_tag(tag: object) -> None:
    """Check that a message can have a tag.

    Raises:
        CommunicationError: It cannot.
    """
    if not _is_whole(tag) or not 0 <= tag < TAGS:  # type: ignore[operator]  # it is an int
        raise CommunicationError(f"the tag is {tag!r}", mend=f"tags are 0 … {TAGS - 1}")


def check_world_size(world_size: object) -> None:
    """Check that there can be a world of so many ranks.

    Raises:
        CommunicationError: There cannot.
    """
    if not _is_whole(world_size) or world_size < 1:  # type: ignore[operator]  # it is an int
        raise CommunicationError(f"there is no world of {world_size!r} ranks", mend="give a whole number, at least 1")


def check_timeout(timeout: object) -> None:
    """Check that a rank can wait so many seconds.

    Raises:
        CommunicationError: It cannot.
    """
    real = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not real or not 0 < timeout <= threading.TIMEOUT_MAX:  # type: ignore[operator]  # it is a number
        raise CommunicationError(
            f"the timeout is {timeout!r}", mend="give the seconds that a rank waits for another one, more than 0"
        )


def tensors_of_ranks(tensors: Iterable[Tensor] | None, world_size: int) -> list[Tensor]:
    """Return tensors as a list, one for each rank.

    Raises:
        CommunicationError: They are not so many, or no tensors at all.
    """
    given = [settled(tensor) for tensor in items(tensors, "tensors")]
    if len(given) != world_size:
        raise CommunicationError(f"{len(given)} tensors for {world_size} ranks", mend="give one for each rank")
    return given


def items(values: Iterable[T] | None, what: str) -> list[T]:
    """Return the items of a list, or of an iterator, which is read once; none of None.

    Args:
        values: The list.
        what: What is in it, for messages.

    Raises:
        CommunicationError: It is something else, even if that has items: a tensor has rows, a text characters, a dict keys.
    """
    if values is None:
        return []
    if isinstance(values, Tensor | Mapping | str | bytes | bytearray) or not isinstance(values, Iterable):
        raise CommunicationError(f"a {type(values).__name__} is no list of {what}", mend="give a list of them")
    return list(values)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""What the functions of other systems take: groups, as communicators, and tensors that are filled in place."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from treenail.adapters.comm.current import current_communicator
from treenail.adapters.comm.envelope import form_of
from treenail.adapters.comm.torch_world import TorchCommunicator
from treenail.kernel import CommunicationError, Communicator

Group: TypeAlias = Communicator | dist.ProcessGroup | Sequence[int] | None
"""A communicator, a process group of torch, some ranks of `current_communicator`, or None: all of its ranks."""

# Made once each: a process group may need another one beside it, and one of some ranks is made by all of them together.
_MADE: ContextVar[tuple[tuple[object, object, Communicator | None], ...]] = ContextVar("treenail_groups", default=())


def members(group: Group) -> Communicator | None:
    """Return the communicator of a group; None where this rank is not one of the ranks that were named.

    Raises:
        CommunicationError: It is no group, or this process is not in torch's group.
    """
    current = current_communicator()
    if group is None:
        return current
    if isinstance(group, Communicator):
        return group
    if (
        isinstance(group, dist.ProcessGroup)
        and isinstance(current, TorchCommunicator)
        and current.process_group is group
    ):
        return current
    key: object = group if isinstance(group, dist.ProcessGroup) else tuple(group)
    for known, of, communicator in _MADE.get():
        if known == key and (of is current or known is group):
            return communicator
    made = TorchCommunicator(group) if isinstance(group, dist.ProcessGroup) else current.group(group)
    _MADE.set((*_MADE.get(), (key, current, made)))
    return made


def communicator_of(group: Group) -> Communicator:
    """Return the communicator of a group that this rank is in.

    Raises:
        CommunicationError: It is not.
    """
    communicator = members(group)
    if communicator is None:
        raise CommunicationError(
            f"rank {current_communicator().rank} is not in the group {group}",
            mend="call this on the group's ranks only",
        )
    return communicator


def rank_in(group: Group, rank: int | str) -> int:
    """Return a rank's number in the communicator of a group.

    Args:
        group: The group.
        rank: As torch counts: of all ranks where the group is torch's, or some ranks; the communicator's own, else.

    Raises:
        CommunicationError: The rank is not in the group.
    """
    number = int(rank)
    if group is None or isinstance(group, Communicator):
        return number
    ranks = dist.get_process_group_ranks(group) if isinstance(group, dist.ProcessGroup) else list(group)
    if number not in ranks:
        raise CommunicationError(f"rank {number} is not in the group of ranks {', '.join(map(str, ranks))}")
    return ranks.index(number)


def filled(tensor: Tensor, content: Tensor) -> Tensor:
    """Fill a tensor in place with another one of its shape and dtype, and return it.

    Raises:
        CommunicationError: The other one is of another shape or dtype.
    """
    if tensor.shape != content.shape or tensor.dtype != content.dtype:
        raise CommunicationError(
            f"a tensor {form_of(content)} does not fit into {form_of(tensor)}", mend="give one of that shape and dtype"
        )
    with torch.no_grad():
        return tensor.copy_(content)

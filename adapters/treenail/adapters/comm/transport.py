"""The seam below a communicator: what must be different between threads and processes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor


class Transport(Protocol):
    """Moves bytes and tensors between ranks that have agreed on what comes.

    Every method but `start_send` and `start_receive` is called by all ranks, and raises a `CommunicationError` when a rank
    does not come, is gone, or has told of a failure.
    """

    rank: int
    world_size: int
    inline: int
    """Bytes of an envelope up to which `exchange` is one message."""

    def exchange(self, envelope: bytearray, doing: str) -> list[bytearray]:
        """Return every rank's envelope in rank order; `doing` names the collective in messages."""
        ...

    def sums(self, tensor: Tensor) -> bool:
        """Return whether `all_reduce` can add up tensors like this one."""
        ...

    def all_reduce(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over ranks, bit for bit equal on all of them."""
        ...

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Replace a contiguous tensor by rank `source`'s."""
        ...

    def transfer(self, outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
        """Send outgoing[i] to rank i and fill incoming[i] from there; contiguous, on one device, None where nothing is due.

        What goes to the own rank is not among them.
        """
        ...

    def native(self, device: str) -> bool:
        """Return whether tensors on devices of a type are moved as they are; others must be brought to the CPU."""
        ...

    def start_send(self, content: bytearray, destination: int, tag: int) -> Callable[[], None]:
        """Begin to send bytes to another rank; the returned function waits until they are on their way."""
        ...

    def start_receive(self, source: int, tag: int) -> Callable[[], bytearray]:
        """Begin to receive what another rank sends with this tag, in its order; the returned function waits for it."""
        ...

    def group(self, ranks: Sequence[int], number: int) -> Transport | None:
        """Return the transport of some ranks, None if this one is none of them; the number tells groups apart."""
        ...

    def abort(self, reason: str) -> None:
        """Make what other ranks wait for, now or later, raise with the reason."""
        ...

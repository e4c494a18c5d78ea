"""A world of ranks in the threads of one process: a real one, and cheap enough to look at thousands of cases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from torch import Tensor

from treenail.adapters.comm.arguments import check_timeout, check_world_size
from treenail.kernel import CommunicationError

T = TypeVar("T")


class _World:
    """What the threads of a world share; groups of them share the failures."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.changed = threading.Condition()
        self.aborted: str | None = None
        self.ended: dict[int, str] = {}

    def wait(self, ready: Callable[[], bool], doing: str, missing: Callable[[], Sequence[int]]) -> None:
        """Wait, holding `changed`, until something is so.

        Args:
            ready: What is waited for.
            doing: What is being done, for messages.
            missing: World ranks of those who have not come yet.
        """
        deadline = monotonic() + self.timeout
        while not ready():
            if self.aborted is not None:
                raise CommunicationError(f"{doing} was given up: {self.aborted}")
            gone = [rank for rank in missing() if rank in self.ended]
            if gone:
                raise CommunicationError(f"{doing} cannot be done: rank {gone[0]} {self.ended[gone[0]]}")
            left = deadline - monotonic()
            if left <= 0:
                late = ", ".join(map(str, missing()))
                self.aborted = f"{doing} was not done within {self.timeout:g} s: rank {late} did not come"
                self.changed.notify_all()
                raise CommunicationError(self.aborted, mend="does every rank call the same collectives?")
            self.changed.wait(left)


class _Meeting:
    """Where the ranks of one group meet: each brings something and gets what all brought."""

    def __init__(self, world: _World, members: Sequence[int]) -> None:
        self.world = world
        self.members = tuple(members)
        self.arrived: dict[int, object] = {}
        self.result: list[object] = []
        self.round = 0
        self.mail: dict[tuple[int, int, int, int], bytearray] = {}  # (source, destination, tag, number)
        self.sent: Counter[tuple[int, int, int]] = Counter()
        self.asked: Counter[tuple[int, int, int]] = Counter()
        self.groups: dict[tuple[int, tuple[int, ...]], _Meeting] = {}

    def meet(self, rank: int, brought: T, doing: str) -> list[T]:
        """Bring something; return what every rank brought, in rank order, once all are here."""
        with self.world.changed:
            before = self.round
            self.arrived[rank] = brought
            if len(self.arrived) == len(self.members):
                self.result = [self.arrived[each] for each in range(len(self.members))]
                self.arrived = {}
                self.round += 1
                self.world.changed.notify_all()
            else:
                self.world.wait(lambda: self.round > before, doing, self._missing)
            return self.result  # type: ignore[return-value]  # all ranks bring the same kind of thing

    def _missing(self) -> list[int]:
        return [self.members[each] for each in range(len(self.members)) if each not in self.arrived]


class ThreadTransport:
    """The `Transport` between threads."""

    inline = 2048

    def __init__(self, meeting: _Meeting, rank: int) -> None:
        self._meeting = meeting
        self._doing = "the start"
        self.rank = rank
        self.world_size = len(meeting.members)

    @classmethod
    def alone(cls) -> ThreadTransport:
        """Return the transport of a world of one rank."""
        return cls(_Meeting(_World(timeout=0.0), (0,)), 0)

    def end(self, how: str) -> None:
        """Tell the others that this rank takes part in nothing any more."""
        world = self._meeting.world
        with world.changed:
            world.ended[self._meeting.members[self.rank]] = f"{how} after {self._doing}"
            world.changed.notify_all()

    def exchange(self, envelope: bytearray, doing: str) -> list[bytearray]:  # noqa: D102
        self._doing = doing
        return self._meeting.meet(self.rank, envelope, doing)

    def sums(self, tensor: Tensor) -> bool:  # noqa: D102
        return False

    def all_reduce(self, tensor: Tensor) -> None:  # noqa: D102
        raise AssertionError("every rank adds up for itself, in the order of ranks")

    def broadcast(self, tensor: Tensor, source: int) -> None:  # noqa: D102
        sent = self._meeting.meet(self.rank, tensor, self._doing)[source]
        if self.rank != source:
            tensor.copy_(sent)
        self._meeting.meet(self.rank, None, self._doing)  # the source may change its tensor only now

    def transfer(self, outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:  # noqa: D102
        everything = self._meeting.meet(self.rank, outgoing, self._doing)
        for sent, memory in zip(everything, incoming, strict=True):
            if memory is not None:
                found = sent[self.rank]
                if found is None:
                    raise AssertionError("ranks that agreed on a transfer bring what they said")
                memory.copy_(found)
        self._meeting.meet(self.rank, None, self._doing)

    def native(self, device: str) -> bool:  # noqa: D102
        return True

    def start_send(self, content: bytearray, destination: int, tag: int) -> Callable[[], None]:  # noqa: D102
        meeting, route = self._meeting, (self.rank, destination, tag)
        with meeting.world.changed:
            meeting.mail[*route, meeting.sent[route]] = content
            meeting.sent[route] += 1
            meeting.world.changed.notify_all()
        return lambda: None

    def start_receive(self, source: int, tag: int) -> Callable[[], bytearray]:  # noqa: D102
        meeting, route = self._meeting, (source, self.rank, tag)
        letter = (*route, meeting.asked[route])
        meeting.asked[route] += 1

        def wait() -> bytearray:
            with meeting.world.changed:
                doing = f"receiving from rank {source} with tag {tag}"
                meeting.world.wait(lambda: letter in meeting.mail, doing, lambda: [meeting.members[source]])
                return meeting.mail.pop(letter)

        return wait

    def group(self, ranks: Sequence[int], number: int) -> ThreadTransport | None:  # noqa: D102
        if self.rank not in ranks:
            return None
        meeting = self._meeting
        with meeting.world.changed:
            members = [meeting.members[rank] for rank in ranks]
            made = meeting.groups.setdefault((number, tuple(ranks)), _Meeting(meeting.world, members))
        return ThreadTransport(made, list(ranks).index(self.rank))

    def abort(self, reason: str) -> None:  # noqa: D102
        world = self._meeting.world
        with world.changed:
            world.aborted = world.aborted or reason
            world.changed.notify_all()


def thread_world(world_size: int, timeout: float = 60.0) -> list[ThreadTransport]:
    """Return the transports of the ranks of a world in this process; each is for one thread.

    Args:
        world_size: Number of ranks, at least 1.
        timeout: Seconds that a rank waits for another one.

    Raises:
        CommunicationError: There is no such world, or no such timeout.
    """
    check_world_size(world_size)
    check_timeout(timeout)
    meeting = _Meeting(_World(timeout), range(world_size))
    return [ThreadTransport(meeting, rank) for rank in range(world_size)]

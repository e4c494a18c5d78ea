"""A world of processes: torch's process groups, and gloo's beside them."""

from __future__ import annotations

import atexit
import gc
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from treenail.adapters.comm.arguments import TAGS, check_timeout
from treenail.adapters.comm.collectives import Collectives
from treenail.adapters.comm.envelope import flat_bytes, length_of
from treenail.adapters.comm.threads import ThreadTransport
from treenail.adapters.comm.watch import Watch
from treenail.kernel import CommunicationError

_FIRST = 1024
"""Bytes of a message that are sent before its length is known."""

_SUMMED = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
)
"""What gloo and NCCL add up."""


class TorchCommunicator(Collectives):
    """A `Communicator` over a process group of torch: gloo, NCCL, or any other backend.

    Tensors are moved by the group where its backend can, else through the host. What ranks tell each other goes over the
    host always, so that a group without a backend for the CPU gets a gloo group beside it.

    Args:
        group: The process group; torch's default group when None.
        timeout: Seconds that a rank waits for another one.

    Raises:
        CommunicationError: There is no process group, this process is not one of its ranks, or there is no such timeout.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, timeout: float = 1800.0) -> None:
        check_timeout(timeout)
        if not dist.is_available() or not dist.is_initialized():
            raise CommunicationError(
                "torch.distributed has not been initialised in this process",
                mend="start it by `treenail launch`, or call torch.distributed.init_process_group first",
            )
        group = group or dist.group.WORLD
        if group is None or dist.get_rank(group) < 0:
            raise CommunicationError(
                "this process is no rank of the group", mend="make the communicator on its ranks only"
            )
        transport = TorchTransport.over(group, range(dist.get_world_size(group)), timeout)
        super().__init__(transport)
        self._over_torch = transport

    @property
    def process_group(self) -> dist.ProcessGroup:
        """The process group of torch whose ranks these are."""
        return self._over_torch.process_group

    def cause_of(self, error: BaseException) -> CommunicationError | None:
        """Return which rank's failure an error comes from that torch's own collectives raised (DDP's); None for any other."""
        return self._over_torch.cause_of(error)


class TorchTransport:
    """The `Transport` between processes.

    Args:
        host: Moves tensors of the CPU.
        order: Ranks in the groups of ranks 0, 1, … here.
        timeout: Seconds that a rank waits for another one.
        name: The same on all ranks, and no other group's.
        group: torch's group, where it moves tensors of other devices.
    """

    def __init__(
        self, host: _Peers, order: Sequence[int], timeout: float, name: str, group: dist.ProcessGroup | None = None
    ) -> None:
        self._groups = _Groups(host, group)
        weakref.finalize(self, self._groups.release).atexit = False
        atexit.register(self._groups.end)
        self._order = tuple(order)
        self._timeout = timeout
        self._name = name
        self._devices = frozenset() if group is None else _devices(group)
        self.rank = self._order.index(host.rank())
        self.world_size = len(self._order)
        self.inline = 2048 if self.world_size <= 64 else 512
        self._watch = Watch(_get_default_store(), name, self.rank, self.world_size, timeout)
        self._own = ThreadTransport.alone()  # a backend sends nothing from a rank to itself
        self._sending: dict[object, object] = {}
        self._receiving: defaultdict[tuple[int, int], deque[_Letter]] = defaultdict(deque)

    @classmethod
    def over(cls, group: dist.ProcessGroup, order: Sequence[int], timeout: float) -> TorchTransport:
        """Return the transport over a process group of torch, with a gloo group beside it if it has none for the CPU."""
        store = _get_default_store()
        # Ranks that make several communicators of a group make them in the same order.
        count = store.add(f"treenail/made/{group.group_name}/{group.rank()}", 1)
        name = f"treenail/{group.group_name}/{count}"
        host: _Peers = group if "cpu" in _devices(group) else _gloo(store, name, group.rank(), group.size(), timeout)
        return cls(host, order, timeout, name, group)

    @property
    def process_group(self) -> dist.ProcessGroup:
        """Torch's group, over which this is.

        Raises:
            CommunicationError: The process is ending.
        """
        if self._groups.torchs is None:
            raise CommunicationError("the process is ending")
        return self._groups.torchs

    def cause_of(self, error: BaseException) -> CommunicationError | None:
        """Return which rank's failure an error of torch.distributed comes from; None for any other error."""
        return self._watch.cause_of(error)

    # Collectives

    def exchange(self, envelope: bytearray, doing: str) -> list[bytearray]:  # noqa: D102
        self._watch.begin(doing)
        starts = self._all_gather(envelope[: self.inline], self.inline)
        rest = max(map(length_of, starts)) - self.inline
        if rest <= 0:
            return starts
        ends = self._all_gather(envelope[self.inline :], rest)
        return [start + end for start, end in zip(starts, ends, strict=True)]

    def _all_gather(self, content: bytearray, size: int) -> list[bytearray]:
        received = [bytearray(size) for _ in range(self.world_size)]
        memory: list[Tensor] = [torch.empty(0)] * self.world_size
        for rank, each in zip(self._order, received, strict=True):
            memory[rank] = torch.frombuffer(each, dtype=torch.uint8)
        mine = torch.frombuffer(content.ljust(size, b"\0"), dtype=torch.uint8)
        self._watch.run(lambda: self._groups.host.allgather([memory], [mine]))
        return received

    def sums(self, tensor: Tensor) -> bool:  # noqa: D102
        return tensor.dtype in _SUMMED

    def all_reduce(self, tensor: Tensor) -> None:  # noqa: D102
        self._watch.run(lambda: self._peers(tensor).allreduce([tensor]))

    def broadcast(self, tensor: Tensor, source: int) -> None:  # noqa: D102
        self._watch.run(lambda: self._peers(tensor).broadcast(flat_bytes(tensor), self._order[source]))

    def transfer(self, outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:  # noqa: D102
        moved = next((tensor for tensor in (*outgoing, *incoming) if tensor is not None), None)
        if moved is None:
            return
        if self._groups.torchs is not None and moved.device.type in self._devices - {"cpu"}:
            # NCCL must know all of them before it begins with one.
            works = self._watch.guard(lambda: dist.batch_isend_irecv(self._operations(outgoing, incoming)))
        else:
            host = self._groups.host
            messages = [(host.recv, incoming), (host.send, outgoing)]
            works = [
                self._message(function, flat_bytes(tensor), rank, 2 * TAGS)
                for function, tensors in messages
                for rank, tensor in enumerate(tensors)
                if tensor is not None
            ]
        for work in works:
            self._watch.wait(work)

    def _operations(self, outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> list[dist.P2POp]:
        return [
            dist.P2POp(function, flat_bytes(tensor), group=self._groups.torchs, group_peer=self._order[rank])
            for rank in range(self.world_size)
            for function, tensor in ((dist.irecv, incoming[rank]), (dist.isend, outgoing[rank]))
            if tensor is not None
        ]

    def native(self, device: str) -> bool:  # noqa: D102
        return device == "cpu" or device in self._devices

    def _peers(self, tensor: Tensor) -> _Peers:
        return self._groups.host if tensor.device.type == "cpu" or self._groups.torchs is None else self._groups.torchs

    # Messages

    def start_send(self, content: bytearray, destination: int, tag: int) -> Callable[[], None]:
        """Begin to send bytes as a message of a known length and, where there is more, another one of the rest."""
        if destination == self.rank:
            return self._own.start_send(content, 0, tag)
        first = torch.frombuffer(content[:_FIRST].ljust(_FIRST, b"\0"), dtype=torch.uint8)
        parts = [first, *([torch.frombuffer(content, dtype=torch.uint8)[_FIRST:]] if len(content) > _FIRST else [])]
        works = [
            self._message(self._groups.host.send, part, destination, 2 * tag + place)
            for place, part in enumerate(parts)
        ]
        letter = object()
        self._sending[letter] = (works, parts)  # they must live until they are sent, even if nobody keeps `wait`

        def wait() -> None:
            for work in works:
                self._watch.wait(work)
            self._sending.pop(letter, None)

        return wait

    def start_receive(self, source: int, tag: int) -> Callable[[], bytearray]:
        """Begin to receive the start of a message; the rest is asked for once its length is known."""
        if source == self.rank:
            return self._own.start_receive(0, tag)
        first = bytearray(_FIRST)
        work = self._message(self._groups.host.recv, torch.frombuffer(first, dtype=torch.uint8), source, 2 * tag)
        letters = self._receiving[source, tag]
        letter = _Letter(first, work)
        letters.append(letter)

        def wait() -> bytearray:
            while letter.content is None:  # what is left of earlier ones comes first
                self._finish(letters.popleft(), source, tag)
            return letter.content

        return wait

    def _finish(self, letter: _Letter, source: int, tag: int) -> None:
        self._watch.doing = f"receiving from rank {source} with tag {tag}"
        self._watch.wait(letter.work)
        content = letter.first
        size = length_of(content)
        if size > _FIRST:
            rest = bytearray(size - _FIRST)
            self._watch.wait(
                self._message(self._groups.host.recv, torch.frombuffer(rest, dtype=torch.uint8), source, 2 * tag + 1)
            )
            content = content + rest
        letter.content = content[:size]

    def _message(
        self, function: Callable[[list[Tensor], int, int], dist.Work], part: Tensor, peer: int, tag: int
    ) -> dist.Work:
        return self._watch.guard(lambda: function([part], self._order[peer], tag))

    # Groups

    def group(self, ranks: Sequence[int], number: int) -> TorchTransport | None:
        """Return the transport of some ranks: over a group of torch's where these are all of the world's, else over gloo."""
        if self._groups.torchs is not None and self.world_size == dist.get_world_size():
            # torch sorts the ranks of a group, and every rank of the world takes part in making one.
            members = [dist.get_global_rank(self._groups.torchs, self._order[rank]) for rank in ranks]
            made = dist.new_group(sorted(members))
            if self.rank not in ranks or made is None:
                return None
            return TorchTransport.over(made, [dist.get_group_rank(made, each) for each in members], self._timeout)
        if self.rank not in ranks:
            return None
        # torch would name a group of a group by how many this process has, in which the ranks differ.
        name = f"{self._name}/{number}"
        place = list(ranks).index(self.rank)
        host = _gloo(_get_default_store(), f"{name}/{list(ranks)}", place, len(ranks), self._timeout)
        self._groups.others.append(host)
        return TorchTransport(host, range(len(ranks)), self._timeout, f"{name}/{list(ranks)}")

    def abort(self, reason: str) -> None:  # noqa: D102
        self._watch.abort(reason)


class _Groups:
    """The groups of a transport, which are let go when it is, or when the process ends."""

    def __init__(self, host: _Peers, torchs: dist.ProcessGroup | None) -> None:
        self._host: _Peers | None = host
        self.torchs = torchs
        self.others: list[_Peers] = []
        """Those of its groups: who lets go of one early breaks it for ranks that are still connecting."""

    @property
    def host(self) -> _Peers:
        """What moves tensors of the CPU."""
        if self._host is None:
            raise CommunicationError("the process is ending")
        return self._host

    def release(self) -> None:
        """Let go of them."""
        atexit.unregister(self.end)
        self._host = self.torchs = None
        self.others.clear()

    def end(self) -> None:
        """Let the process end without them.

        gloo's threads free what they have moved only after whoever waits for it goes on, and need the interpreter for it. One
        that comes too late, since the interpreter ends, takes the process down; so they are joined before, with their group.
        """
        # A model over DistributedDataParallel that nothing refers to but itself keeps a group, too. If it were the last to, it
        # would join the threads without leaving the interpreter to them: for ever.
        held = (self._host, self.torchs, list(self.others))
        gc.collect()
        self.release()
        del held


class _Peers(Protocol):
    """What is used of torch's process groups and of their backends, whose own methods are hardly typed."""

    def rank(self) -> int: ...
    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], /) -> dist.Work: ...
    def allreduce(self, tensors: list[Tensor], /) -> dist.Work: ...
    def broadcast(self, tensor: Tensor, root: int, /) -> dist.Work: ...
    def send(self, tensors: list[Tensor], destination: int, tag: int, /) -> dist.Work: ...
    def recv(self, tensors: list[Tensor], source: int, tag: int, /) -> dist.Work: ...


class _Letter:
    """A message on its way here."""

    def __init__(self, first: bytearray, work: dist.Work) -> None:
        self.first = first
        self.work = work
        self.content: bytearray | None = None


def _gloo(store: Store, name: str, rank: int, world_size: int, timeout: float) -> _Peers:
    made = dist.ProcessGroupGloo(PrefixStore(name, store), rank, world_size, timedelta(seconds=timeout))
    return cast("_Peers", made)  # torch types some of its methods, and not as it documents them


def backends_of(group: dist.ProcessGroup) -> dict[str, str]:
    """Return the backend of a group for each type of device: cpu: gloo, cuda: nccl."""
    return dict(each.split(":") for each in dist.get_backend_config(group).split(",") if ":" in each)


def _devices(group: dist.ProcessGroup) -> frozenset[str]:
    """Return the types of devices whose tensors a group moves as they are; gloo takes those of a GPU through the host."""
    return frozenset(device for device, backend in backends_of(group).items() if device == "cpu" or backend != "gloo")

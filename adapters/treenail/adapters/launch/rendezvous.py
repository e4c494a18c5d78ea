"""How the launchers of torchrun (its agents) meet, on machines that are known from the start and on those that come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final
from uuid import uuid4

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousGracefulExitError,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

from treenail.adapters.launch.endpoint import Place
from treenail.adapters.launch.environment import LOOPBACK, set_variables
from treenail.adapters.launch.loopback import TCPStore, host_store, reach_store
from treenail.kernel import CommunicationError, ConfigError

TIMEOUT: Final = 900.0  # seconds to wait for the other machines; torchrun's

_PATIENCE: Final = timedelta(seconds=60)  # to read what another agent is about to write; torchrun's
_UNSHARED: Final = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


class FixedRendezvous(RendezvousHandler):
    """Machines that are all named beforehand; node 0 holds the stores.

    torch's own "static" rendezvous listens on all interfaces even where there is one machine, and its ranks find the keys of the
    attempt before in their store. Here loopback is enough for loopback, and each attempt has a store of its own.

    Args:
        where: Node 0, as the others reach it, and where the agents meet; port 0 takes a free one, which is of use with one
            machine only.
        node_rank: This machine's number.
        nodes: How many there are.
        run_id: Names the run in messages of torch.
        timeout: Seconds to wait for the other machines.
    """

    def __init__(self, where: Place, node_rank: int, nodes: int, run_id: str, timeout: float = TIMEOUT) -> None:
        self._host = where.host
        self._node_rank = node_rank
        self._nodes = nodes
        self._run_id = run_id
        self._timeout = timeout
        self._round = 0
        self._agents = (host_store if node_rank == 0 else reach_store)(where.host, where.port, timeout)
        self._ranks: TCPStore | None = None  # of this attempt; kept, for it ends with its last reference
        self.launch_id = _agree_on_id(self._agents)

    def get_backend(self) -> str:
        """Return the name of this kind of rendezvous."""
        return "fixed"

    @property
    def use_agent_store(self) -> bool:
        """True: ranks listen nowhere, the store is node 0's agent's."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Return this machine's number and where the ranks of this attempt meet."""
        self._round += 1
        store = PrefixStore(f"round-{self._round}", self._agents)
        self._ranks, where = _meeting_of_ranks(store, self._node_rank, self._host, self._timeout)
        return RendezvousInfo(store, self._node_rank, self._nodes, where)

    def is_closed(self) -> bool:
        """Return False: it is open as long as its process lives."""
        return False

    def set_closed(self) -> None:
        """Do nothing, for the same reason."""

    def num_nodes_waiting(self) -> int:
        """Return 0: no machine comes later."""
        return 0

    def leave(self) -> None:
        """Do nothing: without this machine, the others cannot go on."""

    def changes(self) -> bool:
        """Return False, for the same reason."""
        return False

    def get_run_id(self) -> str:
        """Return what names the run."""
        return self._run_id

    def shutdown(self) -> bool:
        """Release the stores."""
        self._ranks = None
        return True


class NotNeededError(Exception):
    """The run ended while this machine waited for a place in it."""


class ElasticRendezvous(RendezvousHandler):
    """Machines that come and go, and meet at an endpoint: torch's c10d rendezvous, with a store of its own for each attempt.

    In torch's, all attempts share one store for the ranks. A machine that joins later waits in vain to be told where it is, for
    that is said in the first attempt only; and ranks find the keys of the attempt before.

    Args:
        where: The endpoint. The machine that it names holds the store.
        least: As soon as so many machines are there, the ranks start.
        most: So many may take part.
        run_id: The same on all machines.
        last_call: Seconds to wait for further machines when the least are there.
        timeout: Seconds to wait for the least.

    Raises:
        ConfigError: The endpoint's machine is this one, and may not listen there.
        CommunicationError: Nobody listens at the endpoint.
    """

    def __init__(
        self, where: Place, least: int, most: int, run_id: str, last_call: float, timeout: float = TIMEOUT
    ) -> None:
        self._where = where
        self._least = least
        self._timeout = timeout
        self._agents = _open_endpoint(where, timeout)
        self._agents.set_timeout(_PATIENCE)
        with self._said_plainly():
            self.launch_id = _agree_on_id(PrefixStore(run_id, self._agents))
            self._machines = DynamicRendezvousHandler.from_backend(
                run_id,
                self._agents,
                C10dRendezvousBackend(self._agents, run_id),
                least,
                most,
                LOOPBACK if where.host == LOOPBACK else None,
                RendezvousTimeout(timedelta(seconds=timeout), timedelta(seconds=last_call)),
            )
        self._round: PrefixStore | None = None
        self._ranks: TCPStore | None = None  # where this machine has rank 0

    def get_backend(self) -> str:
        """Return the name of this kind of rendezvous."""
        return "elastic"

    @property
    def use_agent_store(self) -> bool:
        """True: ranks listen nowhere, the store is that of an agent."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the machines of the next attempt; return this one's number and where the ranks meet.

        Raises:
            CommunicationError: Too few machines came, or the endpoint is gone.
            NotNeededError: There were enough machines until the end of the run.
        """
        self._ranks = None  # of the attempt before
        with self._said_plainly():
            # Let torch say anew in each attempt where rank 0 is.
            with set_variables({_UNSHARED: "1"}):
                info = self._machines.next_rendezvous()
            said = info.bootstrap_store_info
            assert said is not None
            self._round = PrefixStore("treenail", info.store)
            self._ranks, where = _meeting_of_ranks(self._round, info.rank, said.master_addr, self._timeout)
        return RendezvousInfo(info.store, info.rank, info.world_size, where)

    def is_closed(self) -> bool:
        """Return whether no machine may come any more."""
        with self._said_plainly():
            return bool(self._machines.is_closed())

    def set_closed(self) -> None:
        """Let no further machine come."""
        with self._said_plainly():
            self._machines.set_closed()

    def num_nodes_waiting(self) -> int:
        """Return how many machines wait for the next attempt."""
        with self._said_plainly():
            return int(self._machines.num_nodes_waiting())

    def leave(self) -> None:
        """Tell the others that this machine goes, before its ranks stop and theirs with them."""
        if self._round is not None:
            with suppress(dist.DistError):  # they notice otherwise
                self._round.set("leaving", "")

    def changes(self) -> bool:
        """Return whether machines of this attempt leave, or others wait to join."""
        with self._said_plainly():
            leaving = self._round is not None and self._round.check(["leaving"])
        return leaving or self.num_nodes_waiting() > 0

    def get_run_id(self) -> str:
        """Return what names the run."""
        return str(self._machines.get_run_id())

    def shutdown(self) -> bool:
        """Let no further machine come, and release the stores."""
        self._ranks = None
        return bool(self._machines.shutdown())

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        """Raise torch's errors as ours."""
        try:
            yield
        except RendezvousGracefulExitError as error:
            raise NotNeededError from error
        except RendezvousClosedError as error:
            raise CommunicationError(
                "the run has ended, and takes no machine any more",
                where=str(self._where),
                mend="start it anew on all machines; treenail train goes on with --resume",
            ) from error
        except (RendezvousConnectionError, dist.DistError) as error:
            cause = str(error.__cause__ or error).partition("\n")[0]
            raise CommunicationError(
                f"the meeting place of the machines is lost: {cause}",
                where=str(self._where),
                mend="its machine has to stay until the end; start all anew: treenail train goes on with --resume",
            ) from error
        except RendezvousError as error:
            raise CommunicationError(
                f"the machines did not meet within {self._timeout:g} s",
                where=str(self._where),
                mend=f"see whether at least {self._least} were started, with the same --rdzv-id",
            ) from error


Meeting = FixedRendezvous | ElasticRendezvous


def _open_endpoint(where: Place, timeout: float) -> TCPStore:
    """Host the endpoint's store where its machine is this one, unless another agent of this machine does; else reach it."""
    if _is_here(where.host):
        try:
            return host_store(*where, timeout)
        except ConfigError as error:
            try:
                return reach_store(*where, min(timeout, _PATIENCE.total_seconds()))
            except CommunicationError:
                raise error from None  # it is not an agent that has the port
    return reach_store(
        *where, timeout, who="the machine of --rdzv-endpoint", mend="start it; the address must lead to it"
    )


def _is_here(host: str) -> bool:
    """Return whether a host is this machine, which is so where its address can be bound to."""
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False  # not known yet
    for family, kind, protocol, _, address in addresses:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False


def _meeting_of_ranks(
    store: PrefixStore, node_rank: int, host: str, timeout: float
) -> tuple[TCPStore | None, RendezvousStoreInfo]:
    """Host the ranks' store of an attempt on node 0, and tell the others its port."""
    ranks = None
    if node_rank == 0:
        ranks = host_store(host, 0, timeout)
        store.set("port", str(ranks.port))
    store.wait(["port"], timedelta(seconds=timeout))
    return ranks, RendezvousStoreInfo(host, int(store.get("port")))


def _agree_on_id(store: TCPStore | PrefixStore) -> str:
    """Return what no other launch has: whoever comes first says it."""
    agreed: bytes = store.compare_set("launch-id", "", uuid4().hex)
    return agreed.decode()


__all__ = ["ElasticRendezvous", "FixedRendezvous", "Meeting", "NotNeededError"]

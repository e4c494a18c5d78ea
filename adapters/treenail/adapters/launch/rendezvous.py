"""How the launchers of torchrun (its agents) meet: a rendezvous of machines that are known from the start."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from treenail.adapters.launch.loopback import TCPStore, host_store, reach_store

NAME: Final = "treenail"
"""The rendezvous backend's name in torch's registry."""


class FixedRendezvous(RendezvousHandler):
    """Machines that are all named beforehand; node 0 holds the stores.

    torch's own "static" rendezvous listens on all interfaces even where there is one machine, and its ranks find the keys of the
    attempt before in their store. Here loopback is enough for loopback, and each attempt has a store of its own.

    Args:
        host: Node 0, as the others reach it.
        port: Where the agents meet; 0 takes a free one, which is of use with one machine only.
        node_rank: This machine's number.
        nodes: How many there are.
        run_id: Names the run in messages of torch.
        timeout: Seconds to wait for the other machines.
    """

    def __init__(self, host: str, port: int, node_rank: int, nodes: int, run_id: str, timeout: float) -> None:
        self._host = host
        self._node_rank = node_rank
        self._nodes = nodes
        self._run_id = run_id
        self._timeout = timeout
        self._round = 0
        self._agents = (host_store if node_rank == 0 else reach_store)(host, port, timeout)
        self._ranks: TCPStore | None = None  # of this attempt; kept, for it ends with its last reference

    def get_backend(self) -> str:
        """Return the name of this kind of rendezvous."""
        return NAME

    @property
    def use_agent_store(self) -> bool:
        """True: ranks listen nowhere, the store is node 0's agent's."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Return this machine's number and where the ranks of this attempt meet."""
        self._round += 1
        store = PrefixStore(f"round-{self._round}", self._agents)
        if self._node_rank == 0:
            self._ranks = host_store(self._host, 0, self._timeout)
            store.set("port", str(self._ranks.port))
        store.wait(["port"], timedelta(seconds=self._timeout))
        where = RendezvousStoreInfo(self._host, int(store.get("port")))
        return RendezvousInfo(store, self._node_rank, self._nodes, where)

    def is_closed(self) -> bool:
        """Return False: it is open as long as its process lives."""
        return False

    def set_closed(self) -> None:
        """Do nothing, for the same reason."""

    def num_nodes_waiting(self) -> int:
        """Return 0: no machine comes later."""
        return 0

    def get_run_id(self) -> str:
        """Return what names the run."""
        return self._run_id

    def shutdown(self) -> bool:
        """Release the stores."""
        self._ranks = None
        return True


def register() -> None:
    """Make the rendezvous known to torchrun, which finds backends by name in a registry of its own."""
    rendezvous_handler_registry.register(NAME, _create)


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    host, _, port = parameters.endpoint.rpartition(":")
    return FixedRendezvous(
        host,
        int(port),
        int(parameters.config["rank"]),
        parameters.max_nodes,
        parameters.run_id,
        float(parameters.config["timeout"]),
    )


__all__ = ["NAME", "FixedRendezvous", "register"]

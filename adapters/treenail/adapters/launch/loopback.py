"""Meeting places of processes that listen on loopback only, where all processes are on one machine.

torch's TCPStore listens on every interface of the machine; given a socket that already listens, it takes that one.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final

# torch documents it under this name, without a word for type checkers.
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from treenail.adapters.launch.environment import LOOPBACK, set_variables
from treenail.kernel import CommunicationError, ConfigError

_BACKLOG: Final = 4096  # all ranks may come at once


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback interface."""
    return host in ("localhost", "::1") or host.startswith("127.")


def host_store(host: str, port: int, timeout: float) -> TCPStore:
    """Begin to listen, and return the store that others reach there.

    Args:
        host: Loopback, or an address under which other machines reach this one; then every interface listens.
        port: 0 takes a free one.
        timeout: Seconds that reading a key waits.

    Raises:
        ConfigError: The port is taken, or not allowed.
    """
    here = is_loopback(host)
    try:
        if here:
            listener = socket.create_server((LOOPBACK, port), backlog=_BACKLOG)
        elif socket.has_dualstack_ipv6():
            listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
        else:
            listener = socket.create_server(("", port), backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"port {port} is taken by another process" if taken else f"cannot listen on port {port}: {error.strerror}",
            where=f"{host}:{port}",
            mend="choose another one (--master-port or MASTER_PORT), or none: then a free one is found",
        ) from error
    port = listener.getsockname()[1]
    return TCPStore(
        LOOPBACK if here else host,
        port,
        is_master=True,
        timeout=timedelta(seconds=timeout),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def reach_store(
    host: str,
    port: int,
    timeout: float,
    *,
    who: str = "rank 0 or its launcher",
    mend: str = "see what became of rank 0; MASTER_ADDR and MASTER_PORT must lead to it",
) -> TCPStore:
    """Return the store that another process hosts, as soon as it does.

    Args:
        host: Where it listens.
        port: There.
        timeout: Seconds to wait for it, and that reading a key waits.
        who: Hosts it, for the error.
        mend: What to do where it does not, for the error.

    Raises:
        CommunicationError: Nobody listened there within the timeout, or something else than a store.
    """
    deadline = time.monotonic() + timeout
    while True:  # torch would do so itself, with a page of C++ frames for each attempt
        try:
            socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1)).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise CommunicationError(
                    f"nobody listened within {timeout:g} s, so {who} is not there: {error}",
                    where=f"{host}:{port}",
                    mend=mend,
                ) from error
        time.sleep(0.1)
    store = _open_store(host, port, timeout)
    if isinstance(store, TCPStore):
        return store
    first_line = str(store or f"it did not answer within {timeout:g} s").partition("\n")[0]
    raise CommunicationError(
        f"what listens there is not {who}: {first_line}", where=f"{host}:{port}", mend=mend
    ) from store


def _open_store(host: str, port: int, timeout: float) -> TCPStore | DistError | None:
    """Return the store; the error, if that is none; None if nothing answered: torch would wait for ever."""
    opened: list[TCPStore | DistError] = []

    def open_store() -> None:
        seconds = timedelta(seconds=timeout)
        try:
            opened.append(TCPStore(host, port, is_master=False, timeout=seconds, wait_for_workers=False))
        except DistError as error:
            opened.append(error)

    thread = threading.Thread(target=open_store, name="reach-store", daemon=True)
    thread.start()
    thread.join(timeout)
    return opened[0] if opened else None


def loopback_interface() -> str:
    """Return the name of the loopback interface: lo on Linux, lo0 on macOS and BSD."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name in ("lo", "lo0")), "lo")


def collectives_on_loopback() -> AbstractContextManager[None]:
    """While inside, gloo and NCCL bind to loopback, unless the environment names another interface."""
    unsaid = {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"} - os.environ.keys()
    return set_variables(dict.fromkeys(unsaid, loopback_interface()))


__all__ = ["TCPStore", "collectives_on_loopback", "host_store", "is_loopback", "loopback_interface", "reach_store"]

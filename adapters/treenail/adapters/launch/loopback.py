"""Meeting places of processes that listen on loopback only, where all processes are on one machine.

torch's TCPStore listens on every interface of the machine; given a socket that already listens, it takes that one.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

# torch documents it under this name, without a word for type checkers.
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from treenail.adapters.launch.environment import LOOPBACK
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


def reach_store(host: str, port: int, timeout: float) -> TCPStore:
    """Return the store that another process hosts, as soon as it does.

    Raises:
        CommunicationError: Nobody listened there within the timeout.
    """
    deadline = time.monotonic() + timeout
    while True:  # torch would do so itself, with a page of C++ frames for each attempt
        try:
            socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1)).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise CommunicationError(
                    f"nobody listened within {timeout:g} s, so rank 0 or its launcher is not there: {error}",
                    where=f"{host}:{port}",
                    mend="see what became of rank 0; MASTER_ADDR and MASTER_PORT must lead to it",
                ) from error
        time.sleep(0.1)
    return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=timeout), wait_for_workers=False)


def loopback_interface() -> str:
    """Return the name of the loopback interface: lo on Linux, lo0 on macOS and BSD."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name in ("lo", "lo0")), "lo")


@contextmanager
def collectives_on_loopback() -> Iterator[None]:
    """While inside, gloo and NCCL bind to loopback, unless the environment names another interface."""
    added = {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"} - os.environ.keys()
    os.environ.update(dict.fromkeys(added, loopback_interface()))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


__all__ = ["TCPStore", "collectives_on_loopback", "host_store", "is_loopback", "loopback_interface", "reach_store"]

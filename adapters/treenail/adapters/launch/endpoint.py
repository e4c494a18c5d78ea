"""Where machines meet: a host and a port."""

from __future__ import annotations

from typing import NamedTuple

from treenail.adapters.launch.environment import LOOPBACK
from treenail.adapters.launch.loopback import is_loopback
from treenail.kernel import ConfigError


class Place(NamedTuple):
    """Where something listens.

    Args:
        host: A name or an address; 127.0.0.1 for whatever is loopback, because that is what stores listen on.
        port: There.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(endpoint: str) -> Place:
    """Return the place that ``host:port``, or ``[IPv6 address]:port``, names.

    Raises:
        ConfigError: It names none; says why.
    """
    host, _, port = endpoint.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or host == "[]":
        wrong = "has no host" if port != endpoint.strip() else "has no port"
    elif "/" in host or any(character.isspace() for character in host):
        wrong = "is no host and port, but an address of another kind"
    elif ":" in host and not bracketed:
        wrong = "has more than one colon; an IPv6 address stands in brackets, as in [fd00::1]:29500"
    elif not port.isascii() or not port.isdecimal():
        wrong = f"has the port {port!r}, which is no number"
    elif not 0 < int(port) < 2**16:
        wrong = f"has the port {port}; there are 1 to 65535"
    else:
        return place(host[1:-1] if bracketed else host, int(port))
    raise ConfigError(
        f"{endpoint!r} {wrong}", where="--rdzv-endpoint", mend="give HOST:PORT, the same on all machines: node0:29500"
    )


def place(host: str, port: int) -> Place:
    """Return a place; loopback has several names, and stores listen under one of them."""
    return Place(LOOPBACK if is_loopback(host) else host, port)


__all__ = ["Place", "parse_endpoint", "place"]

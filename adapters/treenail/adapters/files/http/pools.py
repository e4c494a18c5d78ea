"""Connections to HTTP servers that cannot be kept waiting for ever, nor led to addresses they must not reach.

Imports urllib3, so it is imported where it is used.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Collection
from functools import partial
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

from treenail.adapters.files.http.urls import Reach, Url, reach_of
from treenail.kernel import FileError

MAX_HOSTS = 16


class Paced(io.RawIOBase):
    """Bytes from a socket, as long as they come at a certain speed.

    A socket's own timeout begins anew with every byte. Here, time spent waiting is summed up over a window, and a window
    that brought too little is the last. The first bytes are waited for as long as the socket's own timeout allows.

    Args:
        raw: What is read.
        window: In seconds.
        slowest: In bytes per second.
    """

    def __init__(self, raw: io.RawIOBase, *, window: float, slowest: float) -> None:
        self._raw = raw
        self._window = window
        self._slowest = slowest
        self._waited = 0.0
        self._got = 0
        self._began = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:  # Any: typeshed's WriteableBuffer has no name at run time
        """Read into a buffer.

        Raises:
            TimeoutError: Nothing came, or too little.
        """
        since = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._began:
            self._waited += time.monotonic() - since
            self._got += count or 0
            if count and self._waited >= self._window:
                if self._got < self._slowest * self._waited:
                    raise TimeoutError(f"{self._got} bytes came in {self._waited:.1f} s")
                self._waited, self._got = 0.0, 0
        self._began = True
        return count

    def close(self) -> None:
        """Let go of the socket."""
        try:
            self._raw.close()
        finally:
            super().close()


class PacedResponse(http.client.HTTPResponse):
    """A response whose status line, headers and body must come at a certain speed."""

    def __init__(self, sock: socket.socket, *args: Any, window: float, slowest: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)  # Any: what http.client gives, unchanged
        raw = self.fp.detach()
        self.fp = io.BufferedReader(Paced(raw, window=window, slowest=slowest))


class PlainConnection(HTTPConnection):
    """A connection by http."""

    def __init__(self, *args: Any, allowed: Collection[Reach], slowest: float, window: float, **options: Any) -> None:
        super().__init__(*args, **options)  # Any: what urllib3 gives, unchanged
        self.allowed = allowed
        self.peer: str = ""
        paced = partial(PacedResponse, window=window, slowest=slowest)
        self.response_class = paced  # type: ignore[assignment]  # it is only called

    def connect(self) -> None:
        """Connect, if the address is one of those allowed."""
        check_host(self.host, self.port, self.allowed)
        super().connect()
        self.peer = check_peer(self, self.allowed)


class EncryptedConnection(PlainConnection, HTTPSConnection):
    """A connection by https: what `PlainConnection` calls its base is urllib3's encrypted connection here."""


class PlainPool(HTTPConnectionPool):
    """Connections to one host by http."""

    ConnectionCls = PlainConnection


class EncryptedPool(HTTPSConnectionPool):
    """Connections to one host by https."""

    ConnectionCls = EncryptedConnection


class Pools:
    """The connections of one process; safe between threads.

    Args:
        timeout: Longest wait for a connection and for the next bytes, in seconds.
        slowest: Speed below which a response counts as stalled, in bytes per second.
        connections: How many connections to a host are kept for reuse.
        ca_file: Certificates of the authorities to trust (PEM); the system's when None.
    """

    def __init__(self, *, timeout: float, slowest: float, connections: int, ca_file: str | None) -> None:
        self._timeout = timeout
        self._slowest = slowest
        self._connections = connections
        self._ca_file = ca_file
        self._pools: dict[tuple[tuple[str, str, int], tuple[Reach, ...]], HTTPConnectionPool] = {}
        self._lock = threading.Lock()

    def pool(self, url: Url, allowed: Collection[Reach] = ()) -> HTTPConnectionPool:
        """Return the connections to a URL's host.

        Args:
            url: Where to.
            allowed: What its address may be; anything when empty.
        """
        key = url.origin, tuple(sorted(allowed))
        with self._lock:
            pool = self._pools.pop(key, None) or self._new_pool(url, allowed)
            self._pools[key] = pool  # at the end: the one used longest ago is the first
            if len(self._pools) > MAX_HOSTS:
                del self._pools[next(iter(self._pools))]
        return pool

    def _new_pool(self, url: Url, allowed: Collection[Reach]) -> HTTPConnectionPool:
        timeout = Timeout(connect=self._timeout, read=self._timeout)
        options: dict[str, Any] = {  # Any: of as many types as urllib3's arguments
            "timeout": timeout,
            "maxsize": self._connections,
            "retries": False,
            "allowed": allowed,
            "slowest": self._slowest,
            "window": self._timeout,
        }
        if url.scheme == "http":
            return PlainPool(url.host, url.port, **options)
        return EncryptedPool(url.host, url.port, ssl_context=self._trust(), **options)

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:  # an ssl.SSLError is one, too
            raise FileError(
                f"cannot read certificates: {error.strerror or error}",
                where=self._ca_file,
                mend="name a file of certificates in PEM form as ca_file",
            ) from error


def check_host(host: str, port: int, allowed: Collection[Reach]) -> None:
    """Resolve a host and raise `FileError` if one of its addresses must not be reached."""
    if allowed:
        for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            check_address(host, str(address[0]), allowed)


def check_peer(connection: HTTPConnection, allowed: Collection[Reach]) -> str:
    """Return the address that a connection arrived at; a second look-up may have given another than the first."""
    assert connection.sock is not None, "connect opens it"
    address = str(connection.sock.getpeername()[0])
    if allowed:
        try:
            check_address(connection.host, address, allowed)
        except FileError:
            connection.close()
            raise
    return address


def check_address(host: str, address: str, allowed: Collection[Reach]) -> None:
    """Raise `FileError` where an address is none of those that a redirect may lead to."""
    reach = reach_of(address)
    if reach not in allowed:
        raise FileError(
            f"the server redirects to {host}, which is the {reach} address {address}",
            mend="a server must not send readers into another network; if this one may, set allow_private_redirects",
        )

"""A proxy on loopback that does to HTTP responses what networks and servers do to them, as a test prescribes.

It stands before a real server (nginx, an S3 server), takes one request after the other, and treats the response of each by
the next `Fault` of its plan. It speaks HTTP/1.1 on the wire itself, so that nothing corrects what it breaks.
"""

import itertools
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

BLOCK = 64 * 1024
PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to one response; nothing by default.

    Args:
        drop: Close the connection without an answer.
        cut_request: Close the connection after so many bytes of the request's body; the server does not see it.
        cut: Close the connection after so many bytes of the body.
        reset: Cut by a reset (RST) instead of an orderly end (FIN).
        stall: Send nothing any more after so many bytes of the body; the connection stays open.
        trickle: Send the response, head included, a byte at a time with so many seconds between.
        chunked: Send so many bytes of the body, in chunks with an orderly end, instead of with its length.
        lengthen: Let Content-Length differ from the truth by so many bytes.
        flip: Invert the bits of the body's byte at this position.
        answer: Answer with this status and an empty body, without asking the server.
        ask: Headers of the request to set, or to leave out where they are None.
        say: Headers of the response to set, or to leave out where they are None.
    """

    drop: bool = False
    cut_request: int | None = None
    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    trickle: float | None = None
    chunked: int | None = None
    lengthen: int = 0
    flip: int | None = None
    answer: int | None = None
    ask: Mapping[str, str | None] = field(default_factory=dict)
    say: Mapping[str, str | None] = field(default_factory=dict)


NO_FAULT = Fault()


class Request(NamedTuple):
    """A request as it arrived.

    Args:
        method: "GET".
        target: What was asked for, percent-encoded as it came.
        headers: By lower-case name.
    """

    method: str
    target: str
    headers: dict[str, str]


class FaultProxy:
    """The proxy; `fault_proxy` runs one.

    Attributes:
        port: Where it listens on 127.0.0.1.
        requests: What arrived so far, in order.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.requests: list[Request] = []
        self._server = server
        self._plan: Iterator[Fault] = iter(())
        self._choose: Callable[[Request], Fault] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def plan(self, faults: Iterable[Fault], *, forever: bool = False) -> None:
        """Treat the next responses by these faults, in order of the requests, and the ones after them faithfully.

        Args:
            faults: One for each request.
            forever: Begin anew after the last.
        """
        chosen = list(faults)
        with self._lock:
            self._plan = itertools.cycle(chosen) if forever else iter(chosen)
            self._choose = None
            self.requests.clear()

    def choose(self, choice: Callable[[Request], Fault]) -> None:
        """Treat each response by what a function says of its request."""
        with self._lock:
            self._choose = choice
            self.requests.clear()

    def close(self) -> None:
        """End every connection and thread."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *self._threads]:
            thread.join(10)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(PATIENCE)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            with self._lock:
                self._open.add(client)
                self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as incoming, suppress(OSError, ValueError):
                while not self._over.is_set() and (head := _read_head(incoming.readline)):
                    if not self._answer(client, incoming, head):
                        return
        finally:
            with self._lock:
                self._open.discard(client)

    def _answer(self, client: socket.socket, incoming: BinaryIO, head: list[str]) -> bool:
        """Answer a request; return whether the connection may be used for another."""
        method, target, _ = head[0].split(" ", 2)
        request = Request(method, target, _headers(head))
        with self._lock:
            self.requests.append(request)
            fault = self._choose(request) if self._choose else next(self._plan, NO_FAULT)
        if "expect" in request.headers:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.cut_request is not None:
            # A shorter body is read whole: a client that has sent it would wait for an answer, not for its end.
            incoming.read(min(fault.cut_request, int(request.headers.get("content-length", fault.cut_request))))
            return False
        body = _read_body(incoming, request.headers)
        if fault.drop:
            return False
        if fault.answer is not None:
            lines = [f"HTTP/1.1 {fault.answer} Prescribed", "Content-Length: 0"]
            client.sendall(_joined(_changed(lines, fault.say)))
            return True
        with socket.create_connection(self._server, timeout=PATIENCE) as upstream:
            upstream.sendall(_joined(_changed(head, {**fault.ask, "Connection": "close", "Expect": None})) + body)
            with upstream.makefile("rb") as response:
                return self._relay(client, method, fault, _read_head(response.readline), response.read1)

    def _relay(
        self, client: socket.socket, method: str, fault: Fault, head: list[str], read: Callable[[int], bytes]
    ) -> bool:
        headers = _headers(head)
        changes = dict(fault.say)
        if fault.lengthen and "content-length" in headers:
            changes["Content-Length"] = str(max(int(headers["content-length"]) + fault.lengthen, 0))
        if fault.chunked is not None:
            changes |= {"Content-Length": None, "Transfer-Encoding": "chunked"}
        head = _changed(head, {"Connection": None, **changes})
        send = self._send_slowly(fault.trickle) if fault.trickle is not None else socket.socket.sendall
        send(client, _joined(head))
        sent = 0
        limit = next((each for each in (fault.cut, fault.stall, fault.chunked) if each is not None), None)
        while method != "HEAD" and (limit is None or sent < limit) and (block := read(BLOCK)):
            if fault.flip is not None and sent <= fault.flip < sent + len(block):
                at = fault.flip - sent
                block = block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :]
            block = block if limit is None else block[: limit - sent]
            send(client, block if fault.chunked is None else b"%x\r\n%b\r\n" % (len(block), block))
            sent += len(block)
        if fault.chunked is not None and fault.cut is None:
            send(client, b"0\r\n\r\n")
        if fault.stall is not None:
            self._wait_until_gone(client)
        elif fault.cut is not None and fault.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        delimited = method == "HEAD" or "content-length" in _headers(head) or "transfer-encoding" in headers
        return delimited and limit is None and not fault.lengthen

    def _send_slowly(self, pause: float) -> Callable[[socket.socket, bytes], None]:
        def send(client: socket.socket, data: bytes) -> None:
            for value in data:
                client.sendall(bytes([value]))
                if self._over.wait(pause):
                    raise ConnectionAbortedError("the proxy is closed")

        return send

    def _wait_until_gone(self, client: socket.socket) -> None:
        """Wait until the client closes its side, or the proxy ends."""
        while not self._over.is_set():
            readable, _, _ = select.select([client], [], [], 0.1)
            if readable and not client.recv(BLOCK):
                return


@contextmanager
def fault_proxy(port: int) -> Iterator[FaultProxy]:
    """Run a proxy before the server on a port of 127.0.0.1 for the block."""
    proxy = FaultProxy(("127.0.0.1", port))
    try:
        yield proxy
    finally:
        proxy.close()


def _read_head(readline: Callable[[], bytes]) -> list[str]:
    """Return the first line and the headers; nothing where the connection ends."""
    lines = []
    while (line := readline()) not in {b"\r\n", b"\n", b""}:
        lines.append(line.decode("latin-1").rstrip("\r\n"))
    return lines


def _read_body(incoming: BinaryIO, headers: Mapping[str, str]) -> bytes:
    """Return a request's body as it came, with the framing of its chunks."""
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        return incoming.read(int(headers.get("content-length", "0")))
    parts = []
    while True:
        line = incoming.readline()
        size = int(line.partition(b";")[0], 16)
        parts += [line, incoming.read(size + 2)]
        if not size:
            return b"".join(parts)


def _headers(head: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in head[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


def _changed(head: list[str], changes: Mapping[str, str | None]) -> list[str]:
    names = {name.lower() for name in changes}
    kept = [line for line in head[1:] if line.partition(":")[0].lower() not in names]
    return [head[0], *kept, *(f"{name}: {value}" for name, value in changes.items() if value is not None)]


def _joined(head: list[str]) -> bytes:
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")

"""A mail server and a web server on loopback, which keep what they are given."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Mail(NamedTuple):
    """What a mail server was given, and how."""

    sender: str
    recipients: tuple[str, ...]
    content: str
    encrypted: bool
    login: tuple[str, str] | None


class MailServer:
    """Speaks as much of SMTP (RFC 5321) as a client needs, with STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4954).

    Args:
        tls: Encrypts, when the client asks for it.
        at_once: It encrypts from the beginning.
        password: What a client must log in with.
        refuses: A recipient that it does not take.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        at_once: bool = False,
        password: str | None = None,
        refuses: str | None = None,
    ) -> None:
        self.tls = tls
        self.at_once = at_once
        self.password = password
        self.refuses = refuses
        self.mails: list[Mail] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk with a client until it leaves."""
        try:
            await self._talk(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        encrypted, login, sender, recipients = self.at_once, None, "", []

        async def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())
            await writer.drain()

        await say("220 here")
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    await say("250-here\r\n250-AUTH PLAIN" + ("\r\n250 STARTTLS" if self.tls else "\r\n250 8BITMIME"))
                case "STARTTLS" if self.tls is not None:
                    await say("220 go on")
                    await writer.start_tls(self.tls)
                    encrypted = True
                case "AUTH":
                    _, user, password = b64decode(rest.partition(" ")[2]).decode().split("\0")
                    login = user, password
                    await say("235 in" if password == self.password else "535 wrong password")
                case "MAIL":
                    sender = rest.partition("<")[2].partition(">")[0]
                    await say("530 log in first" if self.password is not None and login is None else "250 ok")
                case "RCPT":
                    recipient = rest.partition("<")[2].partition(">")[0]
                    recipients.append(recipient)
                    await say("550 nobody of this name" if recipient == self.refuses else "250 ok")
                case "DATA":
                    await say("354 go on")
                    content = (await reader.readuntil(b"\r\n.\r\n")).decode()
                    self.mails.append(Mail(sender, tuple(recipients), content, encrypted, login))
                    await say("250 taken")
                case "QUIT":
                    await say("221 bye")
                    return
                case _:
                    await say("250 ok")


@contextmanager
def mail_server(server: MailServer) -> Iterator[int]:
    """Let a mail server listen on loopback while inside; yields its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        tls = server.tls if server.at_once else None
        return await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)

    async def stop(listening: asyncio.Server) -> None:
        listening.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    listening = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(listening), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


class Posted(NamedTuple):
    """What a web server was given."""

    path: str
    headers: dict[str, str]
    body: dict[str, object]


@contextmanager
def web_server(answer: int = 200, location: str | None = None) -> Iterator[tuple[int, list[Posted]]]:
    """Let a web server answer POSTs on loopback while inside; yields its port and what it was given."""
    posted: list[Posted] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append(Posted(self.path, dict(self.headers), json.loads(content)))
            self._answer()

        def do_GET(self) -> None:
            posted.append(Posted(self.path, dict(self.headers), {}))
            self._answer()

        def _answer(self) -> None:
            self.send_response(answer if self.path != "/elsewhere" else 200)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(b"said so")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port, posted
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()

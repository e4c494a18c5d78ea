"""Ways by which a message reaches people: e-mail, and a POST of JSON to a chat or a service of one's own."""

from __future__ import annotations

import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from email.message import EmailMessage
from http.client import HTTPException, HTTPMessage
from threading import Thread
from typing import IO, Annotated, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

Event = Literal["end", "stop", "failure", "validation"]


class Notice(NamedTuple):
    """What is told.

    Args:
        event: What happened.
        title: In one line.
        run: Which run it is.
        host: The machine.
        step: Training steps of the whole run.
        epoch: Epochs completed.
        metrics: The last results, by name.
        text: The rest, line by line.
    """

    event: Event
    title: str
    run: str
    host: str
    step: int
    epoch: int
    metrics: Mapping[str, float]
    text: str


class NotSentError(Exception):
    """A message could not be sent; says why, without a secret."""


def _within(seconds: float, host: str, act: Callable[[], None]) -> None:
    """Do something that may take longer than all the timeouts of its sockets: each of those is for one read or write.

    What is not done in time goes on in a thread that nobody waits for.

    Raises:
        NotSentError: It was not done in time, or raised that.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            act()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    Thread(target=run, daemon=True, name="treenail-message").start()
    try:
        outcome.result(seconds)
    except TimeoutError:
        raise NotSentError(f"{host}: not done within {seconds:g} s") from None


_PORTS: Final = {"starttls": 587, "ssl": 465, "none": 25}


class Email(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mail server, and to whom it shall bring messages (SMTP, RFC 5321; STARTTLS, RFC 3207).

    Args:
        host: Name of the server.
        sender: Address of the sender.
        recipients: Addresses.
        security: starttls and ssl encrypt, and check the server's certificate; none is for a server on this machine.
        port: None: 587 for starttls, 465 for ssl, 25 for none.
        user: Name to log in by; None: without.
        password: Write ``${env:NAME}``; it is not recorded.
        ca_file: Certificates by which to check the server's, in the place of the system's.
    """

    host: Annotated[str, Meta(min_length=1)]
    sender: Annotated[str, Meta(min_length=1)]
    recipients: Annotated[tuple[str, ...], Meta(min_length=1)]
    security: Literal["starttls", "ssl", "none"] = "starttls"
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    user: str | None = None
    password: str | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.host or not self.sender or not self.recipients or self.security not in _PORTS:
            raise ValueError(
                f"an e-mail needs a host, a sender and recipients, and {self.security=} is one of {[*_PORTS]}"
            )
        if (self.user is None) != (self.password is None):
            raise ValueError("of user and password of the mail server there is one without the other")
        if self.password is not None and self.security == "none":
            raise ValueError("a password would be sent without encryption: let security be starttls or ssl")

    def __repr__(self) -> str:
        return f"Email(host={self.host!r}, recipients={self.recipients!r})"

    def send(self, notice: Notice, timeout: float) -> None:
        """Send a message, within `timeout` seconds.

        Raises:
            NotSentError: The server is not there, does not let us in, does not take it, or is too slow.
        """
        _within(timeout, self.host, lambda: self._send(notice, timeout))

    def _send(self, notice: Notice, timeout: float) -> None:
        message = EmailMessage()
        try:
            message["Subject"] = " ".join(notice.title.split())
            message["From"] = self.sender
            message["To"] = ", ".join(self.recipients)
            message.set_content(f"{notice.title}\n\n{notice.text}\n")
            with self._server(timeout) as server:
                if self.user is not None and self.password is not None:
                    server.login(self.user, self.password)
                if refused := server.send_message(message):
                    raise NotSentError(f"{self.host} refused {', '.join(refused)}")
        except smtplib.SMTPResponseException as error:
            said = (
                error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            )
            raise NotSentError(f"{self.host}: {error.smtp_code} {said}") from error
        except UnicodeError:  # its text may hold a letter of the password
            raise NotSentError(f"{self.host}: a user, password, address or the host's name is not in ASCII") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise NotSentError(f"{self.host}: {type(error).__name__}: {error}") from error

    def _server(self, timeout: float) -> smtplib.SMTP:
        port = _PORTS[self.security] if self.port is None else self.port
        if self.security == "none":
            return smtplib.SMTP(self.host, port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise NotSentError(f"ca_file {self.ca_file}: {error.strerror or error}") from error
        if self.security == "ssl":
            return smtplib.SMTP_SSL(self.host, port, timeout=timeout, context=context)
        server = smtplib.SMTP(self.host, port, timeout=timeout)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address that takes messages as JSON, by POST.

    Args:
        url: Who knows it can post there: write ``${env:NAME}``.
        style: What is posted. json: ``event``, ``title``, ``run``, ``host``, ``step``, ``epoch``, ``metrics`` and ``text``.
            slack: as an incoming webhook of Slack, Mattermost or Rocket.Chat takes it. discord: as a webhook of Discord.
            teams: as a workflow of Microsoft Teams, an Adaptive Card.
        headers: Further headers of the request, such as ``Authorization``.
    """

    url: Annotated[str, Meta(pattern="^https?://")]
    style: Literal["json", "slack", "discord", "teams"] = "json"
    headers: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError("the webhook's url is no http:// or https:// address")
        if urlsplit(self.url).username is not None:
            raise ValueError("the webhook's url has a user in it: give headers: {Authorization: ${env:NAME}} instead")
        if self.style not in ("json", "slack", "discord", "teams"):
            raise ValueError(f"style is '{self.style}', must be json, slack, discord or teams")

    def __repr__(self) -> str:
        return f"Webhook({self._host!r}, style={self.style!r})"

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def send(self, notice: Notice, timeout: float) -> None:
        """Post a message, within `timeout` seconds.

        Raises:
            NotSentError: Nobody answers there in time, or the answer is not one of success.
        """
        _within(timeout, self._host, lambda: self._send(notice, timeout))

    def _send(self, notice: Notice, timeout: float) -> None:
        try:
            headers = {"User-Agent": "treenail", **self.headers, "Content-Type": "application/json"}
            data = msgspec.json.encode(_body(notice, self.style))
            request = urllib.request.Request(self.url, data=data, headers=headers, method="POST")
            opener = urllib.request.build_opener(_NoRedirects)
            with opener.open(request, timeout=timeout):
                pass
        except urllib.error.HTTPError as error:
            with error:
                said = " ".join(error.read(400).decode(errors="replace").split())
            raise NotSentError(f"{self._host}: {error.code} {error.reason} {said}".rstrip()) from None
        except urllib.error.URLError as error:
            raise NotSentError(f"{self._host}: {error.reason}") from None
        except (OSError, HTTPException, ValueError) as error:
            # Its text may hold the address, which is a secret.
            raise NotSentError(f"{self._host}: {type(error).__name__}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, whose success means nothing."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _body(notice: Notice, style: str) -> object:
    if style == "json":
        # JSON has no NaN and no infinity.
        metrics = {name: value if abs(value) < float("inf") else str(value) for name, value in notice.metrics.items()}
        return notice._asdict() | {"metrics": metrics}
    if style == "slack":  # https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
        return {"text": f"*{notice.title}*\n```{notice.text}```"}
    if style == "discord":  # https://discord.com/developers/docs/resources/webhook: 2,000 characters
        return {"content": f"**{notice.title[:200]}**\n```\n{notice.text[:1700]}\n```"}
    blocks = [
        {"type": "TextBlock", "text": notice.title, "weight": "Bolder", "wrap": True},
        {"type": "TextBlock", "text": notice.text.replace("\n", "\n\n"), "wrap": True},
    ]
    # https://learn.microsoft.com/connectors/teams, "When a Teams webhook request is received"
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    return {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    }

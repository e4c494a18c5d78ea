"""Messages about a run, by real servers on loopback."""

from __future__ import annotations

import email
import email.policy
import json
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.hooks.servers import MailServer, mail_server, web_server
from tests.hooks.small_runs import listening, small_run, training
from treenail.adapters.hooks.messages import Email, Notice, NotSentError, Webhook
from treenail.adapters.hooks.nonfinite import RollbackError
from treenail.adapters.hooks.notify import NotifyHook
from treenail.adapters.runtime import train
from treenail.kernel import Engine, Hook, spec

NOTICE = Notice("end", "work finished", "work", "host", 8, 2, {"val/loss": 0.5, "val/x": float("nan")}, "all\nof it")


class Certificate:
    """A certificate for 127.0.0.1 that signed itself, as files."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "certificate.pem"
        key = directory / "key.pem"
        made = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=here",
        ]
        names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.file)]
        subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.file, key)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl makes the certificate")
    return Certificate(tmp_path_factory.mktemp("certificate"))


def mail(port: int, **settings: Any) -> Email:  # Any: each test's own
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "sender": "run@here",
        "recipients": ("a@here", "b@here"),
        "port": port,
    }
    return Email(**(given | settings))


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_a_mail_is_encrypted_and_the_client_logs_in(certificate: Certificate, security: str) -> None:
    server = MailServer(certificate.context, at_once=security == "ssl", password="open sesame")
    with mail_server(server) as port:
        secure = {"security": security, "ca_file": str(certificate.file)}
        mail(port, user="me", password="open sesame", **secure).send(NOTICE, 10)
        with pytest.raises(NotSentError, match="535 wrong password"):
            mail(port, user="me", password="guess", **secure).send(NOTICE, 10)
        with pytest.raises(NotSentError, match="CERTIFICATE_VERIFY_FAILED"):
            mail(port, user="me", password="open sesame", security=security).send(NOTICE, 10)
    (sent,) = server.mails
    assert sent.encrypted
    assert (sent.sender, sent.recipients, sent.login) == ("run@here", ("a@here", "b@here"), ("me", "open sesame"))
    message = email.message_from_string(sent.content, policy=email.policy.default)
    assert message["Subject"] == "work finished"
    assert "all\nof it" in message.get_content().replace("\r\n", "\n")


def test_settings_that_fail_are_named_without_the_password(certificate: Certificate) -> None:
    with mail_server(MailServer(certificate.context, password="sesame")) as port:
        with pytest.raises(NotSentError, match="is not in ASCII") as refused:
            mail(port, user="me", password="s\xe9same", ca_file=str(certificate.file)).send(NOTICE, 10)
        assert "xe9" not in str(refused.value)
        with pytest.raises(NotSentError, match="ca_file /nowhere: No such file"):
            mail(port, ca_file="/nowhere").send(NOTICE, 10)


def test_a_server_without_encryption_gets_no_mail_where_it_is_wanted() -> None:
    server = MailServer()
    with mail_server(server) as port:
        with pytest.raises(NotSentError, match="STARTTLS"):
            mail(port).send(NOTICE, 10)
        mail(port, security="none").send(NOTICE, 10)
    assert [sent.encrypted for sent in server.mails] == [False]


def test_a_recipient_that_is_refused_is_named() -> None:
    server = MailServer(refuses="b@here")
    with mail_server(server) as port, pytest.raises(NotSentError, match="refused b@here"):
        mail(port, security="none").send(NOTICE, 10)
    assert len(server.mails) == 1, "the other one gets it all the same"


@pytest.mark.parametrize("style", ["json", "slack", "discord", "teams"])
def test_a_webhook_is_posted_what_its_service_takes(style: str) -> None:
    with web_server() as (port, posted):
        hook = Webhook(url=f"http://127.0.0.1:{port}/in?x=1", style=style, headers={"X-Key": "k"})  # type: ignore[arg-type]
        hook.send(NOTICE, 10)
    ((path, headers, body),) = posted
    assert (path, headers["X-Key"], headers["Content-Type"]) == ("/in?x=1", "k", "application/json")
    if style == "json":
        assert body == {**NOTICE._asdict(), "metrics": {"val/loss": 0.5, "val/x": "nan"}}
    elif style == "teams":
        assert json.dumps(body["attachments"]).count('"text": "work finished"') == 1
    else:
        text = str(body["text" if style == "slack" else "content"])
        assert "work finished" in text
        assert "all\nof it" in text


def test_an_answer_that_is_none_of_success_is_an_error_without_the_address() -> None:
    with web_server(403) as (port, _), pytest.raises(NotSentError) as refused:
        Webhook(url=f"http://127.0.0.1:{port}/secret").send(NOTICE, 10)
    assert str(refused.value) == "127.0.0.1: 403 Forbidden said so"
    with web_server(302, "/elsewhere") as (port, posted), pytest.raises(NotSentError, match="302"):
        Webhook(url=f"http://127.0.0.1:{port}/secret").send(NOTICE, 10)
    assert [each.path for each in posted] == ["/secret"], "a redirect was followed"


def test_no_secret_is_shown() -> None:
    hook = spec(NotifyHook)(mail(1, user="me", password="sesame"), Webhook(url="http://h/T0/sesame"))
    assert "sesame" not in repr(hook)
    assert "sesame" not in repr(hook.build().__dict__)


class Breaks(Hook):
    """Does what a hook should not, at the fifth step."""

    def __init__(self, error: Exception | None = None, stop: str | None = None) -> None:
        self.error = error
        self.stop = stop

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if engine.step == 4 and self.stop is not None:
            engine.request_stop(self.stop)
        if engine.step == 4 and self.error is not None:
            raise self.error


def test_a_run_tells_its_validations_and_its_end_with_what_is_committed(tmp_path: Path) -> None:
    with web_server() as (port, posted):
        hook = spec(NotifyHook)(
            webhook=Webhook(url=f"http://127.0.0.1:{port}/"), events=("validation", "end"), run="work"
        )
        summary = train(small_run(2, notify=hook), tmp_path)
    told = sorted((each.body["event"], each.body["step"]) for each in posted)
    assert told == [("end", 8), ("validation", 4), ("validation", 8)]
    (end,) = [each.body for each in posted if each.body["event"] == "end"]
    assert end["metrics"] == pytest.approx(summary.metrics)
    assert end["title"] == "work finished"


@pytest.mark.parametrize(
    ("trouble", "event", "title"),
    [
        (Breaks(stop="enough"), "stop", "work stopped by enough"),
        (Breaks(ArithmeticError("the sum is wrong")), "failure", "work failed: ArithmeticError: the sum is wrong"),
    ],
)
def test_a_stop_and_a_failure_are_told(trouble: Breaks, event: str, title: str) -> None:
    with web_server() as (port, posted):
        done = training(NotifyHook(webhook=Webhook(url=f"http://127.0.0.1:{port}/"), run="work"), trouble, epochs=2)
        try:
            done.run()
        except ArithmeticError:
            text = str(posted[0].body["text"])
            assert "raised by hook 'Breaks' at after_train_iter" in text
            assert f'File "{__file__}", line ' in text  # the innermost calls
            assert "raise self.error" in text
    assert [(each.body["event"], each.body["title"]) for each in posted] == [(event, title)]


def test_a_step_that_goes_back_is_no_failure() -> None:
    with web_server() as (port, posted):
        hook = NotifyHook(webhook=Webhook(url=f"http://127.0.0.1:{port}/"))
        hook.on_exception(Engine(), RollbackError("step 3: the loss is nan", step=2))
    assert not posted


@pytest.mark.parametrize("kind", ["refused", "silent", "unknown"])
def test_what_cannot_be_sent_is_a_warning_and_the_run_goes_through(kind: str) -> None:
    said = listening()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never answers
        port = silent.getsockname()[1]
        if kind == "refused":
            silent.close()
        host = "127.0.0.1" if kind != "unknown" else "no-such-host.invalid"
        hook = NotifyHook(
            mail(port, host=host, security="none"),
            Webhook(url=f"http://{host}:{port}/T0/sesame"),
            timeout=0.3,
            terminal=said.terminal,
        )
        done = training(hook)
        done.run()
    assert done.engine.step == 4
    assert said.text.count("notification not sent") >= 2
    assert "sesame" not in said.text


@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_server_that_answers_drop_by_drop_is_waited_for_no_longer_than_said(kind: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if kind == "webhook" else b"220 here is the server\r\n" * 2
    given_up = Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            for letter in answer:
                given_up.wait(0.1)  # sooner than any timeout, in all longer than it
                connection.sendall(bytes([letter]))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Thread(target=drip, args=(listening,))
        server.start()
        port = listening.getsockname()[1]
        channel = mail(port, security="none") if kind == "mail" else Webhook(url=f"http://127.0.0.1:{port}/")
        with pytest.raises(NotSentError, match=r"127.0.0.1: not done within 0.5 s"):
            channel.send(NOTICE, 0.5)
        given_up.set()
        server.join(30)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="neither email nor webhook"):
        NotifyHook()
    with pytest.raises(ValueError):
        NotifyHook(webhook=Webhook(url="http://h/"), events=("start",))  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="no http"):
        Webhook(url="file:///etc/passwd")
    with pytest.raises(ValueError, match="Authorization"):
        Webhook(url="https://me:sesame@h/")
    for timeout in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite"):
            NotifyHook(webhook=Webhook(url="http://h/"), timeout=timeout)
    with pytest.raises(ValueError, match="without encryption"):
        mail(25, user="me", password="p", security="none")
    with pytest.raises(ValueError, match="one without the other"):
        mail(25, user="me")
    with pytest.raises(ValueError, match="recipients"):
        mail(25, recipients=())

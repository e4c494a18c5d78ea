"""What object stores answer when something is wrong, on the wire; and options that cannot be right."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.files.nginx import Certificate, nginx_serving
from tests.files.servers import find_server, free_port
from treenail.adapters.files.objects import ObjectFiles
from treenail.kernel import FileError, FileMissingError

ACCESS, SECRET, TOKEN = "AKIA-LOOPBACK", "a-secret-of-the-loopback", "a-token-of-the-loopback"
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "OSS_", "GOOGLE_", "AZURE_", "GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@contextmanager
def _answering(answer: Callable[[str, str, dict[str, str]], Answer]) -> Iterator[str]:
    """Serve what a function of (method, path with query, headers) gives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(self.command, self.path, dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _error(code: str, message: str = "said so", extra: str = "") -> bytes:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _files(endpoint: str, *, root: str = "s3://bucket/run", **options: object) -> ObjectFiles:
    return ObjectFiles(root, endpoint=endpoint, timeout=5, retries=1, **options)  # type: ignore[arg-type]  # of a test


def _texts(error: BaseException) -> str:
    """Return all that a traceback of an error would show of messages."""
    found: list[str] = []
    at: BaseException | None = error
    while at is not None:
        found += [str(at), repr(at), *getattr(at, "__notes__", ())]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(found)


@pytest.mark.parametrize(
    ("status", "code", "said", "mend"),
    [
        (400, "ExpiredToken", "expired", "renew"),
        (403, "InvalidAccessKeyId", "does not know the access key", "credentials"),
        (403, "SignatureDoesNotMatch", "does not fit", "credentials"),
        (403, "RequestTimeTooSkewed", "clock", "clock"),
        (403, "AccessDenied", "access is denied", "policy"),
        (400, "AuthorizationHeaderMalformed", "another region", "region"),
        (301, "PermanentRedirect", "another region", "region"),
        (403, "QuotaExceeded", "no space", "quota"),
        (507, "InsufficientStorage", "no space", "quota"),
        (400, "EntityTooLarge", "too large", "part_size"),
        (503, "SlowDown", "fewer requests", "concurrency"),
        (404, "NoSuchBucket", "no such bucket", "name"),
        (501, "NotImplemented", "does not know", "another"),
        (418, "Teapot", "418", ""),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do(status: int, code: str, said: str, mend: str) -> None:
    told = f"<AWSAccessKeyId>{ACCESS}</AWSAccessKeyId><StringToSign>x {SECRET} {TOKEN}</StringToSign>"
    with _answering(lambda *_: (status, {}, _error(code, f"for {ACCESS}", told))) as endpoint:
        files = _files(endpoint)
        verbs: dict[str, Callable[[], object]] = {
            "read": lambda: files.read("d/x"),
            "write": lambda: files.write("d/x", b"data"),
            "list": lambda: list(files.list("d")),
        }
        for operation, verb in verbs.items():
            with pytest.raises(FileError, match=said) as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert f"cannot {operation}" in raised.value.message
            assert raised.value.where is not None
            assert raised.value.where.startswith("s3://bucket/run/d")
            assert mend in (raised.value.mend or "")
            assert raised.value.__cause__ is not None
            assert not re.search(f"{ACCESS}|{SECRET}|{TOKEN}", _texts(raised.value))


@pytest.mark.parametrize("verb", ["stat", "delete"])
def test_an_answer_without_a_body_is_explained_by_its_status(verb: str) -> None:
    with _answering(lambda *_: (403, {}, b"")) as endpoint, pytest.raises(FileError, match="denied"):
        getattr(_files(endpoint), verb)("x")


def test_a_missing_key_is_a_missing_file() -> None:
    with _answering(lambda *_: (404, {}, _error("NoSuchKey"))) as endpoint, pytest.raises(FileMissingError):
        _files(endpoint).read("x")


def test_a_store_that_overwrites_what_should_be_created_is_told() -> None:
    def answer(method: str, *_: object) -> Answer:
        return (404, {}, b"") if method == "HEAD" else (200, {"ETag": '"1"'}, b"")

    with _answering(answer) as endpoint, pytest.raises(FileError, match="does not know conditional writes"):
        _files(endpoint).create("x", b"data")


def test_a_broken_connection_and_a_busy_store_are_tried_again() -> None:
    tries = list[str]()

    def answer(method: str, *_: object) -> Answer:
        tries.append(method)
        if len(tries) == 1:
            return 503, {}, _error("SlowDown")
        return 200, {"ETag": '"1"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT"}, b"content"

    with _answering(answer) as endpoint:
        assert _files(endpoint).read("x") == b"content"
    assert tries == ["GET", "GET"]


def test_a_list_takes_pages_as_they_are_asked_for() -> None:
    asked = list[str]()

    def answer(_: str, path: str, __: object) -> Answer:
        asked.append(path)
        first = (len(asked) - 1) * 1000
        keys = "".join(
            f"<Contents><Key>run/{number:08d}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2000-01-01T00:00:00.000Z</LastModified></Contents>"
            for number in range(first, first + 1000)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{first}</NextContinuationToken>"
        return 200, {}, f"<ListBucketResult>{more}{keys}</ListBucketResult>".encode()

    with _answering(answer) as endpoint:
        names = _files(endpoint).list()
        assert [next(names) for _ in range(2500)] == [f"{number:08d}" for number in range(2500)]
    assert len(asked) <= 4


def test_names_in_no_order_are_told() -> None:
    contents = "".join(
        f"<Contents><Key>run/{name}</Key><Size>1</Size><LastModified>2000-01-01T00:00:00.000Z</LastModified></Contents>"
        for name in "ba"
    )
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
    with _answering(lambda *_: (200, {}, body)) as endpoint, pytest.raises(FileError, match="in no order"):
        list(_files(endpoint).list())


def test_an_endpoint_where_nothing_listens_is_told() -> None:
    with pytest.raises(FileError, match="nothing listens at the endpoint") as raised:
        _files(f"http://127.0.0.1:{free_port()}").read("x")
    assert "endpoint" in (raised.value.mend or "")


def test_an_endpoint_without_an_address_is_told() -> None:
    with pytest.raises(FileError, match=r"no address|cannot be reached"):
        _files("https://no-such-host.invalid").read("x")


def test_a_silent_endpoint_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        files = ObjectFiles(
            "s3://bucket", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5, retries=1
        )
        with pytest.raises(FileError, match=r"in time|connection broke"):
            files.read("x")


def test_an_endpoint_that_speaks_no_tls_is_told() -> None:
    with _answering(lambda *_: (200, {}, b"")) as endpoint, pytest.raises(FileError, match="does not speak TLS"):
        _files(endpoint.replace("http:", "https:")).read("x")


def test_a_certificate_is_checked_and_can_be_trusted(tmp_path: Path) -> None:
    for folder in ("www/bucket/run", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "www/bucket/run/x").write_bytes(b"content")
    pair = Certificate(tmp_path / "certificate.pem", tmp_path / "key.pem")
    # The client takes no certificate of an authority for that of a server.
    extensions = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    command = (find_server("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    paths = ("-keyout", pair.key, "-out", pair.certificate)
    subprocess.run((*command, "-nodes", "-days", "2", "-subj", "/CN=loopback", *extensions, *paths), check=True)
    with nginx_serving(tmp_path / "www", tmp_path / "work", certificate=pair) as server:
        with pytest.raises(FileError, match="certificate is not trusted") as raised:
            _files(server.url, anonymous=True).read("x")
        assert "ca_file" in (raised.value.mend or "")
        assert _files(server.url, anonymous=True, ca_file=str(pair.certificate)).read("x") == b"content"
    with pytest.raises(FileError, match="cannot read the certificate"):
        _files(server.url, ca_file=str(tmp_path / "none.pem")).read("x")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s3://bucket", "AWS_ACCESS_KEY_ID"),
        ("oss://bucket", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfss://c@account.dfs.core.windows.net", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_without_credentials_nobody_waits_long(monkeypatch: pytest.MonkeyPatch, root: str, said: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    nobody = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{nobody}")
    monkeypatch.setenv("GCE_METADATA_HOST", nobody)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://{nobody}")
    with pytest.raises(FileError, match="no credentials are found") as raised:
        _files(f"http://{nobody}", root=root).read("x")
    assert said in (raised.value.mend or "")


def _signed_by(endpoint_of: Callable[[str], ObjectFiles]) -> dict[str, str]:
    seen = dict[str, str]()

    def answer(_: str, __: str, headers: dict[str, str]) -> Answer:
        seen.update({name.lower(): value for name, value in headers.items()})
        return 200, {"ETag": '"1"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT"}, b"x"

    with _answering(answer) as endpoint:
        endpoint_of(endpoint).read("x")
    return seen


def test_credentials_come_from_the_variables_that_options_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "mine")
    monkeypatch.setenv("MY_SECRET", "secret")
    named = {"access_key_variable": "MY_KEY", "secret_key_variable": "MY_SECRET"}
    headers = _signed_by(lambda endpoint: _files(endpoint, region="eu-west-7", **named))
    assert "Credential=mine/" in headers["authorization"]
    assert "/eu-west-7/" in headers["authorization"]
    assert "x-amz-security-token" not in headers, "the environment's token went with other keys"
    monkeypatch.delenv("MY_SECRET")
    with pytest.raises(FileError, match="the environment has no MY_SECRET"):
        _signed_by(lambda endpoint: _files(endpoint, **named))


def test_credentials_come_from_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text("[team]\naws_access_key_id = theirs\naws_secret_access_key = s%cret\n")
    (folder / "config").write_text("[profile team]\nregion = eu-north-9\n[profile sso]\nsso_session = x\n")
    headers = _signed_by(lambda endpoint: _files(endpoint, profile="team"))
    assert re.search("Credential=theirs/[0-9]+/eu-north-9/", headers["authorization"])
    assert "x-amz-security-token" not in headers
    with pytest.raises(FileError, match="no profile 'none'"):
        _signed_by(lambda endpoint: _files(endpoint, profile="none"))
    with pytest.raises(FileError, match="holds no keys") as raised:
        _signed_by(lambda endpoint: _files(endpoint, profile="sso"))
    assert "export-credentials" in (raised.value.mend or "")
    (folder / "credentials").write_text("aws_secret_access_key = s%cret\n")
    with pytest.raises(FileError, match="not readable") as raised:
        _signed_by(lambda endpoint: _files(endpoint, profile="team"))
    assert "s%cret" not in _texts(raised.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    (folder / "credentials").write_text("[default]\naws_access_key_id = default\naws_secret_access_key = x\n")
    assert "Credential=default/" in _signed_by(_files)["authorization"]


def test_an_anonymous_backend_signs_nothing() -> None:
    assert "authorization" not in _signed_by(lambda endpoint: _files(endpoint, anonymous=True))


def test_a_bucket_can_be_part_of_the_host() -> None:
    for root, options, host in (
        ("oss://bucket/run", {}, "bucket.store.example.com/run/x"),
        ("s3://bucket/run", {"virtual_hosted": True}, "bucket.store.example.com/run/x"),
        ("s3://bucket/run", {}, "store.example.com/bucket/run/x"),
    ):
        url = _files("https://store.example.com", root=root, **options).sign("x")
        assert url.startswith(f"https://{host}?")


@pytest.mark.parametrize(
    "root",
    [
        *(
            "s3:///x",
            "s3://",
            "s3://key:secret-key@bucket/x",
            "s3://key@bucket/x",
            "s3://bucket:80/x",
            "http://bucket/x",
        ),
        *("az://key:secret-key@account/x", "s3://bucket/a/../b", "s3://bucket//a", "bucket/x"),
    ],
)
def test_a_root_that_names_no_bucket_or_holds_credentials_is_refused(root: str) -> None:
    with pytest.raises(FileError) as raised:
        ObjectFiles(root)
    assert "secret-key" not in _texts(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "http://store.example.com"},
        {"endpoint": "store.example.com"},
        {"endpoint": "https://me:secret-key@store.example.com"},
        {"part_size": 1024},
        {"concurrency": 0},
        {"retries": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
    ],
)
def test_options_that_cannot_be_right_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(FileError) as raised:
        ObjectFiles("s3://bucket", **options)  # type: ignore[arg-type]  # that is the mistake
    assert "secret-key" not in _texts(raised.value)


def test_an_endpoint_without_tls_can_be_asked_for() -> None:
    assert ObjectFiles("s3://bucket", endpoint="http://store.example.com", allow_http=True).uri == "s3://bucket"


def test_the_endpoint_of_the_environment_needs_tls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example.com")
    with pytest.raises(FileError, match="no TLS"):
        ObjectFiles("s3://bucket").read("x")


@pytest.mark.parametrize(
    ("root", "said"), [("minio://bucket", "needs an endpoint"), ("az://container", "no storage account")]
)
def test_what_a_scheme_needs_is_told(root: str, said: str) -> None:
    with pytest.raises(FileError, match=said):
        ObjectFiles(root).read("x")


@pytest.mark.parametrize(
    ("root", "environment"),
    [
        ("gs://bucket/run", {"TOKEN_HERE": TOKEN}),
        ("az://container/run", {"TOKEN_HERE": f"sv=1&sig={TOKEN}"}),
    ],
)
def test_other_clouds_show_no_credentials_either(
    monkeypatch: pytest.MonkeyPatch, root: str, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with _answering(lambda *_: (403, {}, _error("AuthenticationFailed"))) as endpoint:
        files = _files(endpoint, root=root, account="account", token_variable="TOKEN_HERE")
        with pytest.raises(FileError, match=r"denied|accept") as raised:
            files.read("x")
    assert TOKEN not in _texts(raised.value)
    assert TOKEN not in repr(files)


def test_importing_files_loads_no_store() -> None:
    code = "import sys, treenail.adapters.files.objects; sys.exit(any('obstore' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

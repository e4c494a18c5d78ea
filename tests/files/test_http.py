"""Files by HTTP from a real nginx: directories, redirects, credentials, certificates, processes."""

import multiprocessing
import os
import pickle
import socket
import threading
import traceback
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import pytest

from tests.files.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.files.nginx import Certificate, Nginx, make_certificate, nginx_serving
from tests.files.servers import free_port
from treenail.adapters.files import Mounts, exists, get, get_text, isdir, isfile, use_mounts
from treenail.adapters.files.http import HttpFiles
from treenail.adapters.files.http.pools import PlainConnection, check_peer
from treenail.adapters.files.http.urls import reach_of
from treenail.contracts.files import HasDirectories, SplitsUris, StreamsFiles, TellsDirectories
from treenail.kernel import FileBackend, FileError, FileMissingError, late

DATA = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "d").mkdir()
    (folder / "file").write_bytes(DATA)
    (folder / "d" / "file").write_bytes(b"below")
    os.utime(folder / "file", (1_600_000_000, 1_600_000_000))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx_serving(folder, tmp_path_factory.mktemp("nginx")) as started:
        yield started


@pytest.fixture
def proxy(server: Nginx) -> Iterator[FaultProxy]:
    with fault_proxy(server.port) as started:
        yield started


@pytest.fixture
def other(server: Nginx) -> Iterator[FaultProxy]:
    with fault_proxy(server.port) as started:
        yield started


def redirect(location: str, status: int = 302) -> Fault:
    return Fault(answer=status, say={"Location": location})


def test_it_has_the_abilities_it_says(server: Nginx) -> None:
    files = HttpFiles(server.url)
    assert isinstance(files, FileBackend)
    assert isinstance(files, StreamsFiles)
    assert isinstance(files, TellsDirectories)
    assert not isinstance(files, HasDirectories)
    assert isinstance(HttpFiles, SplitsUris)
    assert files.capabilities.ranges


def test_stat_tells_what_the_server_tells(server: Nginx) -> None:
    found = HttpFiles(server.url).stat("file")
    assert (found.size, found.modified) == (len(DATA), 1_600_000_000.0)
    assert found.version is not None
    assert found.version.startswith('"')


def test_only_the_range_is_transferred(server: Nginx, proxy: FaultProxy) -> None:
    assert HttpFiles(proxy.url).read("file", 100, 50) == DATA[100:150]
    assert [request.headers.get("range") for request in proxy.requests] == ["bytes=100-149"]
    assert 'GET /file HTTP/1.1" 206 50 ' in server.log.read_text()


def test_connections_are_used_again(server: Nginx) -> None:
    files = HttpFiles(server.url)
    for _ in range(5):
        files.read("file")
        files.stat("file")
        files.read("file", 5, 5)
        with pytest.raises(FileMissingError):
            files.read("missing")
    connections = files._pools.get().pool(files._root.url).num_connections
    assert connections == 1


def test_a_stream_that_is_left_gives_its_connection_up(server: Nginx, folder: Path) -> None:
    (folder / "large").write_bytes(bytes(20_000_000))
    files = HttpFiles(server.url)
    for _ in range(20):
        stream = files.stream("large")
        next(stream)
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert files.read("file") == DATA


def test_by_uri(server: Nginx) -> None:
    with use_mounts(Mounts(schemes={"http": late(HttpFiles)(retries=0)})):
        assert get(f"{server.url}/d/file") == b"below"
        assert get_text(f"{server.url}/d/%66ile?token=x") == "below"
        assert [exists(f"{server.url}/{path}") for path in ("file", "d", "missing")] == [True, True, False]
        assert [isfile(f"{server.url}/{path}") for path in ("file", "d", "missing")] == [True, False, False]
        assert [isdir(f"{server.url}/{path}") for path in ("file", "d", "missing", "")] == [False, True, False, True]


def test_what_was_pinned_is_verified(server: Nginx) -> None:
    right, wrong = (f"{server.url}#sha256={sha256(data).hexdigest()}" for data in (DATA, b"other"))
    files = HttpFiles(right)
    assert not files.capabilities.ranges
    assert files.read("file") == b"".join(files.stream("file")) == DATA
    assert files.read("file", 100, 50) == b"".join(files.stream("file", 100, 50)) == DATA[100:150]
    mistaken = HttpFiles(wrong, backoff=0.0)
    with pytest.raises(FileError, match="sha256 is"):
        mistaken.read("file")
    with pytest.raises(FileError, match="sha256 is"):
        mistaken.read("file", 0, 3)
    with pytest.raises(FileError, match="sha256 is"):
        next(mistaken.stream("file"))


def test_threads_share_connections(server: Nginx) -> None:
    files = HttpFiles(server.url, connections=4)
    barrier = threading.Barrier(12)

    def read(number: int) -> bool:
        barrier.wait(30)
        return all(files.read("file", number, 100) == DATA[number : number + 100] for _ in range(10))

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(read, range(12)))


def test_options_are_pickled_and_connections_are_not(server: Nginx) -> None:
    files = HttpFiles(server.url, timeout=5.0, headers={"X-Mark": "y"})
    files.read("file")
    again = pickle.loads(pickle.dumps(files))
    assert again.read("file") == DATA
    assert again.uri == files.uri


def _read_often(files: HttpFiles, ends: Connection) -> None:
    try:
        ends.send(all(files.read("file", start, 500) == DATA[start : start + 500] for start in range(200)))
    except FileError as error:
        ends.send(str(error))


def test_forked_processes_do_not_share_connections(server: Nginx) -> None:
    files = HttpFiles(server.url, retries=0)
    files.read("file")  # a connection is open, and would be inherited
    context = multiprocessing.get_context("fork")
    pairs = [context.Pipe() for _ in range(3)]
    children = [context.Process(target=_read_often, args=(files, child)) for _, child in pairs]
    for child in children:
        child.start()
    assert all(files.read("file", start, 500) == DATA[start : start + 500] for start in range(200))
    assert [parent.recv() for parent, _ in pairs] == [True] * 3
    for child in children:
        child.join(30)


# Redirects


def test_redirects_are_followed(proxy: FaultProxy, other: FaultProxy) -> None:
    proxy.plan([redirect("moved"), redirect(f"{other.url}/d/elsewhere?x=1", 307)])
    other.plan([redirect("/file", 301)])
    assert HttpFiles(proxy.url, retries=0).read("file", 7, 7) == DATA[7:14]
    assert [request.target for request in other.requests] == ["/d/elsewhere?x=1", "/file"]


def test_circles_are_named(proxy: FaultProxy) -> None:
    proxy.plan([redirect("/b"), redirect("/c"), redirect("/b")])
    with pytest.raises(FileError, match=r"circle: http://\S+/b → http://\S+/c → http://\S+/b"):
        HttpFiles(proxy.url).read("a")


def test_there_are_ten_redirects_at_most(proxy: FaultProxy) -> None:
    proxy.plan([*(redirect(f"/{number}") for number in range(9)), redirect("/file")])
    assert HttpFiles(proxy.url).read("a") == DATA
    proxy.plan([redirect(f"/{number}") for number in range(20)])
    with pytest.raises(FileError, match="more than 10 redirects"):
        HttpFiles(proxy.url).read("a")
    assert len(proxy.requests) == 11


@pytest.mark.parametrize(
    ("location", "reach"),
    [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://10.0.0.1/", "private"),
        ("http://[fd00::1]/", "private"),
        ("http://[::ffff:10.0.0.1]:81/", "private"),
    ],
)
def test_redirects_into_other_networks_are_refused(location: str, reach: str, proxy: FaultProxy) -> None:
    proxy.plan([redirect(location)], forever=True)
    with pytest.raises(FileError, match=f"the {reach} address") as caught:
        HttpFiles(proxy.url).read("file")
    assert "allow_private_redirects" in str(caught.value)
    assert len(proxy.requests) == 1


def test_redirects_into_other_networks_can_be_allowed(proxy: FaultProxy) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no other address than loopback")
        address = probe.getsockname()[0]
    if reach_of(address) in {"public", "loopback"}:
        pytest.skip(f"this machine's address {address} is not private")
    proxy.plan([redirect(f"http://{address}:{free_port()}/")] * 2)
    with pytest.raises(FileError, match=f"address {address}"):
        HttpFiles(proxy.url, retries=0).read("file")
    with pytest.raises(FileError, match="refused"):
        HttpFiles(proxy.url, retries=0, allow_private_redirects=True).read("file")


def test_the_address_counts_that_was_connected_to(server: Nginx) -> None:
    connection = PlainConnection("127.0.0.1", server.port, allowed=(), slowest=0.0, window=5.0)
    connection.connect()
    with pytest.raises(FileError, match=r"loopback address 127\.0\.0\.1"):
        check_peer(connection, {"public"})
    assert connection.sock is None, "a connection that must not be is open"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/file", "gopher://x"])
def test_redirects_to_other_schemes_are_refused(location: str, proxy: FaultProxy) -> None:
    proxy.plan([redirect(location)])
    with pytest.raises(FileError, match="something else than http"):
        HttpFiles(proxy.url).read("file")


def test_credentials_stay_with_their_host(proxy: FaultProxy, other: FaultProxy) -> None:
    proxy.plan([redirect("/moved"), redirect(f"http://localhost:{other.port}/file")])
    files = HttpFiles(f"http://me:p%40ss@127.0.0.1:{proxy.port}?sig=s3cret", headers={"X-Token": "t0ken"})
    assert files.read("start") == DATA
    assert [request.headers.get("authorization") for request in proxy.requests] == ["Basic bWU6cEBzcw=="] * 2
    assert [request.headers.get("x-token") for request in proxy.requests] == ["t0ken"] * 2
    assert proxy.requests[0].target == "/start?sig=s3cret"
    (elsewhere,) = other.requests
    assert not {"authorization", "x-token"} & elsewhere.headers.keys()
    assert "s3cret" not in elsewhere.target


# Errors


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_tried_again(status: int, proxy: FaultProxy) -> None:
    proxy.plan([Fault(answer=status)], forever=True)
    with pytest.raises(FileError, match=f"the server says {status}.*credentials"):
        HttpFiles(proxy.url).read("file")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_file_is_not_tried_again(status: int, proxy: FaultProxy) -> None:
    proxy.plan([Fault(answer=status)], forever=True)
    with pytest.raises(FileMissingError):
        HttpFiles(proxy.url).stat("file")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("status", [204, 205, 304, 400, 409, 418, 501, 505])
def test_other_answers_are_errors(status: int, proxy: FaultProxy) -> None:
    proxy.plan([Fault(answer=status)], forever=True)
    with pytest.raises(FileError, match=f"the server says {status}"):
        HttpFiles(proxy.url).read("file")
    assert len(proxy.requests) == 1


def test_nobody_listens() -> None:
    with pytest.raises(FileError, match=r"cannot stat: the connection failed: .*refused; failed 3 times"):
        HttpFiles(f"http://127.0.0.1:{free_port()}", retries=2, backoff=0.0).stat("file")


def test_there_is_no_such_host() -> None:
    with pytest.raises(FileError, match=r"no host 'nowhere.invalid'|cannot find the host 'nowhere.invalid'"):
        HttpFiles("http://nowhere.invalid", retries=0).stat("file")


@pytest.mark.parametrize(
    "fault",
    [Fault(answer=401), Fault(answer=500), Fault(drop=True), Fault(cut=3), redirect("ftp://x/"), redirect("/secret")],
)
def test_secrets_are_never_shown(fault: Fault, proxy: FaultProxy, capsys: pytest.CaptureFixture[str]) -> None:
    proxy.plan([fault], forever=True)
    secrets = [uuid4().hex for _ in range(3)]
    root = f"http://me:{secrets[0]}@127.0.0.1:{proxy.port}?sig={secrets[1]}"
    files = HttpFiles(root, headers={"X-Token": secrets[2]}, retries=1, backoff=0.0)
    with pytest.raises(FileError) as caught:
        files.read("file")
    shown = "".join(traceback.format_exception(caught.value)) + repr(files) + files.uri + capsys.readouterr().err
    for secret in (*secrets, b64encode(f"me:{secrets[0]}".encode()).decode()):
        assert secret not in shown


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0.0},
        {"timeout": float("inf")},
        {"slowest": -1.0},
        {"connections": 0},
        {"retries": -1},
        {"patience": float("inf")},
        {"backoff": -1.0},
    ],
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(FileError, match="at least 0"):
        HttpFiles("http://host", **options)  # type: ignore[arg-type]  # one option at a time


@pytest.mark.parametrize("headers", [{"Range": "bytes=0-"}, {"x": "a\r\nHost: b"}, {"accept-encoding": "gzip"}])
def test_headers_that_break_requests_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(FileError, match="cannot be given"):
        HttpFiles("http://host", headers=headers)


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def test_https(folder: Path, tmp_path: Path, certificate: Certificate, server: Nginx) -> None:
    moved = "location /moved { return 302 https://localhost:$server_port/file; }"
    extra = f"location /down {{ return 302 {server.url}/file; }} {moved}"
    with nginx_serving(folder, tmp_path, certificate=certificate, extra=extra) as secure:
        trusting = HttpFiles(secure.url, ca_file=str(certificate.certificate))
        assert trusting.read("file") == DATA
        assert b"".join(trusting.stream("moved", 10)) == DATA[10:]
        with pytest.raises(FileError, match="redirects from https to http://"):
            trusting.read("down")
        with pytest.raises(FileError, match=r"certificate cannot be trusted: self.signed.*ca_file"):
            HttpFiles(secure.url).read("file")


def test_a_certificate_of_another_host(folder: Path, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "DNS:other.example")
    with nginx_serving(folder, tmp_path / "nginx", certificate=certificate) as secure:
        files = HttpFiles(secure.url, ca_file=str(certificate.certificate))
        with pytest.raises(FileError, match=r"certificate cannot be trusted: .*127\.0\.0\.1"):
            files.read("file")


def test_https_where_http_is_spoken(server: Nginx) -> None:
    with pytest.raises(FileError, match="no encrypted connection"):
        HttpFiles(f"https://127.0.0.1:{server.port}").read("file")


def test_a_missing_file_of_certificates(server: Nginx, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read certificates"):
        HttpFiles("https://127.0.0.1", ca_file=str(tmp_path / "none.pem")).read("file")

"""The fault-injecting proxy does what it is told, and nothing else."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.files.nginx import nginx_serving

DATA = b"0123456789" * 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "file").write_bytes(DATA)
    return folder


@pytest.fixture(scope="module")
def proxy(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    extra = "dav_methods PUT; client_max_body_size 10m;"
    with (
        nginx_serving(folder, tmp_path_factory.mktemp("nginx"), extra=extra) as server,
        fault_proxy(server.port) as started,
    ):
        yield started


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    proxy.plan([])
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    yield connection
    connection.close()


def test_without_faults_it_is_not_noticed(client: http.client.HTTPConnection, proxy: FaultProxy, folder: Path) -> None:
    for _ in range(3):  # over one connection
        client.request("GET", "/file")
        assert client.getresponse().read() == DATA
    client.request("HEAD", "/file")
    answer = client.getresponse()
    assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(len(DATA)))
    client.request("PUT", "/sized", body=DATA)
    assert client.getresponse().read() == b""
    client.request("PUT", "/chunked", body=iter([DATA[:7], DATA[7:]]), headers={"Expect": "100-continue"})
    assert client.getresponse().status == 201
    assert (folder / "sized").read_bytes() == (folder / "chunked").read_bytes() == DATA
    assert [request.method for request in proxy.requests] == ["GET"] * 3 + ["HEAD", "PUT", "PUT"]


def test_a_request_is_cut(client: http.client.HTTPConnection, proxy: FaultProxy, folder: Path) -> None:
    proxy.plan([Fault(cut_request=1000)])
    client.request("PUT", "/unfinished", body=bytes(2000))  # so few that they are sent before the end is noticed
    with pytest.raises(ConnectionError):
        client.getresponse()
    assert not (folder / "unfinished").exists()


@pytest.mark.parametrize(
    ("fault", "count"), [(Fault(cut=0), 0), (Fault(cut=70_000), 70_000), (Fault(lengthen=3), len(DATA))]
)
def test_a_response_is_cut(fault: Fault, count: int, client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.plan([fault])
    client.request("GET", "/file")
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.getresponse().read()
    assert caught.value.partial == DATA[:count]


def test_a_response_is_garbled(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.plan([Fault(flip=100_000), Fault(say={"ETag": '"mine"', "Server": None}), Fault(answer=429)])
    client.request("GET", "/file")
    found = client.getresponse().read()
    assert [at for at, (one, other) in enumerate(zip(found, DATA, strict=True)) if one != other] == [100_000]
    client.request("GET", "/file")
    answer = client.getresponse()
    assert (answer.read(), answer.headers["ETag"], answer.headers["Server"]) == (DATA, '"mine"', None)
    client.request("GET", "/file")
    assert client.getresponse().status == 429


def test_a_response_stalls(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.plan([Fault(stall=10)])
    client.request("GET", "/file")
    answer = client.getresponse()
    assert answer.read(10) == DATA[:10]
    assert client.sock is not None
    client.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        answer.read(1)


def test_it_ends_though_clients_wait(folder: Path, tmp_path: Path) -> None:
    with nginx_serving(folder, tmp_path / "nginx") as server, fault_proxy(server.port) as proxy:
        proxy.plan([Fault(stall=0), Fault(trickle=3600.0)])
        waiting = [socket.create_connection(("127.0.0.1", proxy.port), timeout=30) for _ in range(3)]
        for each in waiting[:2]:
            each.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            each.recv(1)
    for each in waiting:
        each.close()

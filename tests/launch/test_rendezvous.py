"""Launchers of machines that come and go, as threads of this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from torch.distributed.elastic.rendezvous import RendezvousInfo

from tests.launch.listening import free_port, is_loopback, listening_addresses
from treenail.adapters.launch.endpoint import Place, parse_endpoint
from treenail.adapters.launch.loopback import reach_store
from treenail.adapters.launch.rendezvous import ElasticRendezvous, NotNeededError
from treenail.kernel import CommunicationError, ConfigError


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        ("node0:29500", ("node0", 29500)),
        (" 10.0.0.7:1 ", ("10.0.0.7", 1)),
        ("[fd00::1]:29500", ("fd00::1", 29500)),
        ("localhost:29500", ("127.0.0.1", 29500)),
        ("127.0.1.1:29500", ("127.0.0.1", 29500)),
        ("[::1]:29500", ("127.0.0.1", 29500)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(endpoint: str, where: tuple[str, int]) -> None:
    assert parse_endpoint(endpoint) == where


@pytest.mark.parametrize(
    ("endpoint", "wrong"),
    [
        ("", "has no port"),
        ("node0", "has no port"),
        ("29500", "has no port"),
        (":29500", "has no host"),
        ("[]:29500", "has no host"),
        ("node0:", "has the port '', which is no number"),
        ("node0:x", "has the port 'x', which is no number"),
        ("node0:-1", "has the port '-1', which is no number"),
        ("node0:0", "has the port 0; there are 1 to 65535"),
        ("node0:65536", "has the port 65536; there are 1 to 65535"),
        ("fd00::1:29500", r"has more than one colon; an IPv6 address stands in brackets"),
        ("tcp://node0:29500", "is no host and port, but an address of another kind"),
        ("node 0:29500", "is no host and port, but an address of another kind"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_with_what_is_wrong(endpoint: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"--rdzv-endpoint: '.*' {wrong}.*; give HOST:PORT"):
        parse_endpoint(endpoint)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def machine(port: int, timeout: float = 60) -> ElasticRendezvous:
    # A machine that waits looks for its chance once a second; the others must wait longer for it.
    return ElasticRendezvous(Place("127.0.0.1", port), 1, 2, "run", last_call=3, timeout=timeout)


def has_key(info: RendezvousInfo) -> bool:
    """Return whether the ranks' store of an attempt has been used before; use it."""
    where = info.bootstrap_store_info
    assert where is not None
    return bool(reach_store(where.master_addr, where.master_port, 10).add("ranks", 1) > 1)


def test_machines_join_leave_and_wait_for_a_place(threads: ThreadPoolExecutor) -> None:
    port = free_port()
    first = machine(port)
    alone = first.next_rendezvous()
    assert (alone.rank, alone.world_size, has_key(alone), first.changes()) == (0, 1, False, False)

    second = machine(port)
    assert second.launch_id == first.launch_id
    joins: Future[RendezvousInfo] = threads.submit(second.next_rendezvous)
    while not first.changes():
        assert not joins.done()
        time.sleep(0.1)
    both = [first.next_rendezvous(), joins.result()]
    assert sorted((each.rank, each.world_size) for each in both) == [(0, 2), (1, 2)]
    assert [has_key(each) for each in both] == [False, True]  # one store, and not the one of the attempt before
    assert [first.changes(), second.changes()] == [False, False]

    third = machine(port)
    waits = threads.submit(third.next_rendezvous)
    with pytest.raises(TimeoutError):
        waits.result(timeout=2)
    assert not first.changes()  # there is no place for it
    second.leave()
    for _ in range(100):  # the store has no answer to what is set
        if first.changes():
            break
        time.sleep(0.1)
    assert first.changes()
    assert [each for each in listening_addresses(os.getpid()) if not is_loopback(each)] == []
    first.shutdown()
    with pytest.raises(NotNeededError):
        waits.result()
    with pytest.raises(CommunicationError, match=f"127.0.0.1:{port}: the run has ended, and takes no machine any more"):
        machine(port).next_rendezvous()
    for each in (second, third):  # torch's heartbeats would else be stopped by whichever thread the collector runs in
        each.shutdown()


def test_machines_that_do_not_come_and_a_place_that_is_gone_are_errors() -> None:
    port = free_port()
    least_two = ElasticRendezvous(Place("127.0.0.1", port), 2, 2, "run", last_call=0.1, timeout=1)
    with pytest.raises(CommunicationError, match="the machines did not meet within 1 s; see whether at least 2 were"):
        least_two.next_rendezvous()
    guest = machine(port)
    del least_two  # and with it the store
    with pytest.raises(CommunicationError, match=f"127.0.0.1:{port}: the meeting place of the machines is lost: "):
        guest.next_rendezvous()


def test_a_port_that_something_else_has_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: port {port} is taken by another process"):
            machine(port, timeout=1)

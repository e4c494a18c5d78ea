"""Whatever the network and the server do to a read by HTTP, it gives the right bytes, or a FileError; and it ends."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.files.fault_proxy import NO_FAULT, Fault, FaultProxy, Request, fault_proxy
from tests.files.nginx import Nginx, nginx_serving
from treenail.adapters.files.http import HttpFiles
from treenail.kernel import FileError

DATA = bytes(range(256)) * 12
DIGEST = b64encode(hashlib.sha256(DATA).digest()).decode()
RETRIES = 5
NO_ETAG: dict[str, str | None] = {"ETag": None}
NO_VALIDATOR: dict[str, str | None] = {"ETag": None, "Last-Modified": None}
EXAMPLES = int(os.environ.get("TREENAIL_LAW_EXAMPLES", "0"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for name in ("file", "changing"):
        (folder / name).write_bytes(DATA)
        os.utime(folder / name, (1_600_000_000, 1_600_000_000))
    (folder / "empty").touch()
    (folder / "chunked").write_bytes(DATA)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    # What nginx substitutes in, it sends in chunks, for it does not know the length.
    extra = 'location /chunked { sub_filter_types *; sub_filter "no such text" ""; }'
    with nginx_serving(folder, tmp_path_factory.mktemp("nginx"), extra=extra) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(server: Nginx) -> Iterator[FaultProxy]:
    with fault_proxy(server.port) as started:
        yield started


def files(proxy: FaultProxy, fragment: str = "", *, timeout: float = 30.0) -> HttpFiles:
    """Return a backend that goes through the proxy, hardly waits, and takes no read of DATA for progress."""
    return HttpFiles(proxy.url + fragment, retries=RETRIES, backoff=0.001, timeout=timeout, slowest=4000 / timeout)


def ranges(proxy: FaultProxy) -> list[str | None]:
    return [request.headers.get("range") for request in proxy.requests]


PASSING = {
    "drop": Fault(drop=True),
    "cut before the body": Fault(cut=0),
    "cut within the body": Fault(cut=1000),
    "cut before the last byte": Fault(cut=len(DATA) - 1),
    "reset": Fault(cut=1000, reset=True),
    "408": Fault(answer=408),
    "429": Fault(answer=429, say={"Retry-After": "0"}),
    "500": Fault(answer=500),
    "502": Fault(answer=502),
    "503": Fault(answer=503, say={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "504": Fault(answer=504),
}
READS: dict[str, Callable[[HttpFiles, str], bytes]] = {
    "read": lambda files, path: files.read(path),
    "stream": lambda files, path: b"".join(files.stream(path)),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_survived(fault: str, read: str, proxy: FaultProxy) -> None:
    proxy.plan([PASSING[fault]])
    assert READS[read](files(proxy), "file") == DATA
    assert len(proxy.requests) == 2, "one request failed, one more was needed"


def test_a_length_that_is_too_great_is_not_believed_twice(proxy: FaultProxy) -> None:
    proxy.plan([Fault(lengthen=7)])
    assert files(proxy).read("file") == DATA
    assert ranges(proxy) == [None, f"bytes={len(DATA)}-{len(DATA) + 6}", None]
    proxy.plan([Fault(lengthen=7)])
    with pytest.raises(FileError, match=f"{len(DATA) + 7} bytes were announced, but there are {len(DATA)}"):
        b"".join(files(proxy).stream("file"))
    proxy.choose(lambda request: Fault(lengthen=7) if "range" not in request.headers else NO_FAULT)
    with pytest.raises(FileError, match="failed 4 times"):
        HttpFiles(proxy.url, retries=3, backoff=0.0, slowest=1.0).read("file")


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", ["drop", "cut before the body", "500"])
def test_what_does_not_pass_ends(fault: str, read: str, proxy: FaultProxy) -> None:
    proxy.plan([PASSING[fault]], forever=True)
    with pytest.raises(FileError, match="cannot read"):
        READS[read](files(proxy), "file")
    assert len(proxy.requests) == RETRIES + 1


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", [Fault(stall=0), Fault(stall=1000), Fault(trickle=0.002)])
def test_a_server_that_stalls_or_trickles_is_left(fault: Fault, read: str, proxy: FaultProxy) -> None:
    proxy.plan([fault])
    assert READS[read](files(proxy, timeout=0.5), "file") == DATA
    assert len(proxy.requests) >= 2


def test_a_server_that_trickles_for_ever_is_given_up(proxy: FaultProxy) -> None:
    proxy.plan([Fault(trickle=0.01)], forever=True)
    slow = HttpFiles(proxy.url, retries=1, backoff=0.001, timeout=0.3, slowest=100_000)
    with pytest.raises(FileError, match=r"keeps us waiting.*raise timeout"):
        slow.read("file")
    assert len(proxy.requests) == 2


def test_a_server_may_say_when_to_come_back(proxy: FaultProxy) -> None:
    proxy.plan([Fault(answer=429, say={"Retry-After": "86400"})])
    with pytest.raises(FileError, match="the server asks for 86400 s more"):
        files(proxy).read("file")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("by", [-5, 5])
def test_a_length_that_contradicts_the_range_is_not_believed(by: int, proxy: FaultProxy) -> None:
    proxy.plan([Fault(lengthen=by)])
    assert files(proxy).read("file", 10, 20) == DATA[10:30]
    assert ranges(proxy) == ["bytes=10-29"] * 2


def test_a_cut_read_goes_on_where_it_stopped(proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=1000), Fault(cut=500, reset=True)])
    assert files(proxy).read("file", 100, 2900) == DATA[100:3000]
    first, second, third = ranges(proxy)
    assert (first, second) == ("bytes=100-2999", "bytes=1100-2999")
    assert third is not None
    assert int(third[6:].partition("-")[0]) in range(1100, 1601), "a reset may take bytes with it that were under way"
    assert proxy.requests[1].headers["if-range"].startswith('"')


def test_progress_is_not_counted_as_failure(proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=100)], forever=True)
    patient = HttpFiles(proxy.url, retries=1, backoff=0.0, timeout=30.0, slowest=3.0)  # 90 bytes are progress
    assert patient.read("file") == DATA
    assert len(proxy.requests) == -(-len(DATA) // 100)


@pytest.mark.parametrize("read", READS)
def test_a_file_that_changed_is_never_mixed(read: str, proxy: FaultProxy, folder: Path) -> None:
    def change(request: Request) -> Fault:
        if len(proxy.requests) > 1:
            (folder / "changing").write_bytes(bytes(len(DATA)))
            return NO_FAULT
        return Fault(cut=1000)

    proxy.choose(change)
    with pytest.raises(FileError, match="the file changed while it was read"):
        READS[read](files(proxy), "changing")
    (folder / "changing").write_bytes(DATA)
    os.utime(folder / "changing", (1_600_000_000, 1_600_000_000))


@pytest.mark.parametrize(
    "second",
    [
        Fault(say={"ETag": '"other"'}),
        Fault(say={"ETag": None}),
        Fault(say={"ETag": '"other"'}, ask={"Range": None}),
        Fault(say={"ETag": '"other"'}, ask={"If-Range": None}),
    ],
)
def test_another_etag_is_another_file(second: Fault, proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=1000), second])
    with pytest.raises(FileError, match="the file changed"):
        files(proxy).read("file")


def test_a_date_tells_versions_apart_where_there_is_no_etag(proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=1000, say=NO_ETAG), Fault(say=NO_ETAG)])
    assert b"".join(files(proxy).stream("file")) == DATA
    assert proxy.requests[1].headers["if-range"] == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert ranges(proxy)[1] == f"bytes=1000-{len(DATA) - 1}"


@pytest.mark.parametrize(
    "say",
    [
        NO_VALIDATOR,
        {"ETag": 'W/"weak"', "Last-Modified": None},
        {**NO_ETAG, "Date": None},
        {**NO_ETAG, "Last-Modified": "Fri, 01 Jan 2100 00:00:00 GMT"},  # it may change again within that second
    ],
)
def test_without_a_validator_a_read_begins_anew_and_a_stream_ends(
    say: dict[str, str | None], proxy: FaultProxy
) -> None:
    proxy.plan([Fault(cut=1000, say=say), Fault(say=say)])
    assert files(proxy).read("file") == DATA
    assert ranges(proxy) == [None, None]
    proxy.plan([Fault(cut=1000, say=say)])
    with pytest.raises(FileError, match="neither a strong ETag nor a date"):
        b"".join(files(proxy).stream("file"))


def test_failures_are_counted_where_any_speed_will_do(proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=0)], forever=True)
    with pytest.raises(FileError, match="failed 3 times"):
        HttpFiles(proxy.url, retries=2, backoff=0.0, slowest=0.0).read("file")


def test_beginning_anew_is_no_progress(proxy: FaultProxy) -> None:
    proxy.plan([Fault(cut=3000, say=NO_VALIDATOR)], forever=True)
    with pytest.raises(FileError, match="failed 3 times"):
        HttpFiles(proxy.url, retries=2, backoff=0.0, slowest=1.0).read("file")
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(("start", "length"), [(5, 10), (0, 5), (100, None), (len(DATA), None), (len(DATA) + 9, 5)])
def test_a_server_may_ignore_ranges(start: int, length: int | None, proxy: FaultProxy) -> None:
    expected = DATA[start:][:length]
    proxy.plan([Fault(ask={"Range": None})], forever=True)
    assert files(proxy).read("file", start, length) == expected
    proxy.plan([Fault(ask={"Range": None}, cut=200)] * 2 + [Fault(ask={"Range": None})])
    assert b"".join(files(proxy).stream("file", start, length)) == expected


@pytest.mark.parametrize(
    "said", ["bytes 0-9/3072", "bytes 11-19/3072", "bytes 10-25/3072", "bytes 10-19/15", "items 10-19/3072", None]
)
def test_another_range_than_asked_is_refused(said: str | None, proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"Content-Range": said})])
    with pytest.raises(FileError, match="asked for bytes from 10 to 20"):
        files(proxy).read("file", 10, 10)


def test_a_server_may_send_less_than_asked(proxy: FaultProxy) -> None:
    def halve(request: Request) -> Fault:
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        return Fault(ask={"Range": f"bytes={first}-{min(int(last), int(first) + 99)}"})

    proxy.choose(halve)
    assert files(proxy).read("file", 50, 350) == DATA[50:400]
    assert len(proxy.requests) == 4


def test_a_size_that_is_not_said(proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"Content-Range": f"bytes 10-{len(DATA) - 1}/*"})])
    assert files(proxy).read("file", 10) == DATA[10:]


def test_the_end_of_a_file_is_asked_for_where_it_is_not_said(proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"Content-Range": None})])
    assert files(proxy).read("file", len(DATA) + 5, 5) == b""
    assert [request.method for request in proxy.requests] == ["GET", "HEAD"]


def test_an_end_before_the_end_is_refused(proxy: FaultProxy) -> None:
    proxy.plan([Fault(answer=416, say={"Content-Range": f"bytes */{len(DATA)}"})])
    with pytest.raises(FileError, match="has no bytes from 10 on"):
        files(proxy).read("file", 10, 10)


def test_bodies_in_chunks(proxy: FaultProxy) -> None:
    proxy.plan([])
    assert files(proxy).read("chunked") == DATA
    assert files(proxy).read("chunked", 3000, 1000) == DATA[3000:]
    proxy.plan([Fault(cut=1000)])
    assert files(proxy).read("chunked") == DATA
    proxy.plan([Fault(cut=1000)])
    with pytest.raises(FileError, match="neither a strong ETag"):
        b"".join(files(proxy).stream("chunked"))


def test_a_range_in_chunks_may_end_too_soon(proxy: FaultProxy) -> None:
    proxy.plan([Fault(chunked=10_000)])
    assert files(proxy).read("file", 10, 20) == DATA[10:30]
    proxy.plan([Fault(chunked=5)])
    assert files(proxy).read("file", 10, 20) == DATA[10:30]
    assert ranges(proxy) == ["bytes=10-29", "bytes=15-29"]
    proxy.plan([Fault(chunked=0)], forever=True)
    with pytest.raises(FileError, match="0 bytes came of 20"):
        files(proxy).read("file", 10, 20)


def test_a_body_without_an_end_is_refused(proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"Content-Length": None})])
    with pytest.raises(FileError, match="does not say how long the file is"):
        files(proxy).read("file")


def test_an_encoded_body_is_refused(proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"Content-Encoding": "gzip"})])
    with pytest.raises(FileError, match="encoded as gzip"):
        files(proxy).read("file")
    assert proxy.requests[0].headers["accept-encoding"] == "identity"


def test_stat_does_without_head(proxy: FaultProxy) -> None:
    proxy.plan([])
    expected = files(proxy).stat("file")
    for status in (403, 405, 501):
        proxy.plan([Fault(answer=status), NO_FAULT] * 2)
        assert files(proxy).stat("file") == expected
        assert files(proxy).stat("empty").size == 0
        assert [request.method for request in proxy.requests] == ["HEAD", "GET"] * 2
    proxy.plan([Fault(answer=405), Fault(ask={"Range": None})])
    assert files(proxy).stat("file") == expected
    proxy.plan([Fault(answer=503), Fault(drop=True)])
    assert files(proxy).stat("file") == expected


def test_a_stat_without_version_or_time(proxy: FaultProxy) -> None:
    proxy.plan([Fault(say={"ETag": 'W/"weak"', "Last-Modified": "yesterday"})])
    assert files(proxy).stat("file") == (len(DATA), 0.0, None)


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest"])
def test_what_was_garbled_on_the_way_is_read_again(header: str, proxy: FaultProxy) -> None:
    say = {header: f"sha-256=:{DIGEST}:"}
    proxy.plan([Fault(say=say, flip=2000), Fault(say=say)])
    assert files(proxy).read("file") == DATA
    proxy.plan([Fault(say=say, flip=2000)] * 2)
    with pytest.raises(FileError, match="sha256 is"):
        files(proxy).read("file")
    proxy.plan([Fault(say=say, flip=2000)])
    stream = files(proxy).stream("file")
    with pytest.raises(FileError, match="sha256 is"):
        list(stream)


def test_digests_of_more_than_was_read_are_left_alone(proxy: FaultProxy) -> None:
    digest = f"sha-256=:{DIGEST}:"
    for fault in (
        Fault(say={"Repr-Digest": digest}, ask={"Range": None}),
        Fault(say={"Content-Digest": digest}, ask={"Range": None}),
        Fault(say={"Repr-Digest": digest}),
    ):
        proxy.plan([fault])
        assert files(proxy).read("file", 10, 20) == DATA[10:30]
        assert len(proxy.requests) == 1, "right bytes were read again"


def test_the_digest_of_a_range_is_verified(proxy: FaultProxy) -> None:
    say = {"Content-Digest": f"sha-256=:{b64encode(hashlib.sha256(DATA[10:30]).digest()).decode()}:"}
    proxy.plan([Fault(say=say, flip=5), Fault(say=say)])
    assert files(proxy).read("file", 10, 20) == DATA[10:30]
    assert len(proxy.requests) == 2


def test_a_digest_holds_over_a_cut(proxy: FaultProxy) -> None:
    say = {"Repr-Digest": f"sha-256=:{DIGEST}:"}
    proxy.plan([Fault(say=say, cut=1000), NO_FAULT])
    assert files(proxy).read("file") == DATA
    proxy.plan([Fault(say=say, cut=1000), Fault(flip=50)])
    with pytest.raises(FileError, match="sha256 is"):
        b"".join(files(proxy).stream("file"))


sizes = st.integers(0, len(DATA) + 2)
passing = st.one_of(
    st.just(NO_FAULT),
    st.just(Fault(drop=True)),
    st.builds(Fault, cut=sizes, reset=st.booleans(), say=st.sampled_from([{}, NO_ETAG, NO_VALIDATOR])),
    st.builds(Fault, lengthen=st.integers(1, 5)),
    st.builds(Fault, chunked=st.just(len(DATA)), cut=st.none() | sizes),
    st.builds(Fault, answer=st.sampled_from([401, 404, 408, 416, 429, 500, 503])),
    st.builds(Fault, ask=st.just({"Range": None}), cut=st.none() | sizes),
    st.builds(Fault, say=st.sampled_from([{"ETag": '"other"'}, {"Content-Range": "bytes 1-2/3"}, NO_VALIDATOR])),
)
garbling = st.one_of(passing, st.builds(Fault, flip=sizes), st.builds(Fault, lengthen=st.integers(-5, -1)))
waiting = st.one_of(passing, st.builds(Fault, stall=sizes), st.just(Fault(trickle=0.001)))


def check(
    proxy: FaultProxy, backend: HttpFiles, faults: list[Fault], stream: bool, start: int, length: int | None
) -> None:
    proxy.plan(faults)
    try:
        found = b"".join(backend.stream("file", start, length)) if stream else backend.read("file", start, length)
    except FileError:
        assert any(fault != NO_FAULT for fault in faults), "nothing went wrong"
    else:
        assert found == DATA[start:][:length], f"{len(found)} wrong bytes"
    assert len(proxy.requests) <= 2 * (RETRIES + 1), f"{len(proxy.requests)} requests"


_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(st.lists(passing, max_size=5), st.booleans(), sizes, st.none() | sizes)
@settings(_SETTINGS, max_examples=max(EXAMPLES, 150))
def test_any_faults_give_the_bytes_or_an_error(
    proxy: FaultProxy, faults: list[Fault], stream: bool, start: int, length: int | None
) -> None:
    check(proxy, files(proxy), faults, stream, start, length)


@given(st.lists(garbling, max_size=5), st.booleans(), sizes, st.none() | sizes)
@settings(_SETTINGS, max_examples=max(EXAMPLES, 80))
def test_pinned_bytes_are_right_whatever_happens(
    proxy: FaultProxy, faults: list[Fault], stream: bool, start: int, length: int | None
) -> None:
    pinned = files(proxy, f"#sha256={hashlib.sha256(DATA).hexdigest()}")
    check(proxy, pinned, faults, stream, start, length)


@given(st.lists(waiting, max_size=3), st.booleans(), sizes, st.none() | sizes)
@settings(_SETTINGS, max_examples=max(EXAMPLES, 15))
def test_nothing_hangs(proxy: FaultProxy, faults: list[Fault], stream: bool, start: int, length: int | None) -> None:
    # Where nothing is wrong, a slow machine must not make it so.
    timeout = 0.1 if any(fault != NO_FAULT for fault in faults) else 60.0
    check(proxy, files(proxy, timeout=timeout), faults, stream, start, length)

"""The cache of remote files: valid, bounded, shared by processes, whole after kill -9."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files.remote import Remote
from treenail.adapters.files import (
    FileCache,
    HttpFiles,
    MemoryFiles,
    Mounts,
    copyfile,
    copytree,
    get,
    get_local_path,
    put,
    put_many,
    put_to,
    remove,
    rmtree,
    sync,
    use_mounts,
)
from treenail.kernel import FileError, FileMissingError

KILLS = int(os.environ.get("TREENAIL_KILL_EXAMPLES", "4"))


def held(cache: FileCache) -> dict[str, bytes]:
    """Return the objects of a cache by their names."""
    return {each.name: each.read_bytes() for each in (cache.folder / "objects").glob("*/*") if each.suffix != ".uses"}


def test_a_file_is_downloaded_once_and_again_when_it_changed(tmp_path: Path) -> None:
    remote, cache = Remote(tmp_path), FileCache(tmp_path / "cache", max_bytes=1000)
    remote.write("a", b"one")
    assert cache.read(remote, "a") == b"one"
    assert cache.read(remote, "a", 1, 1) == b"n"
    assert cache.read(remote, "a", 2) == b"e"
    assert cache.read(remote, "a", 5, 9) == b""
    assert remote.reads == ["a"]
    os.utime(tmp_path / "store" / "a", (1, 1))  # the same size: only time and version tell
    remote.write("a", b"two")
    assert cache.read(remote, "a") == b"two"
    remote.delete("a")
    with pytest.raises(FileMissingError):
        cache.read(remote, "a")
    with pytest.raises(FileError, match="must be at least 0"):
        cache.read(remote, "a", -1)


class QueryIsContent(BaseHTTPRequestHandler):
    """Answers with the query, and with nothing that tells versions apart."""

    def do_GET(self) -> None:
        body = self.path.partition("?")[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("max_age", [0.0, 1000.0])
def test_urls_that_differ_in_what_is_not_shown_share_no_copy(tmp_path: Path, max_age: float) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), QueryIsContent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cache = FileCache(tmp_path / "cache", max_bytes=1000, max_age=max_age)
        for query in ("id=1", "id=2", "id=1"):
            files = HttpFiles(f"http://127.0.0.1:{server.server_port}?{query}")
            assert cache.read(files, "file") == query.encode()
        server.shutdown()


def test_within_max_age_the_store_is_not_asked_unless_told(tmp_path: Path) -> None:
    remote, cache = Remote(tmp_path), FileCache(tmp_path / "cache", max_bytes=1000, max_age=1000)
    remote.write("a", b"one")
    assert cache.read(remote, "a") == b"one"
    remote.write("a", b"two")
    assert cache.read(remote, "a") == b"one"
    cache.forget(remote, "a")
    assert cache.read(remote, "a") == b"two"
    cache.forget(remote, "never read")


@given(uses=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=25))
@settings(deadline=None, max_examples=30)
def test_it_never_holds_more_than_it_may_and_always_tells_the_truth(
    tmp_path_factory: pytest.TempPathFactory, uses: list[tuple[str, int]]
) -> None:
    store, cache = MemoryFiles(), FileCache(tmp_path_factory.mktemp("cache"), max_bytes=60)
    for path, size in uses:
        store.write(path, path.encode() * size)
        assert cache.read(store, path) == path.encode() * size
        assert sum(map(len, held(cache).values())) <= 60
    entries = {json.loads(each.read_bytes())["digest"] for each in (cache.folder / "entries").iterdir()}
    assert entries <= held(cache).keys(), "an entry outlived its object"
    assert not list((cache.folder / "unfinished").iterdir())


def test_what_was_used_last_stays_and_what_is_in_use_too(tmp_path: Path) -> None:
    store, cache = MemoryFiles(), FileCache(tmp_path / "cache", max_bytes=300)
    for name in "abc":
        store.write(name, name.encode() * 100)
        cache.read(store, name)
    for age, name in enumerate("bca"):  # b was used longest ago
        for each in (cache.folder / "objects").glob("*/*"):
            if each.suffix != ".uses" and each.read_bytes()[:1] == name.encode():
                os.utime(each, (1000 + age, 1000 + age))
    store.write("d", b"d" * 100)
    with cache.local_copy(store, "b") as path:
        os.utime(path, (1, 1))
        cache.read(store, "d")
        assert path.read_bytes() == b"b" * 100, "a copy in use was evicted"
    assert {content[:1] for content in held(cache).values()} >= {b"b", b"d"}
    assert len(held(cache)) <= 3


def test_a_file_larger_than_the_cache_is_given_without_being_kept(tmp_path: Path) -> None:
    store, cache = MemoryFiles(), FileCache(tmp_path / "cache", max_bytes=10)
    store.write("a", b"a" * 11)
    assert cache.read(store, "a", 10) == b"a"
    with cache.local_copy(store, "a") as path:
        assert path.read_bytes() == b"a" * 11
        with pytest.raises(ZeroDivisionError), cache.local_copy(store, "a"):
            _ = 1 / 0
    assert not path.exists()
    assert held(cache) == {}


def test_a_copy_that_a_power_loss_cut_is_downloaded_again(tmp_path: Path) -> None:
    remote, cache = Remote(tmp_path), FileCache(tmp_path / "cache", max_bytes=1000)
    remote.write("a", b"whole")
    cache.read(remote, "a")
    (copy,) = (each for each in (cache.folder / "objects").glob("*/*") if each.suffix != ".uses")
    copy.write_bytes(b"who")
    assert cache.read(remote, "a") == b"whole"
    for entry in (cache.folder / "entries").iterdir():
        entry.write_bytes(b"\0" * 10)
    (cache.folder / "locks" / "total").write_text("nonsense")
    assert cache.read(remote, "a") == b"whole"


def test_threads_and_processes_download_once(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    remote.write("a", os.urandom(3_000_000))
    program = """
import sys
from pathlib import Path
from tests.files.remote import Remote
from treenail.adapters.files import FileCache
root = Path(sys.argv[1])
sys.stdin.readline()
print(len(FileCache(root / "cache", max_bytes=10**9).read(Remote(root), "a")))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    cache = FileCache(tmp_path / "cache", max_bytes=10**9)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(cache.read, remote, "a") for _ in range(4)]
        said = [process.communicate("\n", timeout=120)[0] for process in processes]
        assert {len(each.result()) for each in found} == {3_000_000}
    assert said == ["3000000\n"] * 2
    assert remote.reads == ["a"]


READER = """
import random, sys
from pathlib import Path
from tests.files.remote import Remote
from treenail.adapters.files import FileCache
root = Path(sys.argv[1])
cache, remote = FileCache(root / "cache", max_bytes=2_000_000), Remote(root)
print("ready", flush=True)
while True:
    name = str(random.randrange(8))
    data = cache.read(remote, name)
    assert data == name.encode() * 500_000, "a torn copy"
    if random.random() < 0.3:
        cache.forget(remote, name)
"""


def test_kill_9_at_any_instant_leaves_a_whole_cache(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    for name in "01234567":
        remote.write(name, name.encode() * 500_000)
    for _ in range(KILLS):
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(2)
        ]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0.0, 0.5))
        for reader in readers:
            assert reader.poll() is None, reader.communicate()[1].decode()
            reader.send_signal(signal.SIGKILL)
            reader.communicate()
        cache = FileCache(tmp_path / "cache", max_bytes=2_000_000)
        for name in "01234567":
            assert cache.read(remote, name) == name.encode() * 500_000
        for digest, data in held(cache).items():
            assert len(data) == 500_000, f"{digest} is torn"
    for each in (cache.folder / "unfinished").iterdir():
        os.utime(each, (1, 1))  # as if it had been left a while ago
    remote.write("new", b"n" * 1_900_000)
    cache.read(remote, "new")
    assert not list((cache.folder / "unfinished").iterdir()), "what killed processes left stays"
    assert sum(map(len, held(cache).values())) <= 2_000_000


def test_functions_over_uris_use_it_and_forget_what_they_change(tmp_path: Path) -> None:
    store = MemoryFiles("m://")
    cache = FileCache(tmp_path / "cache", max_bytes=1000, max_age=1000)
    mounts = Mounts(cache=cache)
    mounts.mount("m://", store)
    with use_mounts(mounts):
        put(b"one", "m://a/b.txt")
        with get_local_path("m://a/b.txt") as path:
            assert path.read_bytes() == b"one"
            assert path.is_relative_to(cache.folder)
        put(b"two", "m://a/b.txt")
        assert get("m://a/b.txt") == b"two"
        remove("m://a/b.txt")
        with pytest.raises(FileMissingError):
            get("m://a/b.txt")
        changes: list[Callable[[], object]] = [
            lambda: copyfile(tmp_path / "new", "m://t/f"),
            lambda: copytree(tmp_path / "tree", "m://t"),
            lambda: list(put_many([(b"new", "m://t/f")])),
            lambda: sync(tmp_path / "tree", "m://t"),
            lambda: write_to("m://t/f"),
        ]
        put(b"new", tmp_path / "new")
        put(b"new", tmp_path / "tree" / "f")
        for change in changes:
            put(b"old", "m://t/f")
            assert get("m://t/f") == b"old"
            if change is changes[1]:
                rmtree("m://t")
            change()
            assert get("m://t/f") == b"new"
        put(b"local", tmp_path / "x")
        assert get(tmp_path / "x") == b"local"
        assert b"local" not in held(cache).values(), "a local file was copied"


def test_a_copy_has_the_files_name_and_cannot_be_changed_for_everybody(tmp_path: Path) -> None:
    store, cache = MemoryFiles(), FileCache(tmp_path / "cache", max_bytes=100)
    long = f"d/{'n' * 300}.tar.gz"
    for path in ("d/image.jpeg", "other/image.jpeg", "d/same.png", long):
        store.write(path, b"content")
        with cache.local_copy(store, path) as copy:
            assert copy.read_bytes() == b"content"
            assert copy.suffix == Path(path).suffix
            assert copy.name == Path(path).name or path == long
            assert copy.stat().st_mode & 0o777 == 0o400
    assert len(held(cache)) == 1
    store.write("d/large.bin", b"0" * 101)
    with cache.local_copy(store, "d/large.bin") as copy:
        assert copy.name == "large.bin"
    for number in range(12):  # what is evicted leaves no name behind
        store.write("x", bytes([number]) * 50)
        with cache.local_copy(store, "x"):
            pass
    assert len(list((cache.folder / "names").iterdir())) == len(held(cache)) <= 2


def test_a_cache_that_somebody_emptied_or_littered_goes_on(tmp_path: Path) -> None:
    store, cache = MemoryFiles(), FileCache(tmp_path / "cache", max_bytes=10)
    for number in range(3):
        store.write("a", bytes([number]) * 6)
        assert cache.read(store, "a") == bytes([number]) * 6
        if number == 0:
            shutil.rmtree(cache.folder)
        else:
            (cache.folder / "objects" / "README").write_text("mine")
            (cache.folder / "locks" / "total").write_bytes(b"\xff" * 10_000)


def test_roots_that_look_alike_do_not_share_copies(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", max_bytes=1000, max_age=1000)
    stores = [HttpFiles(f"http://127.0.0.1:1?id={number}") for number in range(2)]
    stores += [HttpFiles(f"http://{user}:secret@127.0.0.1:1") for user in ("me", "you")]
    entries = {cache._entry_path(store, "x") for store in stores}
    assert len(entries) == len(stores)
    assert not any("secret" in entry for entry in entries)


def test_a_fork_while_another_thread_downloads_stops_nobody(tmp_path: Path) -> None:
    """The child has the parent's locked files open; the parent's threads are not in it."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(MemoryFiles):
        def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
            begun.set()
            assert go_on.wait(30)
            return super().read(path, start, length)

    store, cache = Slow(), FileCache(tmp_path / "cache", max_bytes=1000)
    store.write("a", b"content")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(cache.read, store, "a")
        assert begun.wait(30)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        try:
            go_on.set()
            assert found.result(timeout=30) == b"content"
            again = pool.submit(cache.read, store, "a")
            assert again.result(timeout=30) == b"content"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_members_of_a_remote_archive_are_read_from_its_copy(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(50):
            archive.writestr(f"{number}.txt", str(number))
    put(buffer.getvalue(), "memory://archives/set.zip")
    cache = FileCache(tmp_path / "cache", max_bytes=100_000)
    with use_mounts(Mounts(cache=cache)):
        assert [get(f"zip://memory://archives/set.zip!/{number}.txt") for number in range(50)] == [
            str(number).encode() for number in range(50)
        ]
    assert len(held(cache)) == 1, "members were copied besides the archive"


def write_to(uri: str) -> None:
    with put_to(uri) as path:
        path.write_bytes(b"new")


def test_a_cache_that_cannot_be_says_so(tmp_path: Path) -> None:
    for max_bytes, max_age in ((0, 0.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(FileError, match="max_bytes is at least 1"):
            FileCache(tmp_path / "c", max_bytes=max_bytes, max_age=max_age)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot keep local copies"):
        FileCache(tmp_path / "file", max_bytes=1)
    assert FileCache(tmp_path / "mine", max_bytes=1).folder.joinpath("objects").stat().st_mode & 0o77 == 0

"""Directories made equal, local mirrors, and many files at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files import (
    LocalFiles,
    MemoryFiles,
    Mounts,
    current_mounts,
    get,
    get_local_path,
    get_many,
    put,
    put_many,
    remove,
    sync,
    use_mounts,
)
from treenail.kernel import FileBackend, FileError, FileMissingError

PATHS = st.sampled_from(("a", "b", "dd/f", "dd/dd/f", "dd/g", "x y/é"))


def content(backend: FileBackend) -> dict[str, bytes]:
    return {path: backend.read(path) for path in backend.list() if not path.endswith(".treenail-sync")}


@pytest.fixture
def store() -> Iterator[MemoryFiles]:
    files = MemoryFiles("m://")
    mounts = Mounts()
    mounts.mount("m://", files)
    with use_mounts(mounts):
        yield files


@given(
    edits=st.lists(
        st.tuples(st.booleans(), PATHS, st.binary(min_size=1, max_size=2) | st.none() | st.just("sync")), max_size=12
    )
)
@settings(deadline=None, max_examples=60)
def test_after_any_edits_of_both_sides_they_are_equal(edits: list[tuple[bool, str, bytes | str | None]]) -> None:
    source, target = MemoryFiles("s://"), MemoryFiles("t://")
    mounts = Mounts()
    mounts.mount("s://", source)
    mounts.mount("t://", target)
    source.write("keep", b"1")
    for of_the_source, path, data in [*edits, (True, "", "sync")]:
        side = source if of_the_source else target
        if isinstance(data, bytes):
            side.write(path, data)
        elif data is None:
            if path in side.list():
                side.delete(path)
        else:
            sync("s://", "t://", delete=True, mounts=mounts)
            assert content(source) == content(target)


def test_an_edit_that_keeps_size_and_time_is_noticed_and_nothing_else_is_copied(tmp_path: Path) -> None:
    """SCEPTER's directory sync stays stale for ever when the size stays."""
    source = tmp_path / "source"
    for name in ("a", "b", "c/d"):
        put(b"old " + name.encode(), source / name)
        os.utime(source / name, (1000, 1000))
    done = sync(source, tmp_path / "target")
    assert sorted(done.copied) == ["a", "b", "c/d"]
    assert sync(source, tmp_path / "target") == ((), (), 3)
    put(b"new a", source / "a")
    os.utime(source / "a", (1000, 1000))
    (tmp_path / "target" / "b").write_bytes(b"bad b")
    assert sync(source, tmp_path / "target").copied == ("a", "b")
    assert (tmp_path / "target" / "a").read_bytes() == b"new a"
    assert (tmp_path / "target" / "b").read_bytes() == b"old b"
    remove(source / "b")
    put(b"mine", tmp_path / "target" / "mine")
    assert sync(source, tmp_path / "target").deleted == ()
    assert sync(source, tmp_path / "target", delete=True).deleted == ("b", "mine")


def test_threads_that_sync_at_once_copy_once(tmp_path: Path, store: MemoryFiles) -> None:
    for number in range(20):
        store.write(f"data/{number}", bytes([number]) * 1000)
    time.sleep(2.1)  # what is younger than the coarsest clock is copied again
    with ThreadPoolExecutor(4) as pool:
        mounts = current_mounts()  # a thread has its own context
        done = list(pool.map(lambda _: sync("m://data", tmp_path / "here", mounts=mounts), range(4)))
    assert sorted(len(each.copied) for each in done) == [0, 0, 0, 20]


def test_what_cannot_be_synchronised_is_said_and_the_rest_is_copied(tmp_path: Path, store: MemoryFiles) -> None:
    with pytest.raises(FileMissingError, match="there is no such directory"):
        sync("m://none", tmp_path / "x")
    with pytest.raises(FileError, match="lie within each other"):
        sync(tmp_path, tmp_path / "x")
    store.write("d/a", b"a")
    store.write("d/b/c", b"c")
    put(b"a file where a directory must be", tmp_path / "x" / "b")
    with pytest.raises(FileError, match="could not be copied"):
        sync("m://d", tmp_path / "x")
    assert (tmp_path / "x" / "a").read_bytes() == b"a"


def test_a_mirror_keeps_files_under_their_names_and_follows_the_store(tmp_path: Path) -> None:
    store, near = MemoryFiles("m://"), tmp_path / "near"
    mounts = Mounts(mirrors={"m://data/": str(near)})
    mounts.mount("m://", store)
    store.write("data/a/x", b"one")
    store.write("database/x", b"other")
    with use_mounts(mounts):
        with get_local_path("m://data/a/x") as path:
            assert path == near / "a/x"
            assert path.read_bytes() == b"one"
        assert path.read_bytes() == b"one", "a mirrored file stays"
        inode = path.stat().st_ino
        assert get("m://data/a/x", 1) == b"ne"
        assert path.stat().st_ino == inode, "an unchanged file was downloaded again"
        store.write("data/a/x", b"two")
        assert get("m://data/a/x") == b"two"
        path.write_bytes(b"bad")
        assert get("m://data/a/x") == b"two", "a copy that somebody changed was used"
        assert get("m://database/x") == b"other"
        assert not (tmp_path / "base").exists(), "a prefix matched half a name"
        with pytest.raises(FileMissingError), get_local_path("m://data/none"):
            pass


def test_many_files_come_in_order_each_with_its_own_error(tmp_path: Path, store: MemoryFiles) -> None:
    """In SCEPTER one exception in a thread loses that thread's whole share."""
    paths = [f"m://{number:03}" if number % 7 else f"m://none/{number}" for number in range(300)]
    items = [(path[4:].encode(), path) for path in paths if "none" not in path]
    assert [each.error for each in put_many(items, concurrency=5)] == [None] * len(items)
    for path, found in zip(paths, get_many(paths, concurrency=3), strict=True):
        if "none" in path:
            assert isinstance(found, FileMissingError)
        else:
            assert found == path[4:].encode()
    (tmp_path / "local").write_bytes(b"from a file")
    written = list(
        put_many([(tmp_path / "local", "m://l"), (b"", "nope://x"), (tmp_path / "none", "m://n"), (b"2", "m://2")])
    )
    assert [each.path for each in written] == ["m://l", "nope://x", "m://n", "m://2"]
    assert [type(each.error) for each in written] == [type(None), FileError, FileMissingError, type(None)]
    assert get("m://l") == b"from a file"
    for wrong in (get_many, put_many):
        with pytest.raises(FileError, match="concurrency is 0"):
            list(wrong([], concurrency=0))


def test_what_is_read_ahead_is_bounded_and_an_endless_list_is_fine(store: MemoryFiles) -> None:
    store.write("x", b"x")
    asked, lock = 0, threading.Lock()

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            with lock:
                asked += 1
            yield "m://x"

    found = get_many(endless(), concurrency=2)
    assert [next(found) for _ in range(5)] == [b"x"] * 5
    assert asked <= 1024
    found.close()  # type: ignore[attr-defined]  # it is a generator


def test_local_files_and_remote_ones_mix(tmp_path: Path, store: MemoryFiles) -> None:
    LocalFiles(tmp_path).write("a", b"local")
    store.write("b", b"remote")
    assert list(get_many([tmp_path / "a", "m://b", str(tmp_path / "a")])) == [b"local", b"remote", b"local"]

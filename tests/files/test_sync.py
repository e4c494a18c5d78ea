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

from treenail.adapters.cli import main
from treenail.adapters.files import (
    LocalFiles,
    MemoryFiles,
    Mounts,
    copytree,
    current_mounts,
    get,
    get_local_path,
    get_many,
    list_dir_or_file,
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


def test_a_target_may_be_the_root_of_a_store(tmp_path: Path, store: MemoryFiles) -> None:
    store.write("d/a", b"a")
    current_mounts().mount("disk://here", LocalFiles(tmp_path / "root"))
    assert sync("m://d", "disk://here").copied == ("a",)
    assert (tmp_path / "root" / "a").read_bytes() == b"a"
    assert sync("disk://here", "m://back").copied == ("a",)
    assert store.read("back/a") == b"a"


def test_an_edit_in_place_whose_time_is_set_back_is_noticed(tmp_path: Path) -> None:
    put(b"old", tmp_path / "s/f")
    os.utime(tmp_path / "s/f", (1000, 1000))
    sync(tmp_path / "s", tmp_path / "t")
    assert sync(tmp_path / "s", tmp_path / "t").unchanged == 1
    before = (tmp_path / "s/f").stat()
    with (tmp_path / "s/f").open("r+b") as file:
        file.write(b"new")
    os.utime(tmp_path / "s/f", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sync(tmp_path / "s", tmp_path / "t").copied == ("f",)
    assert (tmp_path / "t/f").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["local", "store"])
def test_what_became_a_directory_or_a_file_is_replaced(tmp_path: Path, store: MemoryFiles, kind: str) -> None:
    target = str(tmp_path / "t") if kind == "local" else "m://t"
    put(b"1", "m://s/a")
    put(b"2", "m://s/b/c/d")
    put(b"3", "m://s/x/y/z")
    sync("m://s", target)
    if kind == "local":
        (tmp_path / "t/empty").mkdir()
    for path in ("a", "b/c/d", "x/y/z"):
        remove(f"m://s/{path}")
    put(b"4", "m://s/a/deep/f")
    put(b"5", "m://s/b")
    put(b"6", "m://s/x/y")
    put(b"7", "m://s/empty")
    assert sync("m://s", target, delete=True).deleted == ("a", "b/c/d", "x/y/z")
    expected = {"a/deep/f": b"4", "b": b"5", "x/y": b"6", "empty": b"7"}
    assert {path: get(f"{target}/{path}") for path in expected} == expected
    assert sync("m://s", target, delete=True).deleted == ()


def test_a_link_where_a_file_is_to_be_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, store: MemoryFiles
) -> None:
    put(b"mine", tmp_path / "elsewhere/f")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/d").symlink_to(tmp_path / "elsewhere")
    store.write("s/d", b"file")
    sync("m://s", tmp_path / "t", delete=True)
    assert (tmp_path / "t/d").read_bytes() == b"file"
    assert (tmp_path / "elsewhere/f").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("link", "leads"),
    [
        ("elsewhere", "to a directory"),
        ("sub", "to a directory"),
        (".", "to a directory"),
        ("none", "nowhere"),
        ("d", "in a circle"),
    ],
)
def test_a_link_that_would_be_left_out_is_an_error_that_names_it(tmp_path: Path, link: str, leads: str) -> None:
    source = tmp_path / "s"
    put(b"1", source / "sub/f")
    put(b"2", tmp_path / "elsewhere/f")
    (source / "file").symlink_to("sub/f")
    assert set(sync(source, tmp_path / "t").copied) == {"file", "sub/f"}
    (source / "d").symlink_to(tmp_path / link if link == "elsewhere" else link)
    for copy in (lambda: sync(source, tmp_path / "new"), lambda: copytree(source, tmp_path / "copied")):
        with pytest.raises(FileError, match=f"a symbolic link that leads {leads}") as caught:
            copy()
        assert caught.value.where == str(source / "d")
    assert (tmp_path / "new/sub/f").read_bytes() == b"1", "the rest was copied"
    assert not (tmp_path / "copied").exists()
    assert main(["copy", str(source), str(tmp_path / "new")]) != 0


def test_nothing_is_left_beside_the_target(tmp_path: Path, store: MemoryFiles) -> None:
    store.write("s/f", b"1")
    sync("m://s", tmp_path / "t")
    assert [each.name for each in tmp_path.iterdir()] == ["t"]
    assert list(list_dir_or_file(tmp_path / "t")) == ["f"]
    assert sync(tmp_path / "t", "m://back").copied == ("f",), "its own files are no part of it"


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
    with pytest.raises(FileError, match="concurrency is 0"):
        sync("m://", tmp_path / "x", concurrency=0)


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

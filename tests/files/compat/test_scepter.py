"""SCEPTER's FS over our stores; each bug that was verified there has the right behaviour here."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files import MemoryFiles, Mounts, use_mounts
from treenail.adapters.files.compat.scepter import FS, FileSystem, ReadException, WriteException
from treenail.kernel import Capabilities, FileError, FileMissingError


class Counting(MemoryFiles):
    """Memory that counts its reads and can fail."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self.broken: set[str] = set()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        self.reads.append(path)
        if path in self.broken:
            raise FileError("the network is down", where=path)
        return super().read(path, start, length)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        if path in self.broken:
            raise FileError("the network is down", where=path)
        super().write(path, data)


class ReadOnly(MemoryFiles):
    """Memory that says that it cannot be written."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=False, writable=False)


@pytest.fixture
def store() -> Counting:
    return Counting("oss://bucket/work")


@pytest.fixture
def fs(store: Counting) -> Iterator[FileSystem]:
    system = FileSystem()
    assert system.init_fs_client(store) == "oss://bucket/work"
    yield system
    system.clear()


REMOTE = "oss://bucket/work"


def test_importing_fs_touches_nothing() -> None:
    code = "from treenail.adapters.files.compat.scepter import FS; print(FS, FS.support_prefix)"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "FileSystem() {}\n"
    assert not {"torch", "obstore", "urllib3"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_the_longest_prefix_counts_by_whole_parts(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    inner = MemoryFiles("oss://bucket/work/inner")
    fs.init_fs_client(inner)
    fs.put_object(b"1", f"{REMOTE}/inner/x")
    fs.put_object(b"2", f"{REMOTE}/innermost/x")
    assert (list(inner.list()), list(store.list())) == (["x"], ["innermost/x"])
    assert repr(fs) == "FileSystem(oss://bucket/work, oss://bucket/work/inner)"
    with fs.get_fs_client(f"{REMOTE}/inner/x", safe=True) as client:
        assert client.get_prefix() == "oss://bucket/work/inner"
        assert client.get_object(f"{REMOTE}/inner/x") == b"1"
    assert fs.get_fs_client(str(tmp_path)).support_write()
    replaced = MemoryFiles("oss://bucket/work/inner")
    assert fs.init_fs_client(replaced, overwrite=False) == "oss://bucket/work/inner"
    assert fs.get_object(f"{REMOTE}/inner/x") == b"1"
    fs.init_fs_client(replaced)
    assert not fs.exists(f"{REMOTE}/inner/x")


def test_configs_make_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    fs = FileSystem()
    assert fs.init_fs_client() == fs.init_fs_client({"NAME": "LocalFs", "TEMP_DIR": None}) == str(tmp_path)
    assert fs.init_fs_client({"NAME": "HttpFs", "RETRY_TIMES": 3}) == "http"
    bucket = {"NAME": "AliyunOssFs", "BUCKET": "b", "PREFIX": "/p/", "ENDPOINT": "oss-cn-hangzhou.aliyuncs.com"}
    assert fs.init_fs_client({**bucket, "OSS_AK": "$AK", "OSS_SK": "$SK", "WRITABLE": False}) == "oss://b/p"
    with pytest.raises(WriteException, match="read only"):
        fs.put_object(b"", "oss://b/p/x")
    for wrong, message in (
        ({}, "NAME is None"),
        ({"NAME": "LocalFS"}, "did you mean 'LocalFs'"),
        ({"NAME": "LocalFs", "TEMPDIR": "x"}, "did you mean 'TEMP_DIR'"),
        ({"NAME": "AliyunOssFs"}, "no BUCKET"),
        ({**bucket, "OSS_AK": "LTAI-secret"}, "does not belong into a config"),
    ):
        with pytest.raises(FileError, match=message) as raised:
            fs.init_fs_client(wrong)
        assert "secret" not in str(raised.value)


def test_a_prefix_of_http_does_not_take_local_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fs = FileSystem()
    fs.init_fs_client({"NAME": "HttpFs"})
    assert fs.put_object("text", "http_logs/a.txt")
    assert (tmp_path / "http_logs" / "a.txt").read_text() == "text"


def test_an_unregistered_scheme_is_no_local_path() -> None:
    fs = FileSystem()
    for wrong in (fs.get_object, fs.get_from, fs.is_local_client, fs.exists, lambda path: fs.put_object(b"", path)):
        with pytest.raises((ReadException, WriteException), match="nothing serves the scheme 'nowhere'"):
            wrong("nowhere://bucket/x")
    assert fs.is_local_client("memory://bucket/x") is False
    assert fs.is_local_client("some/file") is True


def test_what_is_missing_is_an_error_and_what_is_empty_is_not(fs: FileSystem, tmp_path: Path) -> None:
    fs.put_object(b"", f"{REMOTE}/empty")
    assert fs.get_object(f"{REMOTE}/empty") == b""
    assert fs.size(f"{REMOTE}/empty") == 0
    calls = (fs.get_object, fs.get_from, fs.size, fs.get_dir_to_local_dir, lambda path: list(fs.walk_dir(path)))
    streams = (lambda path: fs.get_object_stream(path, 0), fs.get_object_chunk_list)
    for missing in (f"{REMOTE}/none", str(tmp_path / "none")):
        for call in (*calls, *streams, lambda path: fs.get_from(path, tmp_path / "copy")):
            with pytest.raises(ReadException) as raised:
                call(missing)
            assert isinstance(raised.value, FileMissingError)
            assert isinstance(raised.value, FileNotFoundError)
        assert not fs.delete_object(missing)
        assert fs.get_url(missing) is None
        assert not fs.exists(missing)
    assert not (tmp_path / "copy").exists()


def test_files_come_and_go(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    (tmp_path / "local.bin").write_bytes(b"\x00\xff")
    assert fs.put_object_from_local_file(tmp_path / "local.bin", f"{REMOTE}/a/b.bin")
    with fs.get_from(f"{REMOTE}/a/b.bin") as path, fs.get_object(f"{REMOTE}/a/b.bin") as data:
        assert Path(path).read_bytes() == data == b"\x00\xff"
        assert Path(path).name == "b.bin"
    before = len(store.reads)
    assert fs.get_from(f"{REMOTE}/a/b.bin") == path
    assert len(store.reads) == before  # it has not changed
    store.write("a/b.bin", b"\x00\xfe")  # of the same size
    assert Path(fs.get_from(f"{REMOTE}/a/b.bin")).read_bytes() == b"\x00\xfe"
    assert fs.get_from(f"{REMOTE}/a/b.bin", tmp_path / "deep" / "c") == str(tmp_path / "deep" / "c")
    assert (tmp_path / "deep" / "c").read_bytes() == b"\x00\xfe"
    assert fs.get_from(str(tmp_path / "local.bin")) == str(tmp_path / "local.bin")
    assert fs.delete_object(f"{REMOTE}/a/b.bin")
    assert not fs.delete_object(str(tmp_path))
    fs.clear()
    assert not Path(path).exists()


def test_put_to_uploads_only_what_was_finished(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    for target in (f"{REMOTE}/x.txt", str(tmp_path / "x.txt")):
        with fs.put_to(target) as local:
            Path(local).write_text("old")
        with pytest.raises(ZeroDivisionError), fs.put_to(target) as local:
            raise ZeroDivisionError(Path(local).write_text("half"))
        assert not Path(local).exists()
        assert fs.get_object(target) == b"old"
        with pytest.raises(WriteException, match="nothing was written"), fs.put_to(target):
            pass
    store.broken.add("x.txt")
    with pytest.raises(WriteException, match="network"), fs.put_to(f"{REMOTE}/x.txt") as local:
        Path(local).write_text("new")
    assert os.listdir(tmp_path) == ["x.txt"]


def test_directories_keep_their_trees(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    top = tmp_path / "dd"
    for path in ("f", "dd/f", "dd/dd/f", ".hidden"):  # repeated names
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)
    (top / "nothing").mkdir()
    for target in (f"{REMOTE}/dd", str(tmp_path / "copy")):
        assert fs.put_dir_from_local_dir(top, target)
        assert fs.put_dir_from_local_dir(top, target, multi_thread=True)  # over what is there
        back = fs.get_dir_to_local_dir(target, tmp_path / f"back{len(target)}")
        for path in ("f", "dd/f", "dd/dd/f", ".hidden"):
            assert (Path(back) / path).read_text() == path
    assert (tmp_path / "copy" / "nothing").is_dir()
    assert list(store.list("dd")) == ["dd/.hidden", "dd/dd/dd/f", "dd/dd/f", "dd/f"]
    store.broken.add("dd/f")
    with pytest.raises(WriteException, match="network"):
        fs.put_dir_from_local_dir(top, f"{REMOTE}/dd")


def test_a_directory_notices_every_change(fs: FileSystem, store: Counting) -> None:
    store.write("d/a", b"1")
    folder = Path(fs.get_dir_to_local_dir(f"{REMOTE}/d"))
    assert (folder / "a").read_bytes() == b"1"
    store.write("d/a", b"2")  # of the same size
    store.write("d/new", b"3")
    assert Path(fs.get_dir_to_local_dir(f"{REMOTE}/d", sign_key="a", worker_id=3)) == folder
    assert ((folder / "a").read_bytes(), (folder / "new").read_bytes()) == (b"2", b"3")
    store.delete("d/new")
    fs.get_dir_to_local_dir(f"{REMOTE}/d", wait_finish=False)
    assert not (folder / "new").exists()


def test_waiting_for_a_directory_has_a_limit_in_seconds(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    from treenail.adapters.files import locked

    store.write("d/a", b"1")
    with locked(tmp_path / ".d.treenail-fs.lock"), pytest.raises(ReadException, match="another process"):
        fs.get_dir_to_local_dir(f"{REMOTE}/d", tmp_path / "d", wait_finish=True, timeout=0.2)
    assert fs.get_dir_to_local_dir(f"{REMOTE}/d", tmp_path / "d", wait_finish=True, timeout=60.0)


@pytest.mark.parametrize("given", [None, "copy"])
def test_one_of_many_downloads_and_the_others_wait(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Counting("oss://bucket/shared")
    store.write("model.bin", b"x" * 1000)
    ranks = [FileSystem() for _ in range(6)]  # each with temporary copies of its own, as processes have
    found: list[str] = []
    start = threading.Barrier(len(ranks))

    def fetch(fs: FileSystem) -> None:
        fs.init_fs_client(store)
        start.wait()
        target = None if given is None else tmp_path / given
        found.append(fs.get_from("oss://bucket/shared/model.bin", target, wait_finish=True))

    threads = [threading.Thread(target=fetch, args=(fs,)) for fs in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(ranks)
    assert len(set(found)) == 1
    assert Path(found[0]).read_bytes() == b"x" * 1000
    assert store.reads == ["model.bin"]


def test_processes_share_a_download(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0" * 100_000)
    code = (
        "import sys; from treenail.adapters.files import Mounts, use_mounts, LocalFiles\n"
        "from treenail.adapters.files.compat.scepter import FileSystem\n"
        "class Far:\n"
        "    uri = 'far://x'\n"
        f"    inner = LocalFiles({str(tmp_path)!r})\n"
        "    def __getattr__(self, name):\n"
        "        if name in {'local_path', 'is_directory', 'copy', 'stream'}: raise AttributeError(name)\n"
        "        return getattr(self.inner, name)\n"
        "    def read(self, path, start=0, length=None):\n"
        f"        open({str(tmp_path / 'reads')!r}, 'a').write('r')\n"
        "        return self.inner.read(path, start, length)\n"
        "far = Far()\n"
        "with use_mounts(Mounts()) as mounts:\n"
        "    mounts.mount('far://x', far)\n"
        "    print(FileSystem().get_from('far://x/big', wait_finish=True))\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    found = {rank.communicate(timeout=60)[0] for rank in ranks}
    assert [rank.returncode for rank in ranks] == [0, 0, 0]
    assert len(found) == 1
    assert Path(found.pop().strip()).read_bytes() == b"0" * 100_000
    assert (tmp_path / "reads").read_text() == "r"


def test_batches_come_in_order_and_an_error_costs_one_file(fs: FileSystem, store: Counting) -> None:
    paths = [f"{REMOTE}/{number}" for number in range(50)]
    for number in range(50):
        if number != 7:
            store.write(str(number), str(number).encode())
    found = list(fs.get_batch_objects_from(paths))
    assert [None if each is None else Path(str(each)).read_text() for each in found] == [
        None if number == 7 else str(number) for number in range(50)
    ]
    store.broken.add("3")
    store.write("23", b"23 again")
    fresh = FileSystem()
    fresh.init_fs_client(store)
    generator = fresh.get_batch_objects_from(paths, return_target_path=True)
    assert [index for index in range(50) if next(generator) == (paths[index], None)] == [3, 7]
    with pytest.raises(ReadException, match="1 files could not be read: the network"):
        next(generator)


def test_batches_are_written_in_order_with_a_flag_for_each(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    store.broken.add("bad")
    sources: list[str | bytes | io.BytesIO | None] = [
        str(tmp_path / "a"),
        str(tmp_path / "a"),
        b"bytes",
        io.BytesIO(b"io"),
        None,
        b"x",
        str(tmp_path / "none"),
    ]
    targets = [f"{REMOTE}/{name}" for name in ("1", "2", "3", "4", "5", "bad", "6")]
    done = list(fs.put_batch_objects_to(sources, targets, batch_size=2))
    assert [(each.local_path, each.target_path) for each in done] == list(zip(sources, targets, strict=True))
    assert [ok for _, _, ok in done] == [
        True,
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # duplicates have their own targets
    assert {path: store.read(path) for path in store.list()} == {"1": b"a", "2": b"a", "3": b"bytes", "4": b"io"}
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(ValueError, match="2 sources, 1 targets"):
        fs.put_batch_objects_to([b"", b""], targets[:1])


RECORDS = st.lists(st.binary(max_size=6).map(lambda each: each.replace(b"\n", b"")), max_size=8).map(b"\n".join)


@settings(max_examples=100, deadline=None)
@given(RECORDS | st.binary(max_size=30), st.integers(1, 9), st.sampled_from([None, "\n", b"\n", "\n\n"]))
def test_windows_and_chunks_lose_no_byte(data: bytes, size: int, delimiter: str | bytes | None) -> None:
    fs = FileSystem()
    fs.init_fs_client(store := MemoryFiles("oss://b"))
    store.write("f", data)
    seen, start = [], 0
    while start < len(data):
        part, following = fs.get_object_stream("oss://b/f", start, size, delimiter)
        assert following > start
        seen.append(bytes(part))
        start = following
    assert b"".join(seen) == data
    mark = delimiter.encode() if isinstance(delimiter, str) else delimiter
    for numbers in ({"chunk_num": size}, {"chunk_size": size}):
        chunks = fs.get_object_chunk_list("oss://b/f", delimiter=delimiter, **numbers)
        parts = list(fs.iterate_object_chunks("oss://b/f", delimiter=delimiter, **numbers))
        assert b"".join(parts) == data
        assert [len(part) for part in parts] == [length for _, length in chunks]
        if mark is not None:
            ends = {sum(map(len, parts[:index])) for index in range(1, len(parts))}
            assert all(data[:end].endswith(mark) for end in ends)
        elif "chunk_size" in numbers:
            assert all(length == size for _, length in chunks[:-1])


def test_chunks_of_no_number_are_an_error_not_endless(fs: FileSystem, store: Counting) -> None:
    store.write("f", b"0\n1\n")
    assert fs.get_object_stream(f"{REMOTE}/f", 0, 1, "\n") == (b"0\n", 2)  # record 0 is not lost
    assert fs.get_object_chunk_list(f"{REMOTE}/f", delimiter="\n") == [[0, 4]]
    for numbers in ((0, -1), (-1, -1), (0, 0)):
        with pytest.raises(ReadException, match="at least 1"):
            fs.get_object_chunk_list(f"{REMOTE}/f", *numbers)
    store.write("one", b"x")
    assert fs.get_object_chunk_list(f"{REMOTE}/one", chunk_size=2) == [[0, 1]]
    assert fs.get_object_stream(f"{REMOTE}/one", 0) == (b"x", 1)


def test_mapped_directories_keep_what_is_read(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    store.write("a/x/1", b"1")
    store.write("ab/x", b"2")
    fs.add_target_local_map(f"{REMOTE}/a", tmp_path / "kept")
    assert fs.map_to_local(f"{REMOTE}/a/x/1") == (str(tmp_path / "kept" / "x" / "1"), False)
    assert not (tmp_path / "kept").exists()
    assert fs.get_from(f"{REMOTE}/a/x/1") == str(tmp_path / "kept" / "x" / "1")
    local, temporary = fs.map_to_local(f"{REMOTE}/ab/x")  # not below the map
    assert temporary
    assert not Path(local).is_relative_to(tmp_path / "kept")
    assert fs.get_from(f"{REMOTE}/ab/x") == local
    assert fs.map_to_local(str(tmp_path / "f")) == (str(tmp_path / "f"), False)
    fs.put_object(b"3", f"{REMOTE}/a/x/1")
    assert fs.get_object(f"{REMOTE}/a/x/1") == b"3"
    with pytest.raises(ReadException):
        fs.get_from(f"{REMOTE}/a/../../ab/x")


def test_a_temp_dir_is_kept_unless_it_is_to_be_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting("memory://cached")
    store.write("x", b"1")
    monkeypatch.chdir(tmp_path)
    for clean in (False, True):
        fs = FileSystem()
        fs.init_fs_client({"NAME": "LocalFs"})
        from treenail.adapters.files.compat.scepter_stores import Store

        fs._mounts.stores["memory://cached"] = Store("memory://cached", store, folder=tmp_path / "cache", clean=clean)
        local = fs.get_from("memory://cached/x")
        assert Path(local).is_relative_to(tmp_path / "cache")
        fs.clear()
        assert Path(local).exists() is not clean


def test_walks_lists_and_directories(fs: FileSystem, store: Counting, tmp_path: Path) -> None:
    (tmp_path / "w" / "d" / "e").mkdir(parents=True)
    (tmp_path / "w" / "b").write_text("")
    (tmp_path / "w" / "d" / "a").write_text("")
    fs.put_dir_from_local_dir(tmp_path / "w", f"{REMOTE}/w")
    for top, empty in ((str(tmp_path / "w"), ["d/e"]), (f"{REMOTE}/w/", [])):
        lead = top.rstrip("/")
        assert list(fs.walk_dir(top, recurse=False)) == [f"{lead}/b", f"{lead}/d"]
        assert list(fs.walk_dir(top)) == [f"{lead}/{each}" for each in ("b", "d", "d/a", *empty)]
    assert fs.make_dir(str(tmp_path / "w" / "new"))
    assert not fs.make_dir(str(tmp_path / "w" / "b"))  # a file
    assert fs.make_dir(f"{REMOTE}/new")
    assert [fs.isfile(f"{REMOTE}/w/b"), fs.isdir(f"{REMOTE}/w"), fs.isdir(f"{REMOTE}/w/b")] == [True, True, False]
    assert [fs.is_local_client(f"{REMOTE}/w"), fs.is_local_client("file:///tmp/x")] == [False, True]


def test_urls(fs: FileSystem, store: Counting) -> None:
    class Signing(MemoryFiles):
        def sign(self, path: str, *, method: str = "GET", expires: float = 3600.0) -> str:
            return f"https://signed/{path}?{method}&{expires}"

    signing = Signing("oss://signing")
    signing.write("a", b"")
    fs.init_fs_client(signing)
    assert fs.get_url("oss://signing/a") == "https://signed/a?GET&360000"
    assert fs.get_url("oss://signing/b") is None
    assert fs.get_url("oss://signing/b", skip_check=True, lifecycle=5) == "https://signed/b?GET&5"
    store.write("a", b"")
    assert fs.get_url(f"{REMOTE}/a") == f"{REMOTE}/a"
    with pytest.raises(NotImplementedError):
        fs.get_url("oss://signing/a", set_public=True)


def test_a_store_that_is_read_only_refuses(fs: FileSystem, tmp_path: Path) -> None:
    fs.init_fs_client(ReadOnly("oss://fixed"))
    assert not fs.get_fs_client("oss://fixed/x").support_write()
    (tmp_path / "f").write_text("")
    for write in (
        lambda: fs.put_object(b"", "oss://fixed/x"),
        lambda: fs.put_object_from_local_file(tmp_path / "f", "oss://fixed/x"),
        lambda: fs.put_dir_from_local_dir(tmp_path, "oss://fixed/x"),
        lambda: fs.delete_object("oss://fixed/x"),
        lambda: fs.make_dir("oss://fixed/x"),
        lambda: fs.put_to("oss://fixed/x").__enter__(),
    ):
        with pytest.raises(WriteException, match="read only"):
            write()


def test_it_is_pickled_and_the_mounts_in_use_count(tmp_path: Path) -> None:
    with use_mounts(Mounts({"data/": str(tmp_path)})):
        assert FS.put_object("x", "data/x")
        assert pickle.loads(pickle.dumps(FS)).get_object("data/x") == b"x"
    assert (tmp_path / "x").read_text() == "x"

"""easycore's PathManager over our stores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from treenail.adapters.files import MemoryFiles, Mounts, use_mounts
from treenail.adapters.files.compat.easycore import (
    HTTPURLHandler,
    MountedPathHandler,
    NativePathHandler,
    PathHandler,
    PathManager,
    PathManagerType,
    RedirectPathHandler,
    download_file,
    file_lock,
)
from treenail.kernel import FileError, TreenailError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFiles]:
    """Let s3://bucket mean this process's memory, and copies lie in a folder of the test's."""
    monkeypatch.setenv("EASYCORE_CACHE", str(tmp_path / "cache"))
    files = MemoryFiles("s3://bucket")
    mounts = Mounts()
    mounts.mount("s3://bucket", files)
    with use_mounts(mounts):
        yield files


def test_the_examples_of_its_guide_on_local_paths(tmp_path: Path) -> None:
    top = str(tmp_path / "a" / "b")
    PathManager.makedirs(top)
    PathManager.makedirs(top)
    with PathManager.open(f"{top}/f.txt", "w", encoding="utf-8") as file:
        file.write("é")
    with PathManager.open(f"{top}/f.txt") as file:
        assert file.read() == "é"
    assert [PathManager.exists(top), PathManager.isfile(f"{top}/f.txt"), PathManager.isdir(f"{top}/f.txt")] == [
        True,
        True,
        False,
    ]
    assert PathManager.listdir(top) == ["f.txt"]
    assert PathManager.copy(f"{top}/f.txt", f"{top}/g.txt")
    assert not PathManager.copy(f"{top}/f.txt", f"{top}/g.txt")
    assert PathManager.copy(f"{top}/f.txt", f"{top}/g.txt", overwrite=True)
    assert PathManager.get_local_path(f"{top}/g.txt") == f"{top}/g.txt"
    with pytest.raises(IsADirectoryError):
        PathManager.remove(top)
    for name in PathManager.listdir(top):
        PathManager.remove(f"{top}/{name}")
    with pytest.raises(FileNotFoundError) as raised:
        PathManager.remove(f"{top}/f.txt")
    assert isinstance(raised.value, TreenailError)
    (tmp_path / "stays").write_text("")
    PathManager.removedirs(top)
    assert os.listdir(tmp_path) == ["stays"]


def test_a_remote_file_is_opened_in_every_mode(store: MemoryFiles) -> None:
    path = "s3://bucket/d/f.txt"
    with PathManager.open(path, "w") as file:
        file.write("a\n")
        assert not PathManager.exists(path)  # published when it is closed
    with PathManager.open(path, "ab") as binary:
        binary.write(b"b\n")
    with PathManager.open(path, "r+", newline="") as file:
        assert file.read() == "a\nb\n"
        file.write("c\r\n")
    assert store.read("d/f.txt") == b"a\nb\nc\r\n"
    with PathManager.open(path, encoding="latin-1") as file:
        assert file.readlines() == ["a\n", "b\n", "c\n"]
    with PathManager.open("s3://bucket/new", "x") as file:
        file.write("n")
    with pytest.raises(FileExistsError):
        PathManager.open("s3://bucket/new", "x")
    with pytest.raises(FileNotFoundError):
        PathManager.open("s3://bucket/none")
    with pytest.raises(FileNotFoundError):
        PathManager.open("s3://bucket/none", "r+")
    with pytest.raises(IsADirectoryError):
        PathManager.open("s3://bucket/d", "w")
    for mode in ("w", "wb", "w+b"):
        with pytest.raises(ZeroDivisionError), PathManager.open("s3://bucket/new", mode) as file:
            raise ZeroDivisionError
    assert store.read("new") == b"n"


def test_a_remote_directory(store: MemoryFiles) -> None:
    for path in ("d/b", "d/a/x", ".h"):
        store.write(path, b"")
    assert sorted(PathManager.listdir("s3://bucket")) == [".h", "d"]
    assert PathManager.listdir("s3://bucket/d") == ["b", "a"]
    with pytest.raises(FileExistsError):
        PathManager.removedirs("s3://bucket/d")
    PathManager.remove("s3://bucket/d/b")
    assert not PathManager.exists("s3://bucket/d/b")


def test_copies_to_and_from_a_redirected_prefix(store: MemoryFiles, tmp_path: Path) -> None:
    manager = PathManagerType()
    manager.register(RedirectPathHandler("model://", "s3://bucket/models/", manager=manager))
    (tmp_path / "f").write_text("1")
    assert manager.copy(tmp_path / "f", "model://mode/f")  # easycore raises AttributeError
    assert store.read("models/mode/f") == b"1"  # its lstrip would take "mode" away, too
    assert manager.copy("model://mode/f", tmp_path / "g")
    assert (tmp_path / "g").read_text() == "1"
    assert [manager.exists("model://mode"), manager.isdir("model://mode"), manager.isfile("model://mode/f")] == [
        True
    ] * 3
    assert manager.listdir("model://mode") == ["f"]
    with manager.open("model://mode/f") as file:
        assert file.read() == "1"
    manager.makedirs("model://new")
    manager.remove("model://mode/f")
    manager.removedirs("model://mode")
    assert not manager.exists("model://mode/f")
    with pytest.raises(ValueError, match="leads to itself"):
        RedirectPathHandler("a://", "a://b")


def test_a_copy_that_fails_is_an_error(store: MemoryFiles, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PathManager.copy(tmp_path / "none", "s3://bucket/x")
    with pytest.raises(FileNotFoundError):
        PathManager.copy_from_local(tmp_path / "none", tmp_path / "x")
    store.write("d/x", b"")
    (tmp_path / "f").write_text("")
    with pytest.raises(IsADirectoryError):
        PathManager.copy(tmp_path / "f", "s3://bucket/d", overwrite=True)


def test_a_local_copy_is_as_new_as_the_file(store: MemoryFiles, tmp_path: Path) -> None:
    store.write("d/weights.pt", b"1")
    local = PathManager.get_local_path("s3://bucket/d/weights.pt")
    assert Path(local).is_relative_to(tmp_path / "cache" / "s3")
    assert Path(local).name == "weights.pt"
    store.write("d/weights.pt", b"2")
    assert Path(PathManager.get_local_path("s3://bucket/d/weights.pt")).read_bytes() == b"2"


def test_handlers_have_the_longest_prefix_and_one_each(tmp_path: Path) -> None:
    class Named(PathHandler):
        def __init__(self, *prefixes: str) -> None:
            self.prefixes = [*prefixes]

        def get_supported_prefixes(self) -> list[str]:
            return self.prefixes

        def get_local_path(self, path: str) -> str:
            return f"{self.prefixes}{path}"

    manager = PathManagerType()
    manager.register(Named("a://"))
    manager.register_handler(Named("a://b/"))
    assert manager.get_local_path("a://b/c") == "['a://b/']a://b/c"
    assert manager.get_local_path("a://c") == "['a://']a://c"
    with pytest.raises(ValueError, match="has a handler"):
        manager.register(Named("x://", "a://"))
    manager.register(Named("a://", "x://"), override=True)
    assert manager.get_local_path("a://c") == "['a://', 'x://']a://c"
    with pytest.raises(TypeError):
        manager.register(tmp_path)  # type: ignore[arg-type]  # wrong on purpose
    for wrong in (manager.exists, manager.open, manager.listdir, manager.remove, manager.removedirs, manager.makedirs):
        with pytest.raises(NotImplementedError, match="Named"):
            wrong("a://c")
    with pytest.raises(FileError, match="nothing serves the scheme 'nowhere'"):
        manager.exists("nowhere://x")
    assert PathHandler().get_cache_dir("http").endswith("/http")


def test_native_paths_are_not_mounted(tmp_path: Path, store: MemoryFiles) -> None:
    with use_mounts(Mounts({str(tmp_path): "s3://elsewhere"})):
        assert NativePathHandler().isdir(str(tmp_path))
    assert MountedPathHandler(prefixes=("m://",)).get_supported_prefixes() == ["m://"]


def test_a_query_is_another_file_and_what_is_missing_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCORE_CACHE", str(tmp_path / "cache"))

    class Echo(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(self.path.encode())

        def do_HEAD(self) -> None:
            found = "none" not in self.path
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(self.path.encode()) if found else 0))
            self.send_header("Last-Modified", "Mon, 06 Jan 2020 00:00:00 GMT")
            self.end_headers()
            if not found:
                self.path = ""

        def log_message(self, *_: object) -> None:
            pass

    manager = PathManagerType()
    manager.register(HTTPURLHandler())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Echo, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with manager.open(f"{url}/f?v=1") as first, manager.open(f"{url}/f?v=2") as second:
            assert [first.read(), second.read()] == ["/f?v=1", "/f?v=2"]
        assert not manager.exists(f"{url}/none")
        assert manager.isfile(f"{url}/f")
        server.shutdown()


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with file_lock(tmp_path / "deep" / "f"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_a_download_is_made_once_and_whole(store: MemoryFiles, tmp_path: Path) -> None:
    store.write("d/weights.bin", b"1" * 3_000_000)
    path = download_file("s3://bucket/d/weights.bin", str(tmp_path / "new" / "folder"))
    assert path == str(tmp_path / "new" / "folder" / "weights.bin")
    assert Path(path).read_bytes() == b"1" * 3_000_000
    store.write("d/weights.bin", b"2")
    assert download_file("s3://bucket/d/weights.bin", tmp_path / "new" / "folder", progress=False) == path
    assert Path(path).read_bytes() == b"1" * 3_000_000, "what is there stays"
    other = download_file("s3://bucket/d/weights.bin", tmp_path, filename="other.bin", progress=False)
    assert Path(other).read_bytes() == b"2"


def test_a_download_of_nothing_leaves_nothing(store: MemoryFiles, tmp_path: Path) -> None:
    store.write("empty", b"")
    with pytest.raises(OSError, match="the file is empty") as raised:
        download_file("s3://bucket/empty", tmp_path)
    assert isinstance(raised.value, FileError)
    with pytest.raises(FileNotFoundError):
        download_file("s3://bucket/missing", tmp_path)
    for wrong in ("../up", "/etc/x", ".."):
        with pytest.raises(FileError, match="not a path below the root"):
            download_file("s3://bucket/empty", tmp_path / "inner", filename=wrong)
    assert not [each for each in tmp_path.rglob("*") if each.suffix != ".lock"]


def test_processes_that_want_the_same_download_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Slow(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.bin").write_bytes(b"1" * 100_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = f"""
from treenail.adapters.files.compat.easycore import download_file
print(download_file('http://127.0.0.1:{server.server_port}/a.bin', '{tmp_path}/here', progress=False))
"""
        started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [each.communicate()[0] for each in started]
        server.shutdown()
    assert said == [f"{tmp_path}/here/a.bin\n"] * 2
    assert asked == ["/a.bin"]

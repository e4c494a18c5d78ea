"""Any filesystem of fsspec is a file backend: laws over its memory and local filesystems, and what is its own."""

import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from treenail.adapters.files.fsspec_files import FsspecFiles
from treenail.contracts.files import CopiesFiles, ScansFiles
from treenail.contracts.laws import FileBackendLaws
from treenail.contracts.laws._file_model import NAMES
from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend, FileError, FileMissingError, MissingDependencyError


class TestOverLocal(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> FileBackend:
        return FsspecFiles(f"local://{mkdtemp(dir=self.directory)}")


class TestOverMemory(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _forgotten_afterwards(self) -> Iterator[None]:
        yield
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]

    def make(self) -> FileBackend:
        return FsspecFiles(f"memory://{uuid4().hex}")


class CachingFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local filesystem that keeps listings, as those of remote stores do, and has no move of its own."""

    protocol = ("caching",)
    mv = fsspec.AbstractFileSystem.mv
    made: list[int] = []  # noqa: RUF012  (each instance notes its thread)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.made.append(threading.get_ident())

    @classmethod
    def _strip_protocol(cls, path: object) -> str:
        return str(LocalFileSystem._strip_protocol(str(path).removeprefix("caching://")))

    def ls(self, path: str, detail: bool = False, **options: object) -> list[object]:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
            return list(LocalFileSystem.ls(self, path, detail=detail))
        found = self.dircache[path]
        return list(found if detail else [each["name"] for each in found])


class PlainFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A filesystem of which nothing is known but what every one has."""

    protocol = "plain"
    made: list[int] = []  # noqa: RUF012  (each instance notes its thread)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.made.append(threading.get_ident())

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        return Path(self._strip_protocol(path)).read_bytes()[start:end]


@pytest.fixture(autouse=True)
def _own_schemes() -> None:
    fsspec.register_implementation("caching", CachingFileSystem, clobber=True)
    fsspec.register_implementation("plain", PlainFileSystem, clobber=True)
    CachingFileSystem.made.clear()
    PlainFileSystem.made.clear()


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_names_that_mean_something_to_fsspec_are_taken_literally(scheme: str, tmp_path: Path) -> None:
    backend = FsspecFiles(f"{scheme}://{tmp_path}")
    names = ["**", "a::b", "file:/x", "simplecache::y", "{a,b}", "x*y", "z?"]
    for name in names:
        backend.write(name, name.encode())
    assert list(backend.list()) == sorted(names, key=str.encode)
    for name in names:
        assert backend.read(name) == name.encode()
    backend.delete("**")
    assert "x*y" in list(backend.list()), "a name that looks like a pattern deleted others"
    MemoryFileSystem.store.clear()


def test_what_others_change_is_seen_at_once(tmp_path: Path) -> None:
    """A filesystem's cache of listings gives no stale answers."""
    backend = FsspecFiles(f"caching://{tmp_path}")
    assert list(backend.list()) == []
    (tmp_path / "new").write_bytes(b"1")
    assert list(backend.list()) == ["new"]
    assert backend.stat("new").size == 1
    (tmp_path / "new").write_bytes(b"22")
    assert backend.stat("new").size == 2
    assert [stat.size for _, stat in backend.scan()] == [2]
    (tmp_path / "new").unlink()
    assert list(backend.list()) == []


def test_a_filesystem_of_unknown_safety_is_made_for_each_thread(tmp_path: Path) -> None:
    fsspec.register_implementation("plain", PlainFileSystem, clobber=True)
    (tmp_path / "a").write_bytes(b"a")
    backend = FsspecFiles(f"plain://{tmp_path}")
    for _ in range(2):
        assert backend.read("a") == b"a"
    assert PlainFileSystem.made == [threading.get_ident()]
    found: list[bytes] = []
    worker = threading.Thread(target=lambda: found.append(backend.read("a")))
    worker.start()
    worker.join()
    assert found == [b"a"]
    assert len(set(PlainFileSystem.made)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_makes_its_own_filesystem(tmp_path: Path) -> None:
    backend = FsspecFiles(f"caching://{tmp_path}")
    backend.write("a", b"a")
    before = len(CachingFileSystem.made)
    child = os.fork()
    if child == 0:
        good = backend.read("a") == b"a" and len(CachingFileSystem.made) == before + 1
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_it_has_what_fsspec_can_do(tmp_path: Path) -> None:
    backend = FsspecFiles(f"local://{tmp_path}")
    assert isinstance(backend, CopiesFiles)
    assert isinstance(backend, ScansFiles)
    backend.write("d/a", b"abc")
    backend.copy("d/a", "e/b")
    assert backend.read("e/b") == b"abc"
    assert [(path, stat.size) for path, stat in backend.scan()] == [("d/a", 3), ("e/b", 3)]
    with pytest.raises(FileMissingError):
        backend.copy("missing", "e/b")
    assert backend.read("e/b") == b"abc"


def test_a_copy_within_a_filesystem_that_cannot_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CachingFileSystem, "cp_file", fsspec.AbstractFileSystem.cp_file)
    backend = FsspecFiles(f"caching://{tmp_path}")
    backend.write("a", b"abc")
    backend.copy("a", "d/b")
    assert backend.read("d/b") == b"abc"


def test_a_large_write_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(20_000_000)
        raise ValueError("the source broke")

    backend = FsspecFiles(f"local://{tmp_path}")
    with pytest.raises(ValueError, match="the source broke"):
        backend.write("a", chunks())
    assert list(tmp_path.rglob("*")) == []


def test_a_large_write_comes_whole(tmp_path: Path) -> None:
    backend = FsspecFiles(f"local://{tmp_path}")
    backend.write("a", (bytes([number]) * 2_000_000 for number in range(10)))
    assert backend.read("a") == b"".join(bytes([number]) * 2_000_000 for number in range(10))


def test_a_full_temporary_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    """Files may have 10 MB here: what is gathered before it is sent does not fit."""
    code = f"""
import resource, signal
from treenail.adapters.files.fsspec_files import FsspecFiles
from treenail.kernel import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
try:
    FsspecFiles('local://{tmp_path}').write('a', (bytes(1_000_000) for _ in range(20)))
except FileError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot gather: File too large; free some space" in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FsspecFiles(f"local://{tmp_path}")
    backend.write("a", b"old")

    def broken(self: LocalFileSystem, path: str, value: bytes, **_: object) -> None:
        Path(path).write_bytes(value[:1])
        raise OSError("the line broke")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", broken)
    with pytest.raises(FileError, match="the line broke"):
        backend.write("a", b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert backend.read("a") == b"old"


def test_links_are_followed_and_directories_behind_them_not_listed(tmp_path: Path) -> None:
    backend = FsspecFiles(f"local://{tmp_path}")
    backend.write("d/a", b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "d" / "a")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert list(backend.list()) == ["d/a", "link"]
    assert backend.stat("link").size == 3


@pytest.mark.parametrize(
    ("root", "options", "writable"),
    [
        ("http://127.0.0.1:1/d", {}, False),
        ("https://127.0.0.1:1/d", {}, False),
        ("github://org:repository@main/d", {}, False),
        ("gist://0123456789abcdef", {}, False),
        ("data://text", {}, False),
        ("zip:///nowhere.zip", {}, False),
        ("tar:///nowhere.tar", {}, False),
        ("plain:///nowhere", {}, False),
        ("simplecache:///nowhere", {"target_protocol": "zip"}, False),
        ("simplecache:///nowhere", {"target_protocol": "memory"}, True),
        ("memory://d", {}, True),
        ("local:///nowhere", {}, True),
        ("caching:///nowhere", {}, True),
        ("ftp://127.0.0.1:1/d", {}, True),
        ("webhdfs://127.0.0.1:1/d", {}, True),
        ("dbfs://127.0.0.1:1/d", {}, True),
    ],
)
def test_it_says_whether_it_can_be_written(root: str, options: dict[str, object], writable: bool) -> None:
    """Nothing listens on these ports, and nothing lies at these paths: the filesystem's class tells."""
    backend = FsspecFiles(root, options=options)
    assert backend.capabilities.writable is writable
    if not writable:
        assert not backend.capabilities.atomic_replace
        for verb in (partial(backend.write, "a", b""), partial(backend.delete, "a"), partial(backend.copy, "a", "b")):
            with pytest.raises(FileError, match="this store is read only"):
                verb()


class TestOverZip(ReadOnlyFileLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    names = tuple(name for name in NAMES if not {*name} & {*"*[]?"} and name != "~")  # which fsspec itself looks for

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        path = Path(mkdtemp(dir=self.directory)) / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return FsspecFiles("zip://", options={"fo": str(path)})


def test_a_filesystem_that_deletes_by_rm_alone_is_written_and_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rm(self: PlainFileSystem, path: str, recursive: bool = False) -> None:
        Path(self._strip_protocol(path)).unlink()

    monkeypatch.setattr(PlainFileSystem, "rm", rm)
    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(PlainFileSystem, "info", lambda self, path: {"name": path, "size": 1, "type": "file"})
    backend = FsspecFiles(f"plain://{tmp_path}")
    backend.delete("a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("scheme", ["ftp", "sftp"])
def test_errors_hold_no_credentials(scheme: str) -> None:
    backend = FsspecFiles(f"{scheme}://reader:hunter2@127.0.0.1:1/d", options={"timeout": 5, "token": "hunter3"})
    with pytest.raises((FileError, MissingDependencyError)) as caught:
        backend.read("a")
    for text in (str(caught.value), repr(backend), backend.uri):
        assert "hunter" not in text


def test_secrets_inside_of_options_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: LocalFileSystem, path: str, *_: object, **__: object) -> None:
        raise OSError("refused for hunter2 and hunter3")

    monkeypatch.setattr(CachingFileSystem, "info", broken)
    options = {"client_kwargs": {"aws_secret_access_key": "hunter2"}, "key": "hunter3"}
    with pytest.raises(FileError, match=r"refused for \*\*\* and \*\*\*"):
        FsspecFiles(f"caching://{tmp_path}", options=options).stat("a")


def test_schemes_that_nobody_knows_are_errors() -> None:
    with pytest.raises(FileError, match="nosuch"):
        FsspecFiles("nosuch://x").read("a")
    with pytest.raises(FileError, match="scheme"):
        FsspecFiles("/local/path")


def test_it_can_be_pickled(tmp_path: Path) -> None:
    backend = FsspecFiles(f"local://{tmp_path}", options={"auto_mkdir": False}, atomic_move=False)
    backend.write("a", b"abc")
    again = pickle.loads(pickle.dumps(backend))
    assert again.read("a") == b"abc"
    assert again.capabilities == backend.capabilities

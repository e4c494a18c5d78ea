"""Files in LMDB: the laws, written and read only, and what is LMDB's own."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import lmdb
import pytest

from treenail.adapters.files import Mounts, exists, get
from treenail.adapters.files.lmdb_files import LmdbFiles
from treenail.contracts.files import CopiesFiles, CreatesFiles, ScansFiles, SplitsUris
from treenail.contracts.laws import FileBackendLaws
from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend, FileError, FileMissingError, late

SIZE = 2**26


class TestWritable(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> FileBackend:
        return LmdbFiles(f"lmdb://{mkdtemp(dir=self.directory)}", readonly=False, map_size=SIZE)


class TestReadOnly(ReadOnlyFileLaws):
    @pytest.fixture(autouse=True)
    def _own_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        folder = self.directory / uuid4().hex
        with lmdb.open(str(folder), map_size=SIZE) as environment, environment.begin(write=True) as transaction:
            for path, data in files.items():
                transaction.put(path.encode(), data)
        return LmdbFiles(f"lmdb://{folder}")


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LmdbFiles]:
    made = LmdbFiles(str(tmp_path / "set.lmdb"), readonly=False, map_size=SIZE)
    yield made
    made.close()


def test_it_has_what_lmdb_can_do(backend: LmdbFiles) -> None:
    assert isinstance(backend, CopiesFiles)
    assert isinstance(backend, CreatesFiles)
    assert isinstance(backend, ScansFiles)
    assert isinstance(LmdbFiles, SplitsUris)
    assert LmdbFiles.split_uri(f"{backend.uri}/d/x") == (backend.uri.removesuffix("!"), "d/x")
    assert LmdbFiles.split_uri("lmdb:///a/b.lmdb") == ("lmdb:///a/b.lmdb", "")


def test_keys_of_others_that_are_no_paths_are_left_out(backend: LmdbFiles, tmp_path: Path) -> None:
    backend.write("d/x", b"x")
    backend.close()
    with lmdb.open(str(tmp_path / "set.lmdb"), map_size=SIZE) as environment, environment.begin(write=True) as others:
        for key in (b"\xff\xfe", b"/absolute", b"a/../b", b"d//y", b"d/\0", b"number\x00"):
            others.put(key, b"binary")
    assert list(backend.list()) == ["d/x"]
    assert list(backend.list("d")) == ["d/x"]


def test_a_path_too_long_for_a_key(backend: LmdbFiles) -> None:
    longest = "ü" * 255 + "x"
    backend.write(longest, b"1")
    assert list(backend.list()) == [longest]
    with pytest.raises(FileError, match="512 bytes"):
        backend.write("x" * 512, b"")
    with pytest.raises(FileMissingError):
        backend.read("x" * 512)


def test_a_full_environment_says_so_and_stays_as_it_was(tmp_path: Path) -> None:
    backend = LmdbFiles(str(tmp_path / "small"), readonly=False, map_size=2**18)
    backend.write("a", b"old")
    with pytest.raises(FileError, match="map_size"):
        backend.write("a", bytes(2**20))
    assert backend.read("a") == b"old"


def test_an_environment_in_one_file(tmp_path: Path) -> None:
    with (
        lmdb.open(str(tmp_path / "one.mdb"), subdir=False, map_size=SIZE) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"d/x", b"abc")
    backend = LmdbFiles(f"lmdb://{tmp_path}/one.mdb", map_size=SIZE)
    assert backend.read("d/x") == b"abc"
    assert backend.stat("d/x").size == 3


def test_a_missing_environment_is_an_error_and_not_made(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none" / "deeper"):
        with pytest.raises(FileMissingError, match="no such environment"):
            LmdbFiles(str(path)).read("x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="no environment"):
        LmdbFiles("lmdb://")


def test_an_environment_that_others_opened_says_what_to_do(backend: LmdbFiles, tmp_path: Path) -> None:
    backend.write("x", b"abc")
    backend.close()
    with lmdb.open(str(tmp_path / "set.lmdb"), map_size=SIZE), pytest.raises(FileError, match=r"already open.*close"):
        backend.read("x")
    again = pickle.loads(pickle.dumps(backend))
    assert again.read("x") == b"abc"
    again.close()


def test_another_process_reads_what_is_being_written(backend: LmdbFiles) -> None:
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).read('x').decode())"
    for content in ("one", "two"):
        backend.write("x", content.encode())
        found = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(backend), capture_output=True, check=True
        )
        assert found.stdout.decode().strip() == content


def test_uris_lead_to_files_and_back(backend: LmdbFiles) -> None:
    backend.write("d/x", b"found")
    backend.close()
    mounts = Mounts(schemes={"lmdb": late(LmdbFiles)(map_size=SIZE)})
    place = mounts.resolve(f"{backend.uri}/d/x")
    assert place.backend.read(place.path) == b"found"
    assert place.uri == f"{backend.uri}/d/x"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_open_it_anew(backend: LmdbFiles) -> None:
    backend.write("x", b"before")
    inherited = backend._environment.held
    assert inherited is not None
    children = []
    for number in range(3):
        if (child := os.fork()) == 0:
            good = backend.read("x") == b"before"
            good = good and backend._environment.held is not inherited
            backend.write(f"child/{number}", b"written")
            os._exit(0 if good else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert backend.read("x") == b"before"
    assert list(backend.list()) == ["child/0", "child/1", "child/2", "x"]


def test_long_lists_see_what_is_written_meanwhile_and_lose_nothing(backend: LmdbFiles, tmp_path: Path) -> None:
    names = [f"{number:05}" for number in range(2500)]
    with lmdb.open(str(tmp_path / "set.lmdb"), map_size=SIZE) as environment, environment.begin(write=True) as others:
        for name in names:
            others.put(name.encode(), b"x")
    found = []
    for path in backend.list():
        found.append(path)
        if path == "00001":
            backend.delete("02000")
            backend.write("02400a", b"new")
    assert found == sorted({*names, "02400a"} - {"02000"})


def test_backends_of_one_environment_share_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "set.lmdb")
    writer = LmdbFiles(str(tmp_path / "set.lmdb"), readonly=False, map_size=SIZE)
    writer.write("x", b"x")
    tables = [Mounts(), Mounts()]
    readers = [table.resolve(f"lmdb://{tmp_path}/link!/x").backend for table in tables]
    assert [reader.read("x") for reader in readers] == [b"x", b"x"]
    writer.close()
    assert readers[0].read("x") == b"x"
    _close(*readers)
    assert readers[0].read("x") == b"x"
    with pytest.raises(FileError, match="open read only; close that backend"):
        writer.write("x", b"y")
    _close(*readers)
    writer.write("x", b"y")
    assert readers[1].read("x") == b"y"
    _close(writer, *readers)


def _close(*backends: FileBackend) -> None:
    for backend in backends:
        assert isinstance(backend, LmdbFiles)
        backend.close()


def test_a_missing_environment_is_missing(tmp_path: Path) -> None:
    uri = f"lmdb://{tmp_path}/none.lmdb!/x"
    assert not exists(uri)
    with pytest.raises(FileMissingError, match="no such environment"):
        get(uri)
    with pytest.raises(FileMissingError, match="no such environment"):
        list(LmdbFiles(str(tmp_path / "none.lmdb")).list())
    assert not (tmp_path / "none.lmdb").exists()

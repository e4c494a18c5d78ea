"""Files in S3: the laws, and what a bucket, its credentials and its errors do."""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from tests.files.s3_server import S3Server, s3_running
from treenail.adapters.files import FilesBelow, MemoryFiles, download
from treenail.adapters.files.objects import ObjectFiles
from treenail.contracts.files import CreatesFiles, ReadsMany, SignsUrls
from treenail.contracts.laws._file_model import NAMES
from treenail.contracts.laws.files import FileBackendLaws
from treenail.kernel import FileError, FileMissingError

PART = 5 * 1024**2


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


class TestS3(FileBackendLaws):
    @pytest.fixture(autouse=True)
    def _server(self, s3: S3Server) -> None:
        self.server = s3

    def make(self) -> ObjectFiles:
        return ObjectFiles(self.server.fresh_root(), endpoint=self.server.endpoint)

    def test_one_of_many_creators_succeeds(self) -> None:
        if os.environ.get("TREENAIL_S3_CREATORS_RACE"):
            pytest.skip("this store looks for an object before it writes one, and two may look at once")
        super().test_one_of_many_creators_succeeds()


@pytest.fixture
def root(s3: S3Server) -> str:
    return s3.fresh_root()


@pytest.fixture
def files(s3: S3Server, root: str) -> ObjectFiles:
    return ObjectFiles(root, endpoint=s3.endpoint, part_size=PART)


def _key(root: str, name: str) -> str:
    return f"{root.rpartition('/')[2]}/{name}"


def _put(s3: S3Server, root: str, *names: str, data: bytes = b"") -> None:
    for name in names:
        s3.client().put_object(Bucket=s3.bucket, Key=_key(root, name), Body=data)


def _uploads(s3: S3Server, root: str) -> list[str]:
    found = s3.client().list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])
    return [each["Key"] for each in found if each["Key"].startswith(_key(root, ""))]


class TestKeys:
    def test_a_name_is_the_key(self, s3: S3Server, root: str, files: ObjectFiles) -> None:
        for name in NAMES:
            files.write(name, name.encode())
        found = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix=_key(root, ""))["Contents"]
        assert {each["Key"] for each in found} == {_key(root, name) for name in NAMES}

    def test_markers_of_directories_are_no_files(self, s3: S3Server, root: str, files: ObjectFiles) -> None:
        _put(s3, root, "", "d/", "d/e/", "d/f", "empty", "g", "g/", "g/h")
        assert list(files.list()) == ["d/f", "empty", "g", "g/h"]
        assert list(files.list("d")) == ["d/f"]
        assert list(files.list("d/e")) == []
        with pytest.raises(FileMissingError):
            files.read("d/e")

    @pytest.mark.parametrize("key", ["d//x", "d/../x", "d/./x"])
    def test_a_key_that_names_no_file_is_told(self, s3: S3Server, root: str, files: ObjectFiles, key: str) -> None:
        _put(s3, root, key, "beside/it")
        with pytest.raises(FileError, match="names no file") as raised:
            list(files.list())
        assert raised.value.mend is not None
        assert list(files.list("beside")) == ["beside/it"]

    @pytest.mark.parametrize("name", ["k" * 1025, "ü" * 513, "d/" * 600 + "x", "a\nb", "a\x7fb"])
    def test_a_name_that_no_key_can_have_is_refused(self, files: ObjectFiles, name: str) -> None:
        verbs: tuple[Callable[[], object], ...] = (
            lambda: files.write(name, b""),
            lambda: files.read(name),
            lambda: files.stat(name),
            lambda: files.delete(name),
        )
        for verb in verbs:
            with pytest.raises(FileError, match=r"bytes|control character") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)


class TestParts:
    def test_few_bytes_are_one_request_and_many_are_parts(self, s3: S3Server, root: str, files: ObjectFiles) -> None:
        files.write("small", (b"x" * 1000 for _ in range(3)))
        files.write("parts", (b"x" * 1_000_000 for _ in range(12)))
        files.write("whole", b"y" * (2 * PART + 1))
        heads = [
            s3.client().head_object(Bucket=s3.bucket, Key=_key(root, name)) for name in ("small", "parts", "whole")
        ]
        assert [head["ContentLength"] for head in heads] == [3000, 12_000_000, 2 * PART + 1]
        assert ["-3" in head["ETag"] for head in heads] == [False, True, True]  # how S3 marks an upload of three parts
        assert files.read("parts") == b"x" * 12_000_000

    @pytest.mark.parametrize("error", [ValueError, FileNotFoundError, KeyboardInterrupt, FileError])
    def test_an_upload_whose_source_fails_leaves_nothing(
        self, s3: S3Server, root: str, files: ObjectFiles, error: type[BaseException]
    ) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * 4_000_000
            raise error("the source broke")

        with pytest.raises(error, match="the source broke") as raised:
            files.write("file", chunks())
        assert type(raised.value) is error
        assert _uploads(s3, root) == []
        assert list(files.list()) == []

    @pytest.mark.parametrize("data", ["text", ["text"], [1], [b"x" * (2 * PART), "text"]])
    def test_what_is_no_bytes_is_refused(self, s3: S3Server, root: str, files: ObjectFiles, data: object) -> None:
        with pytest.raises(FileError, match="cannot write a"):
            files.write("file", data)  # type: ignore[arg-type]  # that is the mistake
        assert _uploads(s3, root) == []
        assert list(files.list()) == []

    def test_a_large_file_arrives_whole(self, files: ObjectFiles, tmp_path: Path) -> None:
        content = bytes(range(251)) * 60_000
        files.write("large", content)
        download(files, "large", tmp_path / "large")
        assert (tmp_path / "large").read_bytes() == content
        for start, length in (
            (0, PART),
            (1, PART),
            (PART, PART + 1),
            (3, None),
            (len(content) - 1, 9),
            (len(content), 9),
        ):
            end = None if length is None else start + length
            assert b"".join(files.stream("large", start, length)) == content[start:end]

    @pytest.mark.parametrize("change", ["write", "delete"])
    def test_a_file_that_changes_while_it_is_streamed_is_told(self, files: ObjectFiles, change: str) -> None:
        files.write("file", b"a" * (PART + 1))
        chunks = files.stream("file")
        next(chunks)
        if change == "write":
            files.write("file", b"b" * (PART + 1))
        else:
            files.delete("file")
        with pytest.raises(FileError, match="changed meanwhile") as raised:
            list(chunks)
        assert not isinstance(raised.value, FileMissingError)

    def test_a_stream_can_be_left(self, files: ObjectFiles) -> None:
        files.write("file", b"a" * (2 * PART))
        chunks = files.stream("file")
        assert len(next(chunks)) == PART
        del chunks
        assert files.stat("file").size == 2 * PART


class TestMany:
    def test_results_come_in_order_with_an_error_for_each_that_fails(self, files: ObjectFiles) -> None:
        names = [f"d/{number}" for number in range(20)]
        for name in names[::2]:
            files.write(name, name.encode())
        found = list(files.read_many([*names, "../out"], concurrency=4))
        assert found[:20:2] == [name.encode() for name in names[::2]]
        assert all(isinstance(each, FileMissingError) for each in found[1:20:2])
        assert isinstance(found[20], FileError)
        assert "d/1" in str(found[1])

    def test_reading_none_gives_none(self, files: ObjectFiles) -> None:
        assert list(files.read_many([], concurrency=4)) == []
        with pytest.raises(FileError, match="concurrency"):
            files.read_many(["a"], concurrency=0)


class TestBuckets:
    def test_a_missing_bucket_is_no_missing_file(self, s3: S3Server) -> None:
        files = ObjectFiles("s3://no-such-bucket/d", endpoint=s3.endpoint)
        verbs: tuple[Callable[[], object], ...] = (
            lambda: files.read("x"),
            lambda: files.read("x", 1, 2),
            lambda: files.write("x", b""),
            lambda: files.write("x", iter([b"x" * 9_000_000])),
            lambda: files.stat("x"),
            lambda: files.delete("x"),
            lambda: files.copy("x", "y"),
            lambda: files.create("x", b""),
            lambda: list(files.list()),
            lambda: list(files.stream("x")),
        )
        for verb in verbs:
            with pytest.raises(FileError, match="no such bucket") as raised:
                verb()
            assert not isinstance(raised.value, FileMissingError)
            assert "s3://no-such-bucket/d" in str(raised.value)

    def test_a_file_can_be_copied_to_itself(self, files: ObjectFiles) -> None:
        files.write("file", b"content")
        files.copy("file", "file")
        assert files.read("file") == b"content"

    @pytest.mark.parametrize("expires", [0, 0.5, -1, 604_801, float("inf"), float("nan")])
    def test_a_url_lasts_between_a_second_and_a_week(self, files: ObjectFiles, expires: float) -> None:
        with pytest.raises(FileError, match="cannot sign for"):
            files.sign("x", expires=expires)

    def test_without_credentials_nothing_is_signed(self, s3: S3Server, root: str) -> None:
        with pytest.raises(FileError, match="without credentials"):
            ObjectFiles(root, endpoint=s3.endpoint, anonymous=True).sign("x")

    def test_it_is_pickled_without_credentials(self, s3: S3Server, files: ObjectFiles) -> None:
        files.write("file", b"content")
        pickled = pickle.dumps(files)
        assert not any(secret.encode() in pickled for secret in s3.environment.values())
        assert pickle.loads(pickled).read("file") == b"content"


def _read_in_child(files: ObjectFiles, depth: int, results: SimpleQueue[bytes]) -> None:
    results.put(files.read("file"))
    if depth:
        child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(files, depth - 1, results))
        child.start()
        child.join(20)
        if child.is_alive():
            child.kill()


def test_a_backend_that_was_used_works_in_forked_processes(files: ObjectFiles) -> None:
    files.write("file", b"content")
    fork = multiprocessing.get_context("fork")
    results: SimpleQueue[bytes] = fork.SimpleQueue()
    children = [fork.Process(target=_read_in_child, args=(files, 1, results)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        stuck = child.is_alive()
        child.kill()
        assert not stuck, "a forked process waits for ever"
        assert child.exitcode == 0
    assert [results.get() for _ in range(4)] == [b"content"] * 4
    assert files.read("file") == b"content"


def test_a_directory_of_a_store_has_the_abilities_of_the_store(files: ObjectFiles) -> None:
    below = pickle.loads(pickle.dumps(FilesBelow(files, "d")))
    assert isinstance(below, CreatesFiles)
    assert isinstance(below, ReadsMany)
    assert isinstance(below, SignsUrls)
    assert below.create("x", b"x")
    assert not below.create("x", b"y")
    found = list(below.read_many(["x", "../x", "none"], concurrency=2))
    assert [found[0], *map(type, found[1:])] == [b"x", FileError, FileMissingError]
    assert "/d/x?" in below.sign("x")
    assert files.read("d/x") == b"x"


def test_a_directory_of_a_store_has_no_ability_besides() -> None:
    store = MemoryFiles()
    store.write("d/x", b"x")
    below = pickle.loads(pickle.dumps(FilesBelow(store, "d")))
    assert below.read("x") == b"x", "the content does not come along"
    assert isinstance(below, CreatesFiles)
    assert not isinstance(below, ReadsMany)
    assert not isinstance(below, SignsUrls)

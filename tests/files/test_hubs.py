"""Repositories of hubs: the laws, revisions and errors, through the hubs' own libraries and a real server."""

import os
import pickle
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.files.hub_server import Hub, hub_running
from treenail.adapters.files.hubs import HuggingFaceFiles, ModelScopeFiles
from treenail.contracts.files import ScansFiles, SplitsUris, StreamsFiles
from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
from treenail.kernel import FileBackend, FileError, FileMissingError

NUMBERS = count()


@pytest.fixture(scope="module")
def shared() -> Iterator[Hub]:
    with hub_running() as running:
        yield running


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the caches nor the logins of whoever runs this."""
    for name in ("HF_HOME", "MODELSCOPE_CACHE", "MODELSCOPE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(shared: Hub) -> Iterator[Hub]:
    yield shared
    shared.token, shared.without_ranges, shared.silence = None, False, 0.0


class TestHuggingFace(ReadOnlyFileLaws):
    @pytest.fixture(autouse=True)
    def _own_hub(self, hub: Hub) -> None:
        self.hub = hub

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        name = f"org/set{next(NUMBERS)}"
        self.hub.publish("dataset", name, files, "main")
        return HuggingFaceFiles(f"hf://datasets/{name}", endpoint=self.hub.url)


class TestModelScope(ReadOnlyFileLaws):
    @pytest.fixture(autouse=True)
    def _own_hub(self, hub: Hub) -> None:
        self.hub = hub

    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        name = f"org/set{next(NUMBERS)}"
        self.hub.publish("model", name, files, "master")
        return ModelScopeFiles(f"ms://{name}", endpoint=self.hub.url)


class Kind(NamedTuple):
    make: type[HuggingFaceFiles] | type[ModelScopeFiles]
    scheme: str
    branch: str


KINDS = pytest.mark.parametrize(
    "kind", [Kind(HuggingFaceFiles, "hf", "main"), Kind(ModelScopeFiles, "ms", "master")], ids=["hf", "ms"]
)


@KINDS
def test_each_revision_has_its_own_files(kind: Kind, hub: Hub) -> None:
    """v2 after v1 is v2's file, in one process, and v1 after that v1's."""
    name = f"org/model{next(NUMBERS)}"
    first = hub.publish("model", name, {"config.json": b"one"}, "v1", "refs/pr/1")
    hub.publish("model", name, {"config.json": b"two", "new": b""}, "v2", kind.branch)
    for revision, expected in (
        *(("v1", b"one"), ("v2", b"two"), ("v1", b"one"), (first, b"one")),
        *((kind.branch, b"two"), ("", b"two"), ("refs%2Fpr%2F1", b"one"), ("refs/pr/1", b"one")),
    ):
        uri = f"{kind.scheme}://{name}@{revision}" if revision else f"{kind.scheme}://{name}"
        assert kind.make(uri, endpoint=hub.url).read("config.json") == expected, revision
    assert list(kind.make(f"{kind.scheme}://{name}@v1", endpoint=hub.url).list()) == ["config.json"]


@KINDS
def test_kinds_of_repositories(kind: Kind, hub: Hub) -> None:
    name = f"org/same{next(NUMBERS)}"
    for each in ("model", "dataset"):
        hub.publish(each, name, {"x": each.encode()}, kind.branch)
    for lead, expected in (("", b"model"), ("models/", b"model"), ("datasets/", b"dataset")):
        backend = kind.make(f"{kind.scheme}://{lead}{name}", endpoint=hub.url)
        assert backend.read("x") == expected
        assert list(backend.list()) == ["x"]


def test_a_branch_that_moves_is_read_at_one_commit(hub: Hub) -> None:
    name = f"org/moving{next(NUMBERS)}"
    hub.publish("model", name, {"a": b"old", "b": b"old"}, "main")
    backend = HuggingFaceFiles(f"hf://{name}", endpoint=hub.url)
    assert backend.read("a") == b"old"
    hub.publish("model", name, {"a": b"new", "b": b"new"}, "main")
    assert backend.read("b") == b"old"
    assert HuggingFaceFiles(f"hf://{name}", endpoint=hub.url).read("b") == b"new"


def test_a_modelscope_branch_that_moves_is_noticed(hub: Hub) -> None:
    name = f"org/moving{next(NUMBERS)}"
    hub.publish("model", name, {"a": b"old"}, "master")
    backend = ModelScopeFiles(f"ms://{name}", endpoint=hub.url)
    assert backend.read("a") == b"old"
    hub.publish("model", name, {"a": b"new"}, "master")
    with pytest.raises(FileError, match="changed since"):
        backend.read("a")


@KINDS
def test_what_is_missing_is_named(kind: Kind, hub: Hub) -> None:
    name = f"org/there{next(NUMBERS)}"
    hub.publish("model", name, {"d/x": b"1"}, kind.branch)
    with pytest.raises(FileError, match="no such repository") as caught:
        kind.make(f"{kind.scheme}://org/nowhere", endpoint=hub.url).read("x")
    assert not isinstance(caught.value, FileMissingError)
    with pytest.raises(FileError, match=r"no such (repository, )?revision"):
        kind.make(f"{kind.scheme}://{name}@v9", endpoint=hub.url).read("x")
    with pytest.raises(FileMissingError):
        kind.make(f"{kind.scheme}://{name}", endpoint=hub.url).read("d/y")


@KINDS
def test_tokens_are_shown_to_the_hub_and_to_nobody_else(kind: Kind, hub: Hub) -> None:
    name = f"org/private{next(NUMBERS)}"
    hub.publish("model", name, {"x": b"secret"}, kind.branch)
    hub.token = "hf_hunter2"
    backend = kind.make(f"{kind.scheme}://{name}", endpoint=hub.url, token="hf_hunter2")
    assert backend.read("x") == b"secret"
    wrong = kind.make(f"{kind.scheme}://{name}", endpoint=hub.url, token="hf_hunter3")
    with pytest.raises(FileError) as caught:
        wrong.read("x")
    for text in (str(caught.value), repr(wrong), repr(backend), backend.uri):
        assert "hunter" not in text


def test_a_hub_that_is_gone_is_an_error() -> None:
    with hub_running() as gone:
        url = gone.url
    with pytest.raises(FileError, match="hf://org/x/a: cannot"):
        HuggingFaceFiles("hf://org/x", endpoint=url).read("a")


def test_ranges_transfer_ranges(hub: Hub) -> None:
    name = f"org/large{next(NUMBERS)}"
    data = os.urandom(1000) * 20_000
    hub.publish("model", name, {"large": data}, "main")
    backend = HuggingFaceFiles(f"hf://{name}", endpoint=hub.url)
    assert isinstance(backend, StreamsFiles)
    assert backend.read("large", 10_000_000, 5) == data[10_000_000:10_000_005]
    assert [len(chunk) for chunk in backend.stream("large")] == [8_388_608, 8_388_608, 3_222_784]
    hub.without_ranges = True
    assert backend.read("large", 10_000_000, 5) == data[10_000_000:10_000_005]


def test_long_lists_come_in_pages(hub: Hub) -> None:
    name = f"org/many{next(NUMBERS)}"
    files = {f"d{number % 3}/{number:02}": b"x" * number for number in range(23)}
    hub.publish("dataset", name, files, "main")
    backend = HuggingFaceFiles(f"hf://datasets/{name}", endpoint=hub.url)
    assert isinstance(backend, ScansFiles)
    assert [(path, stat.size) for path, stat in backend.scan()] == [(path, len(files[path])) for path in sorted(files)]
    asked = len(hub.seen)
    assert backend.stat("d1/01").size == 1
    assert len(hub.seen) == asked, "what was listed is asked for again"


@KINDS
def test_uris(kind: Kind) -> None:
    assert isinstance(kind.make, SplitsUris)
    scheme = kind.scheme
    for uri, expected in (
        (f"{scheme}://org/name/d/x", (f"{scheme}://org/name", "d/x")),
        (f"{scheme}://datasets/org/name@v1/d/name@v1", (f"{scheme}://datasets/org/name@v1", "d/name@v1")),
        (f"{scheme}://models/org/name", (f"{scheme}://models/org/name", "")),
        (f"{scheme}://org/name@refs/pr/7/x", (f"{scheme}://org/name@refs/pr/7", "x")),
    ):
        assert kind.make.split_uri(uri) == expected
    for wrong in (f"{scheme}://name", f"{scheme}://", "other://org/name", f"{scheme}://datasets/org"):
        with pytest.raises(FileError, match="no repository"):
            kind.make.split_uri(wrong)
    with pytest.raises(FileError, match="a file of a repository"):
        kind.make(f"{scheme}://org/name/file")


@KINDS
def test_it_can_be_pickled(kind: Kind, hub: Hub) -> None:
    name = f"org/pickled{next(NUMBERS)}"
    hub.publish("model", name, {"x": b"abc"}, "v1")
    backend = kind.make(f"{kind.scheme}://{name}@v1", endpoint=hub.url)
    backend.read("x")
    assert pickle.loads(pickle.dumps(backend)).read("x") == b"abc"


@KINDS
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_read(kind: Kind, hub: Hub) -> None:
    name = f"org/forked{next(NUMBERS)}"
    hub.publish("model", name, {"x": b"abc"}, kind.branch)
    backend = kind.make(f"{kind.scheme}://{name}", endpoint=hub.url)
    assert backend.read("x") == b"abc"
    child = os.fork()
    if child == 0:
        os._exit(0 if backend.read("x") == b"abc" else 1)
    assert os.waitpid(child, 0)[1] == 0


@KINDS
def test_a_hub_that_is_silent_for_too_long_is_an_error(kind: Kind, hub: Hub) -> None:
    """It would answer after its silence: without the timeout this reads the file."""
    name = f"org/model{next(NUMBERS)}"
    hub.publish("model", name, {"a": b"1"}, kind.branch)
    backend = kind.make(f"{kind.scheme}://{name}", endpoint=hub.url, timeout=1.0)
    hub.silence = 4.0
    with pytest.raises(FileError, match="cannot"):
        backend.read("a")
    hub.silence = 0.0
    assert pickle.loads(pickle.dumps(backend)).read("a") == b"1"


@KINDS
def test_what_is_shown_and_sent_elsewhere_holds_no_token(kind: Kind, hub: Hub) -> None:
    hub.token = "right"
    backend = kind.make(f"{kind.scheme}://org/none", endpoint=hub.url, token="hunter2")
    with pytest.raises(FileError) as caught:
        backend.read("a")
    for text in (str(caught.value), repr(backend), backend.uri):
        assert "hunter2" not in text

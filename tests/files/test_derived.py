"""What any backend can do by the five verbs alone is what a backend of more abilities does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treenail.adapters.files import LocalFiles, MemoryFiles, derived
from treenail.contracts.laws._support import examples
from treenail.kernel import Capabilities, FileBackend, FileError, FileMissingError, FileStat


class FiveVerbs:
    """A backend with the verbs of the port, and no ability."""

    def __init__(self, *, ranges: bool = True) -> None:
        self.files, self.reads, self.ranges = MemoryFiles(), list[int](), ranges
        self.written: bytes | Iterable[bytes] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(atomic_replace=True, ranges=self.ranges)

    @property
    def uri(self) -> str:
        return "five://user:secret@host"

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        data = self.files.read(path, start, length)
        self.reads.append(len(data))
        return data

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self.written = data
        self.files.write(path, data)

    def stat(self, path: str) -> FileStat:
        return self.files.stat(path)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self.files.list(prefix)

    def delete(self, path: str) -> None:
        self.files.delete(path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "CHUNK", 10)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.usefixtures("small_chunks")
def test_a_stream_gives_what_read_gives(ranges: bool) -> None:
    backend = FiveVerbs(ranges=ranges)
    for size in (0, 1, 9, 10, 11, 20, 35):
        data = bytes(range(size))
        backend.write("f", data)
        for start in (0, 1, 10, 11, 34, 40):
            for length in (None, 0, 1, 10, 25, 100):
                backend.reads.clear()
                found = b"".join(derived.stream(backend, "f", start, length))
                assert found == (data[start:] if length is None else data[start : start + length])
                assert not ranges or size <= 10 or max(backend.reads, default=0) <= 10


@pytest.mark.usefixtures("small_chunks")
def test_a_stream_refuses_negative_ranges_of_large_files_too() -> None:
    backend = FiveVerbs()
    backend.write("f", bytes(100))
    for start, length in ((-1, None), (0, -1), (50, -3)):
        with pytest.raises(FileError, match="must be at least 0"):
            list(derived.stream(backend, "f", start, length))


@pytest.mark.parametrize("after", [b"x" * 100, b"y" * 50, b"z" * 5, None])
@pytest.mark.usefixtures("small_chunks")
def test_a_stream_of_two_versions_is_an_error(after: bytes | None) -> None:
    backend = FiveVerbs()
    backend.write("f", bytes(100))
    chunks = derived.stream(backend, "f")
    next(chunks)
    backend.delete("f") if after is None else backend.write("f", after)
    with pytest.raises(FileError) as caught:
        list(chunks)
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("make", [MemoryFiles, FiveVerbs])
def test_a_copy_of_one_chunk_is_written_at_once(make: type[MemoryFiles] | type[FiveVerbs]) -> None:
    """A store can send that in one request."""
    source, target = make(), FiveVerbs()
    for size in (0, 10, 11, 35):
        source.write("f", bytes(size))
        derived.copy(source, "f", target, "d/g")
        assert target.read("d/g") == bytes(size)
        assert isinstance(target.written, bytes) is (size <= 10)
    target.write("d/g", b"old")
    with pytest.raises(FileMissingError):
        derived.copy(source, "missing", target, "d/g")
    assert target.read("d/g") == b"old"


def test_a_scan_is_a_list_with_stats(tmp_path: Path) -> None:
    for backend in (FiveVerbs(), MemoryFiles(), LocalFiles(tmp_path)):
        for path in ("a/b", "a.b", "c"):
            backend.write(path, path.encode())
        assert list(derived.scan(backend)) == [(path, backend.stat(path)) for path in backend.list()]
        assert [path for path, _ in derived.scan(backend, "a")] == ["a/b"]


@given(
    paths=st.sets(st.lists(st.sampled_from("ab.é"), min_size=1, max_size=4).map("/".join), max_size=10),
    recursive=st.booleans(),
)
@examples(60)
def test_entries_of_keys_are_those_of_a_disk(
    paths: set[str], recursive: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    local, store = LocalFiles(tmp_path_factory.mktemp("entries")), FiveVerbs()
    for path in sorted(path for path in paths if "." not in path.split("/")):
        if not any(other.startswith(f"{path}/") for other in paths):
            local.write(path, b"")
            store.write(path, b"")
    backends: tuple[FileBackend, ...] = local, store
    for prefix in ("", "a", "a/b", "missing"):
        one, other = (list(derived.entries(each, prefix, recursive=recursive)) for each in backends)
        assert sorted(one) == sorted(other)
        for found in (one, other):
            assert len(set(found)) == len(found)
            names = [name for name, _ in found]
            assert all("/" not in name or name.rpartition("/")[0] in names[: names.index(name)] for name in names)


def test_a_download_is_whole_or_not_there(tmp_path: Path) -> None:
    backend = MemoryFiles()
    backend.write("f", b"content")
    target = tmp_path / "f"
    derived.download(backend, "f", target)
    derived.download(backend, "f", target)
    assert target.read_bytes() == b"content"
    with pytest.raises(FileMissingError):
        derived.download(backend, "missing", target)
    with pytest.raises(FileError, match="cannot write"):
        derived.download(backend, "f", tmp_path / "no/such/directory")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    assert target.read_bytes() == b"content"


def test_an_upload_says_what_is_wrong_with_its_source(tmp_path: Path) -> None:
    backend = MemoryFiles()
    (tmp_path / "f").write_bytes(b"content")
    derived.upload(tmp_path / "f", backend, "d/f")
    assert backend.read("d/f") == b"content"
    for source in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileMissingError):
            derived.upload(source, backend, "d/f")
    with pytest.raises(FileError, match="not a path below the root"):
        derived.upload(tmp_path / "f", backend, "../f")
    assert list(backend.list()) == ["d/f"]


def test_directories_of_a_store_are_what_has_files_below() -> None:
    backend = MemoryFiles()
    backend.write("d/f", b"")
    assert derived.is_directory(backend, "d")
    assert not derived.is_directory(backend, "d/f")
    assert (derived.file_exists(backend, "d/f"), derived.file_exists(backend, "d")) == (True, False)

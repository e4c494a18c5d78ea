"""The laws of what only some file backends can do; part of `FileBackendLaws`."""

from __future__ import annotations

from collections.abc import Callable
from unittest import SkipTest
from urllib.request import Request, urlopen

from hypothesis import example, given
from hypothesis import strategies as st

from treenail.contracts.files import (
    CopiesFiles,
    CreatesFiles,
    HasDirectories,
    HasLocalPaths,
    ListsEntries,
    ReadsMany,
    ScansFiles,
    SignsUrls,
    StreamsFiles,
)
from treenail.contracts.laws._file_model import BAD_PATHS, BrokenSourceError, broken
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.files_paths import PathLaws, check_splitting
from treenail.kernel import FileError, FileMissingError


class AbilityLaws(PathLaws):
    """An ability does what the primitives would, only better; a backend without it skips its law."""

    def test_a_uri_is_split_into_root_and_path(self) -> None:
        """A class that splits URIs finds one root for all files, and each file's path below it."""
        check_splitting(self.holding("keep"))

    @given(size=st.integers(0, 40), start=st.integers(0, 50), length=st.none() | st.integers(0, 50))
    @example(size=3, start=0, length=None)
    @example(size=3, start=1, length=1)
    @example(size=3, start=3, length=None)
    @examples(15)
    def test_a_stream_gives_what_read_gives(self, size: int, start: int, length: int | None) -> None:
        """The chunks of stream(path, start, length), joined, are read(path, start, length), also of a large file."""
        files = backend = self.make()
        if not isinstance(backend, StreamsFiles):
            raise _without(StreamsFiles)
        for each in (size, size * 100_003):
            data = (bytes(range(251)) * (each // 251 + 1))[:each]
            files.write("d/file", data)
            with accepted(f"stream({start}, {length}) of {each} bytes"):
                chunks = list(backend.stream("d/file", start, length))
            assert all(type(chunk) is bytes for chunk in chunks), "a stream yields other things than bytes"
            expected = data[start:] if length is None else data[start : start + length]
            found = b"".join(chunks)
            assert found == expected, f"stream({start}, {length}) of {each} bytes gave {len(found)} bytes, others"

    def test_a_stream_refuses_what_read_refuses(self) -> None:
        """Missing files, directories, negative ranges and bad paths raise when the first chunk is asked for, at last."""
        backend = self.make()
        backend.write("d/keep", b"content")
        if not isinstance(backend, StreamsFiles):
            raise _without(StreamsFiles)
        for path in ("missing", "d", "d/keep/below"):
            with refused(f"stream('{path}'), which is no file,", FileMissingError):
                list(backend.stream(path))
        for start, length in ((-1, None), (0, -1)):
            with refused(f"stream({start}, {length})", FileError, never=(FileMissingError,)):
                list(backend.stream("d/keep", start, length))
        for path in ("", *BAD_PATHS):
            with refused(f"stream({path!r})", FileError, never=(FileMissingError,)):
                list(backend.stream(path))

    def test_a_scan_is_a_list_with_stats(self) -> None:
        """scan(prefix) yields the pairs (path, stat(path)) of list(prefix), in its order; nothing below a missing prefix."""
        files = backend = self.holding("a.b", "a/b", "a/c/d", "a-b", "é", "d/e", "dd/e")
        if not isinstance(backend, ScansFiles):
            raise _without(ScansFiles)
        for prefix in ("", "a", "d", "missing", "é"):
            found = list(backend.scan(prefix))
            expected = [(path, files.stat(path)) for path in files.list(prefix)]
            assert found == expected, f"scan('{prefix}') gives {found}, list and stat give {expected}"
        for path in BAD_PATHS:
            with refused(f"scan({path!r})", FileError, never=(FileMissingError,)):
                list(backend.scan(path))

    def test_entries_are_one_level(self) -> None:
        """entries(path) yields each name directly in a directory once, and says whether it is a directory, which may be empty."""
        files = backend = self.holding("a.b", "a/b", "a/c/d", "a/c/e", "a-b", "é", "d/e")
        if not isinstance(backend, ListsEntries):
            raise _without(ListsEntries)
        for path in ("", "a", "a/c", "a/b", "missing", "missing/deep"):
            below = [each[len(path) + 1 if path else 0 :].partition("/") for each in files.list(path)]
            expected = sorted({(name, bool(slash)) for name, slash, _ in below})
            with accepted(f"entries('{path}')"):
                found = sorted(backend.entries(path))
            assert found == expected, f"entries('{path}') gives {found}, by the list there are {expected}"
        if isinstance(backend, HasDirectories):
            backend.make_directory("new/empty")
            assert list(backend.entries("new")) == [("empty", True)], "an empty directory is no entry"
            assert list(backend.entries("new/empty")) == [], "an empty directory has entries"
        for path in BAD_PATHS:
            with refused(f"entries({path!r})", FileError, never=(FileMissingError,)):
                list(backend.entries(path))

    def test_a_copy_is_a_file_of_its_own(self) -> None:
        """The copy holds what the source held, whatever happens to the source later; the source stays."""
        files = backend = self.holding("d/source", "taken")
        if not isinstance(backend, CopiesFiles):
            raise _without(CopiesFiles)
        for target in ("new/copy", "taken", "d/source"):
            with accepted(f"copy('d/source', '{target}')"):
                backend.copy("d/source", target)
            assert files.read(target) == b"d/source", f"'{target}' holds {files.read(target)!r}, not the source"
            with accepted("reading the source of a copy"):
                assert files.read("d/source") == b"d/source", f"copying it to '{target}' changed the source"
        files.write("d/source", b"changed")
        assert files.read("taken") == b"d/source", "writing to the source changed its copy"
        files.write("taken", b"changed, too")
        assert files.read("d/source") == b"changed", "writing to the copy changed its source"
        files.delete("d/source")
        assert files.read("new/copy") == b"d/source", "deleting the source changed its copy"

    def test_a_copy_of_nothing_changes_nothing(self) -> None:
        """Where there is no source, or a path is bad, copy raises and the target stays as it was."""
        files = backend = self.holding("d/keep", "keep")
        if not isinstance(backend, CopiesFiles):
            raise _without(CopiesFiles)
        for source in ("missing", "d", "d/missing"):
            for target in ("keep", "new"):
                with refused(f"copy('{source}', '{target}') without a source", FileMissingError):
                    backend.copy(source, target)
        for path in ("", *BAD_PATHS):
            for pair in ((path, "keep"), ("keep", path)):
                with refused(f"copy{pair}", FileError, never=(FileMissingError,)):
                    backend.copy(*pair)
        assert list(files.list()) == ["d/keep", "keep"], f"refused copies left {list(files.list())}"
        assert files.read("keep") == b"keep", "a refused copy changed its target"

    def test_create_writes_only_what_is_new(self) -> None:
        """Create returns True and writes where there is no file, else returns False and changes nothing."""
        files = backend = self.make()
        if not isinstance(backend, CreatesFiles):
            raise _without(CreatesFiles)
        for path, data in (("d/file", b"first"), ("empty", b""), ("chunks", iter((b"a", b"b")))):
            assert backend.create(path, data) is True, f"create('{path}') says that the file existed"
            content = files.read(path)
            assert backend.create(path, b"second") is False, f"create('{path}') says that it made the file again"
            assert files.read(path) == content, f"a second create changed '{path}'"
        assert files.read("d/file") + files.read("chunks") == b"firstab", "create wrote other bytes"
        files.delete("d/file")
        assert backend.create("d/file", b"again") is True, "a deleted file cannot be created again"
        assert files.read("d/file") == b"again", "create of a deleted file wrote other bytes"

    def test_a_failed_create_makes_nothing(self) -> None:
        """When the iterable raises, or the path is bad, nothing exists afterwards."""
        files = backend = self.make()
        if not isinstance(backend, CreatesFiles):
            raise _without(CreatesFiles)
        try:
            backend.create("d/new", broken(BrokenSourceError))
        except (BrokenSourceError, FileError):
            assert list(files.list()) == [], f"a failed create left {list(files.list())}"
        else:
            raise AssertionError("create swallowed the error that its iterable raised")
        for path in ("", *BAD_PATHS):
            with refused(f"create({path!r})", FileError, never=(FileMissingError,)):
                backend.create(path, b"bad")

    def test_signed_urls_work_without_credentials(self) -> None:
        """A signed URL gives the file by GET, or makes it by PUT; one that would never work is refused."""
        files = backend = self.make()
        if not isinstance(backend, SignsUrls):
            raise _without(SignsUrls)
        files.write("d/f ü%20.bin", b"content")
        with accepted("signing URLs of files, present or not"):
            url, upload = backend.sign("d/f ü%20.bin"), backend.sign("d/new", method="PUT", expires=60)
        assert "://" in url, f"{url!r} is no URL"
        with urlopen(url, timeout=20) as answer:
            assert answer.read() == b"content", "a signed URL gives another content"
        kind = {"Content-Type": "application/octet-stream"}  # urllib's own says that this is a form
        with urlopen(Request(upload, data=b"put", method="PUT", headers=kind), timeout=20) as answer:
            answer.read()
        assert "d/new" in list(files.list()), "what was put to a signed URL did not arrive"
        assert files.read("d/new") == b"put", "what was put to a signed URL arrived changed"
        for path in ("", *BAD_PATHS):
            with refused(f"sign({path!r})", FileError, never=(FileMissingError,)):
                backend.sign(path)
        for expires in (0, -1):
            with refused(f"sign(…, expires={expires})", FileError):
                backend.sign("d/file", expires=expires)

    def test_local_paths_hold_the_files(self) -> None:
        """Where a file's local path lies, its bytes lie; bad paths have none."""
        backend = self.holding("d/file ü", "top")
        if not isinstance(backend, HasLocalPaths):
            raise _without(HasLocalPaths)
        for path in ("d/file ü", "top"):
            local = backend.local_path(path)
            assert local.is_absolute(), f"local_path('{path}') gives {local}, which depends on the current directory"
            assert local.read_bytes() == path.encode(), f"local_path('{path}') is another file"
        with accepted("local_path of a file that does not exist"):
            assert not backend.local_path("missing/file").exists(), "asking for a local path made the file"
        for path in ("", *BAD_PATHS):
            with refused(f"local_path({path!r})", FileError, never=(FileMissingError,)):
                backend.local_path(path)

    def test_directories_can_be_empty(self) -> None:
        """A directory is made with its parents, is no file, may exist already, and never takes the name of a file."""
        files = backend = self.holding("d/file")
        if not isinstance(backend, HasDirectories):
            raise _without(HasDirectories)
        for path, expected in (("", True), ("d", True), ("d/file", False), ("missing", False), ("d/file/x", False)):
            assert backend.is_directory(path) is expected, f"is_directory('{path}') is not {expected}"
        for _ in range(2):
            with accepted("making a directory, again"):
                backend.make_directory("new/deep")
        assert backend.is_directory("new"), "make_directory made no parent"
        assert backend.is_directory("new/deep"), "make_directory made no directory"
        assert list(files.list()) == ["d/file"], f"with empty directories, list gives {list(files.list())}"
        for path in ("d/file", "d/file/below"):
            with refused(f"make_directory('{path}') over a file", FileError):
                backend.make_directory(path)
        assert files.read("d/file") == b"d/file", "make_directory changed a file"
        verbs: tuple[Callable[[str], object], ...] = (backend.make_directory, backend.is_directory)
        for verb in verbs:
            for path in BAD_PATHS:
                with refused(f"{verb.__name__}({path!r})", FileError, never=(FileMissingError,)):
                    verb(path)

    def test_a_deleted_directory_goes_with_all_below(self) -> None:
        """delete_directory removes the directory and what lies below, and nothing else; a file is no directory."""
        files = backend = self.holding("d/e/x", "d/y", "d.x", "dd/x", "z")
        if not isinstance(backend, HasDirectories):
            raise _without(HasDirectories)
        for path in ("missing", "z", "d/y", "d/missing"):
            with refused(f"delete_directory('{path}'), which is no directory,", FileMissingError):
                backend.delete_directory(path)
        for path in BAD_PATHS:
            with refused(f"delete_directory({path!r})", FileError, never=(FileMissingError,)):
                backend.delete_directory(path)
        backend.delete_directory("d")
        assert list(files.list()) == ["d.x", "dd/x", "z"], f"after delete_directory('d'): {list(files.list())}"
        assert not backend.is_directory("d"), "a deleted directory is a directory"

    def test_reading_many_keeps_order_and_errors_apart(self) -> None:
        """read_many yields each path's content, or its error, at its place; one that fails harms no other."""
        backend = self.holding(*(f"d/{number}" for number in range(20)))
        if not isinstance(backend, ReadsMany):
            raise _without(ReadsMany)
        paths = [f"d/{number}" for number in (5, 1, 1, 99, *range(20), 98)]
        for concurrency in (1, 4, 50):
            with accepted(f"read_many(…, concurrency={concurrency}) with missing files"):
                found = list(backend.read_many(paths, concurrency=concurrency))
            assert len(found) == len(paths), f"read_many of {len(paths)} paths yields {len(found)} results"
            for path, result in zip(paths, found, strict=True):
                if path in {"d/98", "d/99"}:
                    assert isinstance(result, FileMissingError), f"missing '{path}' is {result!r}"
                else:
                    assert result == path.encode(), f"read_many gives {result!r} for '{path}'"
        assert list(backend.read_many([], concurrency=4)) == [], "read_many of nothing yields something"

    def test_versions_tell_contents_apart(self) -> None:
        """A version stays while the file stays, and is another after every change, also to one of the same size."""
        backend = self.make()
        backend.write("file", b"0000")
        if backend.stat("file").version is None:
            raise SkipTest("the backend has no versions")
        seen: dict[str | None, bytes] = {}
        for number in range(1, 9):
            data = b"%04d" % number
            if number % 4 == 0:
                backend.delete("file")
            backend.write("file", data)
            version = backend.stat("file").version
            backend.write("other", data)
            assert backend.read("file") == data, "the file holds another content"
            assert backend.stat("file").version == version, "a version changed though the file did not"
            assert isinstance(version, str), f"the version is {version!r}"
            assert version not in seen, f"{data!r} has the version that {seen.get(version)!r} had"
            seen[version] = data


def _without(ability: object) -> SkipTest:
    return SkipTest(f"the backend has no ability {getattr(ability, '__name__', ability)}")

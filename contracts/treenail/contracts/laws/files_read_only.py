"""The laws of a `FileBackend` that can only be read: a web server, an archive, a hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from unittest import SkipTest

from hypothesis import example, given
from hypothesis import strategies as st

from treenail.contracts.files import ScansFiles, StreamsFiles
from treenail.contracts.laws._file_model import BAD_PATHS, NAMES, by_bytes
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.files_paths import check_splitting
from treenail.kernel import Capabilities, FileBackend, FileError, FileMissingError

_BYTES = bytes(range(256)) * 4
_MANY = {f"d{number % 3}/{number:02}": bytes([number]) * (number * 997) for number in range(24)}


class ReadOnlyFileLaws(ABC):
    """What every file backend obeys that cannot write: subclass it, define `make`, and let pytest collect the subclass.

    Attributes:
        lists: The store can list its files; where it cannot, `list` raises `FileError`.
        names: The names of the files that names are tried with; leave out what the store cannot hold at all.
    """

    lists: bool = True
    names: tuple[str, ...] = NAMES

    @abstractmethod
    def make(self, files: Mapping[str, bytes]) -> FileBackend:
        """Return a backend whose root holds exactly these files."""

    def test_a_read_only_backend_says_so(self) -> None:
        """It has a URI, and declares that it cannot be written."""
        backend = self.make({"file": b"x"})
        assert isinstance(backend.uri, str), f"uri is {backend.uri!r}, not a string"
        assert backend.uri, "uri is empty"
        assert isinstance(backend.capabilities, Capabilities), f"capabilities are {backend.capabilities!r}"
        assert not backend.capabilities.writable, "a read-only backend declares itself writable"

    def test_a_uri_is_split_into_root_and_path(self) -> None:
        """A class that splits URIs finds one root for all files, and each file's path below it."""
        check_splitting(self.make({"keep": b"keep"}))

    def test_reading_gives_the_content(self) -> None:
        """Every file comes back as bytes, whole and unchanged: empty, binary, large."""
        files = {"empty": b"", "d/binary": _BYTES, "d/large": _BYTES * 4000, "d/e/text": "Grüße\r\n\n".encode()}
        backend = self.make(files)
        for path, data in files.items():
            with accepted(f"reading '{path}'"):
                found = backend.read(path)
            assert type(found) is bytes, f"read gave a {type(found).__name__}, not bytes"
            assert found == data, f"'{path}' has {len(data)} bytes, read gave {len(found)} others"

    def test_ranges_are_slices(self) -> None:
        """A range read(path, start, length) is data[start : start + length], to the end when length is None."""
        backend, size = self.make({"file": _BYTES}), len(_BYTES)

        @given(start=st.integers(0, size + 3), length=st.none() | st.integers(0, size + 3))
        @example(start=1, length=0)
        @example(start=size - 1, length=1)
        @example(start=size, length=None)
        @example(start=size + 100, length=5)
        @example(start=0, length=size + 10)
        @examples(40)
        def check(start: int, length: int | None) -> None:
            expected = _BYTES[start:] if length is None else _BYTES[start : start + length]
            with accepted(f"read({start}, {length}) of {size} bytes"):
                found = backend.read("file", start, length)
            assert found == expected, f"read({start}, {length}) of {size} bytes gave {len(found)} bytes, or others"

        check()

    def test_ranges_of_an_empty_file_are_empty(self) -> None:
        """Whatever is asked of an empty file, nothing comes back."""
        backend = self.make({"empty": b""})
        for start, length in ((0, None), (0, 0), (0, 5), (3, None), (3, 5)):
            with accepted(f"read({start}, {length}) of an empty file"):
                found = backend.read("empty", start, length)
            assert found == b"", f"read({start}, {length}) of an empty file gave {found!r}"

    def test_negative_ranges_are_refused(self) -> None:
        """A negative start or length raises FileError."""
        backend = self.make({"file": b"abc"})
        for start, length in ((-1, None), (-1, 1), (0, -1), (2, -2)):
            with refused(f"read({start}, {length})", FileError, never=(FileMissingError,)):
                backend.read("file", start, length)

    def test_streams_are_what_reads_give(self) -> None:
        """A backend that streams yields the bytes of read, in ranges, too; chunk after chunk."""
        large = _BYTES * 4000
        backend = self.make({"large": large, "empty": b""})
        if not isinstance(backend, StreamsFiles):
            raise SkipTest("the backend does not stream")
        for start, length in ((0, None), (5, None), (1_000_003, 2_000_003), (0, 10), (3, 0), (len(large), None)):
            with accepted(f"stream({start}, {length})"):
                found = b"".join(backend.stream("large", start, length))
            expected = large[start : None if length is None else start + length]
            assert found == expected, f"stream({start}, {length}) gave {len(found)} bytes, or others"
        assert b"".join(backend.stream("empty")) == b"", "an empty file streams bytes"
        for path, length in (("missing", None), ("missing", 0)):
            with refused("stream of a missing file", FileMissingError):
                list(backend.stream(path, 0, length))

    def test_stat_gives_size_and_time(self) -> None:
        """The size is in bytes, the time in seconds since 1970, the version differs between contents or is None."""
        files = {"empty": b"", "one": b"1", "d/two": _BYTES}
        backend = self.make(files)
        with accepted("stat of files"):
            found = {path: backend.stat(path) for path in files}
        for path, data in files.items():
            assert found[path].size == len(data), f"stat says {found[path].size} bytes of {len(data)}"
            assert 0 <= found[path].modified < 1e10, f"stat says {found[path].modified} s, which is no time"
            assert found[path] == backend.stat(path), "two stats of an unchanged file differ"

    def test_missing_files_are_named_so(self) -> None:
        """Reading and stat of what is no file (a directory, too) raise FileMissingError."""
        backend = self.make({"d/file": b"1", "file": b"2"})
        verbs: tuple[Callable[[str], object], ...] = (backend.read, backend.stat)
        for path in ("missing", "d", "d/missing", "missing/missing", "file/below", "fil", "d/file2", "d/File"):
            for verb in verbs:
                with refused(f"{verb.__name__}('{path}'), which is no file,", FileMissingError):
                    verb(path)
        for start, length in ((1, 0), (0, 1), (5, None)):
            with refused(f"read({start}, {length}) of a missing file", FileMissingError):
                backend.read("missing", start, length)

    def test_bad_paths_are_refused(self) -> None:
        """An empty, absolute, climbing or ambiguous path raises FileError from every verb."""
        backend = self.make({"keep": b"keep"})
        verbs: dict[str, Callable[[str], object]] = {
            "read": backend.read,
            "stat": backend.stat,
            "write": lambda path: backend.write(path, b"bad"),
            "delete": backend.delete,
            "list": lambda path: list(backend.list(path)),
        }
        for name, verb in verbs.items():
            for path in BAD_PATHS if name == "list" else ("", *BAD_PATHS):
                with refused(f"{name}({path!r})", FileError, never=(FileMissingError,)):
                    verb(path)

    def test_names_are_taken_literally(self) -> None:
        """Unicode, spaces, percent signs, leading dots and the like name files of their own, as they are."""
        files = {name: name.encode() for name in self.names}
        backend = self.make(files)
        for name, data in files.items():
            with accepted(f"reading {name!r}"):
                content, size = backend.read(name), backend.stat(name).size
            assert content == data, f"{name!r} holds the content of another name"
            assert size == len(data), f"stat of {name!r} is of another file"

    def test_nothing_can_be_written(self) -> None:
        """Writing and deleting raise FileError, whether the file exists or not, and nothing changes."""
        files = {"file": b"old", "d/file": b"older"}
        backend = self.make(files)
        for path in ("file", "d/file", "new", "d/new"):
            for data in (b"new", iter([b"n", b"ew"])):
                with refused(f"write('{path}') to a read-only store", FileError, never=(FileMissingError,)):
                    backend.write(path, data)
            with refused(f"delete('{path}') in a read-only store", FileError, never=(FileMissingError,)):
                backend.delete(path)
        for path, data in files.items():
            assert backend.read(path) == data, f"a refused write or delete changed '{path}'"
        with refused("read of a file that a refused write named", FileMissingError):
            backend.read("new")

    def test_lists_are_complete_and_sorted(self) -> None:
        """A list yields each file below a directory once, in order of the UTF-8 bytes; without lists it is refused."""
        files = dict.fromkeys(
            ("a/b", "a.b", "a0", "Z", "é", "\U0001f600", "\uffe0", "a-/x", "z/y/x", "z/y.x", "z/y0"), b""
        )
        backend = self.make(files)
        if not self.lists:
            for prefix in ("", "a", "missing"):
                with refused(f"list('{prefix}') of a store without listings", FileError, never=(FileMissingError,)):
                    list(backend.list(prefix))
            return
        for prefix in ("", "a", "z", "z/y", "missing", "a0", "a0/x"):
            expected = sorted((path for path in files if not prefix or path.startswith(f"{prefix}/")), key=by_bytes)
            with accepted(f"list('{prefix}')"):
                found = list(backend.list(prefix))
            assert found == expected, f"list('{prefix}') gives {found}, below it lie {expected}"

    def test_a_scan_is_a_list_with_stats(self) -> None:
        """A backend that scans yields the pairs (path, stat(path)) of its list, in the same order."""
        files = backend = self.make({"a.b": b"1", "a/b": b"22", "a/c/d": b"", "a-b": b"333", "é": b"4", "ab/x": b"5"})
        if not isinstance(backend, ScansFiles):
            raise SkipTest("the backend does not scan")
        for prefix in ("", "a", "a/c", "missing", "é"):
            with accepted(f"scan('{prefix}')"):
                found = list(backend.scan(prefix))
            expected = [(path, files.stat(path)) for path in files.list(prefix)]
            assert found == expected, f"scan('{prefix}') gives {found}, list and stat give {expected}"
        for path in BAD_PATHS:
            with refused(f"scan({path!r})", FileError, never=(FileMissingError,)):
                list(backend.scan(path))

    def test_threads_read_at_once(self) -> None:
        """Several threads read different files, and the same one, each what it asked for."""
        backend = self.make(_MANY)
        paths = [*_MANY, *_MANY, *[next(iter(_MANY))] * 8]
        with ThreadPoolExecutor(8) as pool, accepted("reading in 8 threads"):
            found = list(pool.map(backend.read, paths))
        wrong = [path for path, data in zip(paths, found, strict=True) if data != _MANY[path]]
        assert not wrong, f"read in threads, {wrong} hold other content"

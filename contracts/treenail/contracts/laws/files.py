"""The laws of a `FileBackend`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import cast
from unittest import SkipTest

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from treenail.contracts.files import CreatesFiles
from treenail.contracts.laws._file_model import AgainstDict, BrokenSourceError, Interrupt, write_and_fail
from treenail.contracts.laws._support import accepted, examples, refused
from treenail.contracts.laws.files_together import ConcurrentFileLaws
from treenail.kernel import Capabilities, FileError, FileMissingError

CONTENTS = b"", b"x", bytes(range(256))


class FileBackendLaws(ConcurrentFileLaws):
    """What every file backend obeys: subclass it, define `make`, and let pytest collect the subclass."""

    def test_a_new_backend_says_what_it_is(self) -> None:
        """A fresh backend lists nothing, has a URI, and declares its capabilities as they are."""
        backend = self.make()
        assert list(backend.list()) == [], "a fresh backend lists files"
        assert isinstance(backend.uri, str), f"uri is {backend.uri!r}, not a string"
        assert backend.uri, "uri is empty"
        assert isinstance(backend.capabilities, Capabilities), f"capabilities are {backend.capabilities!r}"
        assert backend.capabilities.writable, "a backend that is written declares itself read only"
        declared, able = backend.capabilities.conditional_put, isinstance(backend, CreatesFiles)
        assert declared == able, f"conditional_put is declared as {declared}, but the ability to create is {able}"

    @given(data=st.binary(max_size=2000))
    @examples(20)
    def test_read_gives_what_was_written(self, data: bytes) -> None:
        """What write put into a path, read gives back as bytes."""
        backend = self.make()
        backend.write("d/file", data)
        found = backend.read("d/file")
        assert type(found) is bytes, f"read gave a {type(found).__name__}, not bytes"
        assert found == data, f"wrote {len(data)} bytes, read {len(found)} others"

    def test_a_file_can_be_empty(self) -> None:
        """A file of no bytes exists, is listed, and has size 0."""
        for nothing in (b"", iter(())):
            backend = self.make()
            with accepted("writing no bytes and reading them"):
                backend.write("empty", nothing)
                found = backend.read("empty"), backend.stat("empty").size, list(backend.list())
            assert found == (b"", 0, ["empty"]), f"an empty file is {found}"

    def test_a_file_can_be_large(self) -> None:
        """5 MB come back whole and in ranges, written at once or in chunks."""
        data = bytes(range(251)) * 20_000
        backend = self.make()
        backend.write("once", data)
        backend.write("chunks", (data[start : start + 65_536] for start in range(0, len(data), 65_536)))
        for path in ("once", "chunks"):
            assert backend.read(path) == data, f"'{path}' of {len(data)} bytes came back changed"
            assert backend.read(path, 4_000_001, 1000) == data[4_000_001:4_001_001], f"a range of '{path}' is wrong"
            assert backend.stat(path).size == len(data), f"stat says {backend.stat(path).size} bytes of {len(data)}"

    @given(data=st.binary(max_size=100), start=st.integers(0, 120), length=st.none() | st.integers(0, 120))
    @example(data=b"abc", start=1, length=0)
    @example(data=b"abc", start=2, length=1)
    @examples(50)
    def test_ranges_are_slices(self, data: bytes, start: int, length: int | None) -> None:
        """A range read(path, start, length) is data[start : start + length], to the end when length is None."""
        backend = self.make()
        backend.write("file", data)
        expected = data[start:] if length is None else data[start : start + length]
        with accepted(f"read({start}, {length}) of {len(data)} bytes"):
            found = backend.read("file", start, length)
        assert found == expected, f"read({start}, {length}) of {len(data)} bytes gave {found!r}, not {expected!r}"

    def test_reading_beyond_the_end_gives_what_is_there(self) -> None:
        """A range that reaches past the end gives fewer bytes, or none."""
        backend = self.holding("abc")
        for start, length, expected in ((1, 10, b"bc"), (3, 1, b""), (3, None, b""), (100, 5, b""), (100, None, b"")):
            with accepted(f"read({start}, {length}) of 3 bytes"):
                found = backend.read("abc", start, length)
            assert found == expected, f"read({start}, {length}) of b'abc' gave {found!r}"

    def test_negative_ranges_are_refused(self) -> None:
        """A negative start or length raises FileError."""
        backend = self.holding("file")
        for start, length in ((-1, None), (-1, 1), (0, -1), (2, -2)):
            with refused(f"read({start}, {length})", FileError, never=(FileMissingError,)):
                backend.read("file", start, length)

    def test_write_replaces_the_whole_file(self) -> None:
        """After a second write only the second content is there, shorter or longer."""
        backend = self.make()
        for data in (b"a long first content", b"short", b"", b"longer again"):
            backend.write("d/file", data)
            found = backend.read("d/file"), backend.stat("d/file").size
            assert found == (data, len(data)), f"after overwriting with {data!r}: {found}"
        assert list(backend.list()) == ["d/file"], "overwriting left other files"

    @given(chunks=st.lists(st.binary(max_size=50), max_size=8))
    @examples(20)
    def test_chunks_are_joined(self, chunks: list[bytes]) -> None:
        """An iterable of chunks, once-only or not, is written as the chunks joined."""
        backend = self.make()
        backend.write("list", chunks)
        backend.write("generator", (chunk for chunk in chunks))
        for path in ("list", "generator"):
            assert backend.read(path) == b"".join(chunks), f"chunks {chunks!r} from a {path} came back changed"

    def test_a_failed_write_keeps_the_old_content(self) -> None:
        """When the iterable raises, the path holds what it held before, and nothing else appears."""
        for error in (BrokenSourceError, Interrupt):
            backend = self.holding("d/file", "d/other")
            write_and_fail(backend, "d/file", error)
            with accepted(f"reading what was there before a write failed by {error.__name__}"):
                found = backend.read("d/file")
            assert found == b"d/file", f"a write failed by {error.__name__} changed the file"
            left = list(backend.list())
            assert left == ["d/file", "d/other"], f"a write failed by {error.__name__} left {left}"

    def test_a_failed_write_makes_no_file(self) -> None:
        """When the iterable raises and the path is new, nothing exists afterwards."""
        for error in (BrokenSourceError, Interrupt):
            backend = self.make()
            write_and_fail(backend, "d/new", error)
            assert list(backend.list()) == [], f"a write failed by {error.__name__} left {list(backend.list())}"
            with refused("stat of a file whose write failed", FileMissingError):
                backend.stat("d/new")

    def test_an_unfinished_write_is_invisible(self) -> None:
        """While a write is under way, list shows what was there before."""
        backend, seen = self.holding("d/old"), list[Future[list[str]]]()

        def chunks() -> Iterator[bytes]:
            yield b"first"
            seen.append(pool.submit(lambda: list(backend.list())))
            wait(seen, timeout=2)  # a backend may as well make the list wait for the write
            in_time.append(seen[0].done())
            yield b"second"

        in_time: list[bool] = []
        with ThreadPoolExecutor(1) as pool:
            backend.write("d/new", chunks())
        if in_time == [True]:
            assert seen[0].result() == ["d/old"], f"while 'd/new' is being written, list gives {seen[0].result()}"
        assert list(backend.list()) == ["d/new", "d/old"], "the written file is not listed"

    def test_readers_see_the_old_or_the_new_content(self) -> None:
        """While a file is overwritten, readers get one content or the other in full, where the backend declares it."""
        backend = self.make()
        if not backend.capabilities.atomic_replace:
            raise SkipTest("the backend does not declare atomic_replace")
        versions = [bytes([number]) * (1000 + 37 * number) for number in range(40)]
        backend.write("file", versions[0])
        done, wrong = threading.Event(), list[str]()

        def read() -> None:
            while not done.is_set():
                try:
                    data = backend.read("file")
                except FileMissingError:
                    wrong.append("no file at all")
                else:
                    if data not in versions:
                        wrong.append(f"{len(data)} bytes, of {sorted(set(data))}")
                time.sleep(0.0002)  # the writer goes on, too

        def slowly(data: bytes) -> Iterator[bytes]:
            for start in range(0, len(data), 500):
                yield data[start : start + 500]
                time.sleep(0.001)  # a window in which a write in place would show

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            try:
                for version in versions[1:]:
                    backend.write("file", slowly(version))
            finally:
                done.set()
            for reader in readers:
                reader.result()
        assert not wrong, f"a reader saw a mixture: {wrong[0]} ({len(wrong)} times)"

    def test_stat_gives_size_and_time(self) -> None:
        """The size is in bytes, the time is that of the write, in seconds since 1970."""
        backend = self.make()
        for data in CONTENTS:
            backend.write("file", data)
            size, modified, _ = backend.stat("file")
            assert size == len(data), f"stat says {size} bytes, written were {len(data)}"
            assert abs(modified - time.time()) < 86_400, f"stat says {modified} s, a write just now is {time.time()} s"

    def test_it_behaves_as_a_dict(self) -> None:
        """Any sequence of writes, deletions, reads and lists gives what a dict of paths and bytes would."""
        factory = cast("type[AgainstDict]", lambda: AgainstDict(self.make()))  # any callable will do
        run_state_machine_as_test(factory, settings=settings(examples(20), stateful_step_count=30))

"""Large files of records, a part at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files import MemoryFiles, Mounts, Span, iterate_records, read_records, record_spans, use_mounts
from treenail.kernel import FileError, FileMissingError, FileStat

DELIMITERS = st.sampled_from((None, b"\n", b"\r\n", b"aa", b"ab"))


def mounted(data: bytes) -> Mounts:
    files = MemoryFiles()
    files.write("file", data)
    mounts = Mounts()
    mounts.mount("m://", files)
    return mounts


def begins_a_record(data: bytes, position: int, delimiter: bytes | None) -> bool:
    return delimiter is None or position == 0 or data[:position].endswith(delimiter)


@given(data=st.text("ab\r\n", max_size=60).map(str.encode), parts=st.integers(1, 9), delimiter=DELIMITERS)
@settings(deadline=None)
def test_spans_are_the_whole_file_and_begin_with_records(data: bytes, parts: int, delimiter: bytes | None) -> None:
    with use_mounts(mounted(data)):
        for spans in (
            record_spans("m://file", parts=parts, delimiter=delimiter),
            record_spans("m://file", part_size=parts, delimiter=delimiter),
        ):
            assert b"".join(data[start : start + length] for start, length in spans) == data
            assert all(length > 0 and begins_a_record(data, start, delimiter) for start, length in spans)
        assert len(record_spans("m://file", parts=parts, delimiter=delimiter)) <= parts


@given(data=st.text("ab\r\n", max_size=60).map(str.encode), size=st.integers(1, 20), delimiter=DELIMITERS)
@settings(deadline=None)
def test_windows_one_after_another_lose_and_repeat_nothing(data: bytes, size: int, delimiter: bytes | None) -> None:
    read, start = b"", 0
    with use_mounts(mounted(data)):
        while start < len(data):
            window, after = read_records("m://file", start, size, delimiter)
            assert after > start
            assert begins_a_record(data, start, delimiter)
            read, start = read + window, after
        assert read_records("m://file", len(data) + 3, size, delimiter) == (b"", len(data))
    assert read == data


@given(data=st.text("ab\n", max_size=60).map(str.encode), delimiter=st.sampled_from((b"\n", b"ab", b"\nb")))
@settings(deadline=None)
def test_records_are_what_split_gives(data: bytes, delimiter: bytes) -> None:
    expected = data.split(delimiter)
    if expected[-1] == b"":
        expected.pop()
    with use_mounts(mounted(data)):
        assert list(iterate_records("m://file", delimiter)) == expected
        spans = record_spans("m://file", parts=4, delimiter=delimiter)
        assert [each for span in spans for each in iterate_records("m://file", delimiter, span)] == expected


def test_a_delimiter_across_chunks_of_the_store_divides_and_a_long_record_takes_linear_time() -> None:
    long = b"x" * (40 << 20)
    data = long[: (8 << 20) - 1] + b"\r\nshort\r\n" + long + b"\r\nend"
    with use_mounts(mounted(data)):
        assert list(iterate_records("m://file", b"\r\n")) == [long[: (8 << 20) - 1], b"short", long, b"end"]
        first, second = record_spans("m://file", parts=2, delimiter=b"\r\n")
        assert data[second.start :] == b"end"
        assert first == Span(0, second.start)


def test_record_zero_the_last_byte_and_files_of_one_byte_are_read() -> None:
    """What SCEPTER's get_object_stream and get_object_chunk_list lose."""
    with use_mounts(mounted(b"line000\nline001\nx")):
        assert read_records("m://file", 0, 9, b"\n") == (b"line000\nline001\n", 16)
        assert read_records("m://file", 16, 9, b"\n") == (b"x", 17)
        assert record_spans("m://file", part_size=2)[-1] == Span(16, 1)
    with use_mounts(mounted(b"1")):
        assert read_records("m://file") == (b"1", 1)
        assert record_spans("m://file", part_size=2) == [Span(0, 1)]
    with use_mounts(mounted(b"0123456789")):
        assert record_spans("m://file", part_size=2) == [Span(start, 2) for start in range(0, 10, 2)]


def test_what_cannot_be_divided_so_is_refused() -> None:
    with use_mounts(mounted(b"a\nb\n")):
        for parts, part_size in ((None, None), (0, None), (None, 0), (1, 1), (-1, None)):
            with pytest.raises(FileError, match="give one of them, at least 1"):
                record_spans("m://file", parts=parts, part_size=part_size)
        with pytest.raises(FileError, match="start is at least 0"):
            read_records("m://file", -1)
        with pytest.raises(FileError, match="start is at least 0, size 1"):
            read_records("m://file", 0, 0)
        with pytest.raises(FileError, match="the delimiter is b''"):
            read_records("m://file", 0, 1, b"")
        with pytest.raises(FileMissingError):
            record_spans("m://missing", parts=2)


def test_a_file_that_shrinks_meanwhile_is_an_error_and_no_endless_search() -> None:
    class Shrinks(MemoryFiles):
        def stat(self, path: str) -> FileStat:
            return super().stat(path)._replace(size=100)

    files, mounts = Shrinks(), Mounts()
    files.write("file", b"no delimiter")
    mounts.mount("m://", files)
    with pytest.raises(FileError, match="changed while it was read"):
        record_spans("m://file", parts=2, delimiter=b"\n", mounts=mounts)

"""One read of one file of an HTTP server, over as many connections as it takes; never of two versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from treenail.adapters.files.http.digests import Expected, Hasher, strongest
from treenail.adapters.files.http.retries import PassingError, RetryPolicy, Tries
from treenail.kernel import FileError

if TYPE_CHECKING:
    from treenail.adapters.files.http.client import Answer


class Version(NamedTuple):
    """What tells two contents of a file apart.

    Args:
        etag: A strong one, as it came; None without.
        modified: The date of the last change, as it came; None without.
        settled: The date alone tells versions apart: it lies at least a second before the answer (RFC 9110, 8.8.2.2).
        size: In bytes, None where it was not said.
    """

    etag: str | None
    modified: str | None
    settled: bool
    size: int | None

    @property
    def validator(self) -> str | None:
        """What If-Range is given; None where no two answers can be put together."""
        return self.etag or (self.modified if self.settled else None)

    def is_same(self, other: Version) -> bool:
        """Return whether another answer is surely of this version."""
        marks = (self.etag, other.etag) if self.etag else (self.modified, other.modified)
        return marks[0] == marks[1] and (None in (self.size, other.size) or self.size == other.size)


def strong_etag(answer: Answer) -> str | None:
    """Return an answer's ETag, None without one or when it is weak."""
    etag = (answer.header("ETag") or "").strip()
    return etag if etag.startswith('"') else None


def seconds_of(date: str | None) -> float | None:
    """Return an HTTP date in seconds since the Unix epoch, None where there is none."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def _version_of(answer: Answer, size: int | None) -> Version:
    modified, sent = answer.header("Last-Modified"), answer.header("Date")
    changed_at, sent_at = seconds_of(modified), seconds_of(sent)
    settled = changed_at is not None and sent_at is not None and sent_at - changed_at >= 1
    return Version(strong_etag(answer), modified, settled, size)


class Download:
    """Reads bytes start … start+length-1 of a file.

    Args:
        ask: Makes a GET request with further headers; it is answered with status 200, 206 or 416.
        size: Asks for the file's size.
        where: The file's URL, for messages.
        policy: How often requests are made again.
        enough: As many bytes of one connection count as progress.
        start: The first byte, at least 0.
        length: How many, at least 1; all to the end when None.
        pin: What the file must hash to; then it is read whole.
        again: Forgets what was yielded, so that a read which cannot be resumed begins anew; None where that is too late.
    """

    def __init__(
        self,
        ask: Callable[[Mapping[str, str]], Answer],
        size: Callable[[], int],
        *,
        where: str,
        policy: RetryPolicy,
        enough: float,
        start: int,
        length: int | None,
        pin: Expected | None,
        again: Callable[[], None] | None,
    ) -> None:
        self._ask = ask
        self._size = size
        self._where = where
        self._policy = policy
        self._enough = enough
        self._start = start
        self._wanted_end = None if length is None else start + length
        self._pin = pin
        self._again = again
        self._begin()

    def _begin(self) -> None:
        self._position = self._start
        self._end = self._wanted_end
        self._seen: Version | None = None
        self._hasher: Hasher | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; when this ends, they are all of them, and verified.

        Raises:
            FileMissingError: There is no such file.
            FileError: The server failed too often, the file changed meanwhile, or its bytes are not what they should be.
        """
        tries, furthest, was_wrong = Tries(self._policy, "read"), self._start, False
        while True:
            try:
                if self._end is None or self._position < self._end:
                    yield from self._attempt()
                    continue
            except PassingError as error:
                if self._position - furthest >= self._enough:  # what is read anew is no progress
                    tries.progressed()
                    furthest = self._position
                if self._position > self._start and (self._seen is None or self._seen.validator is None):
                    self._begin_again(
                        error, "the server has neither a strong ETag nor a date that tells versions apart"
                    )
                tries.failed(error)
                continue
            complaint = self._hasher.complaint() if self._hasher else None
            if complaint is None:
                return
            wrong = PassingError(
                complaint, where=self._where, mend="look what changes the file, or the bytes on the way"
            )
            self._begin_again(
                wrong, "it came so twice" if was_wrong else "it is too late to begin anew", last=was_wrong
            )
            was_wrong = True
            tries.failed(wrong)

    def _begin_again(self, error: PassingError, why: str, *, last: bool = False) -> None:
        if last or self._again is None:
            raise FileError(
                f"cannot read: {error.message}; {why}",
                where=self._where,
                mend=error.mend or "read the file whole instead of streaming it",
            ) from error
        self._again()
        self._begin()

    def _attempt(self) -> Iterator[bytes]:
        headers = {}
        if self._position > 0 or self._end is not None:
            last = "" if self._end is None else self._end - 1
            headers["Range"] = f"bytes={self._position}-{last}"
        if self._position > self._start and self._seen is not None and self._seen.validator is not None:
            headers["If-Range"] = self._seen.validator
        with closing(self._ask(headers)) as answer:
            if answer.status == 416:
                self._take_end(answer)
                return
            first, stop, size = self._covered(answer)
            self._take_version(answer, _version_of(answer, size), first, stop)
            if self._end is None or self._position < self._end:
                yield from self._body(answer, first, stop)

    def _covered(self, answer: Answer) -> tuple[int, int | None, int | None]:
        """Return the first byte, the byte after the last and the size of the file that a body is of."""
        if answer.status == 200:
            if not answer.delimited:
                raise FileError(
                    "the server does not say how long the file is, so that a cut connection would go unnoticed",
                    where=self._where,
                    mend="let the server send Content-Length, or chunks",
                )
            return 0, answer.length, answer.length
        first, stop, size = answer.covers
        if first is None or stop is None or first != self._position or stop <= first:
            fits = False
        else:
            fits = (self._end is None or stop <= self._end) and (size is None or stop <= size)
        if not fits:
            raise FileError(
                f"asked for bytes from {self._position} to {self._end}, the server sends {answer.header('Content-Range')}",
                where=self._where,
                mend="something on the way garbles ranges; name the server itself",
            )
        assert first is not None and stop is not None  # noqa: PT018 - they fit
        if answer.length is not None and answer.length != stop - first:
            raise PassingError(f"{answer.length} bytes come for the range {first}-{stop - 1}", where=self._where)
        return first, stop, size

    def _take_version(self, answer: Answer, version: Version, first: int, stop: int | None) -> None:
        if self._position > self._start and self._seen is not None:
            if not self._seen.is_same(version):
                raise FileError("the file changed while it was read", where=self._where, mend="read it again")
            return
        self._seen = version
        ends = [end for end in (self._wanted_end, version.size) if end is not None]
        self._end = min(ends, default=None)
        whole_file = self._start == 0 and self._end == version.size
        whole_message = first == self._start and stop == self._end
        expected = self._pin or strongest(answer.header, message=whole_message, file=whole_file)
        self._hasher = expected.hasher() if expected else None

    def _take_end(self, answer: Answer) -> None:
        """Take the server's word that the file ends before this position."""
        size = answer.covers[2]
        if size is None:
            size = self._size()
        if self._seen is not None and self._seen.size is not None and self._position > self._start:
            wrong = PassingError(f"{self._seen.size} bytes were announced, but there are {size}", where=self._where)
            self._begin_again(wrong, "it is too late to begin anew")
            raise wrong
        if size > self._position:
            raise FileError(
                f"the server has no bytes from {self._position} on, but {size} in all",
                where=self._where,
                mend="something on the way garbles ranges; name the server itself",
            )
        self._end = self._position

    def _body(self, answer: Answer, first: int, stop: int | None) -> Iterator[bytes]:
        at = first
        for chunk in answer.chunks():
            low = max(self._position - at, 0)
            at += len(chunk)
            if stop is not None and at > stop:
                raise PassingError(f"more bytes come than the {stop - first} announced", where=self._where)
            piece = chunk[low : None if self._end is None else low + self._end - self._position]
            if piece:
                self._position += len(piece)
                if self._hasher is not None:
                    self._hasher.update(piece)
                yield piece
            if self._position == self._end:
                return
        if stop is not None and at < stop:
            raise PassingError(f"{at - first} bytes came of {stop - first}", where=self._where)
        if stop is None:  # the end of chunks is the end of the file
            self._end = self._position

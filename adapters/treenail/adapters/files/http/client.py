"""Requests to HTTP servers: redirects that stay where they may, and answers that mean what they say.

Imports urllib3, so it is imported where it is used.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from urllib3.exceptions import HTTPError, NameResolutionError
from urllib3.response import BaseHTTPResponse

from treenail.adapters.files.http.pools import EncryptedConnection, PlainConnection, Pools
from treenail.adapters.files.http.retries import PassingError, asked_wait
from treenail.adapters.files.http.urls import Reach, Url, follow, reach_of
from treenail.kernel import FileError, FileMissingError

MAX_REDIRECTS = 10
CHUNK = 512 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, *range(500, 600)} - {501, 505, 511})
_SMALL = 64 * 1024
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)", re.IGNORECASE)


class DirectoryError(FileMissingError):
    """There is a directory of that name."""


class Answer(NamedTuple):
    """A final answer to a request.

    Args:
        response: Its body has not been read.
        url: Where it came from, after redirects.
    """

    response: BaseHTTPResponse
    url: Url

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    def header(self, name: str) -> str | None:
        """Return a header's value, None without it."""
        return self.response.headers.get(name)

    @property
    def length(self) -> int | None:
        """How many bytes the body has, None where that is not said."""
        text = (self.header("Content-Length") or "").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def delimited(self) -> bool:
        """Whether the end of the body can be told from a cut connection."""
        return self.length is not None or "chunked" in (self.header("Transfer-Encoding") or "").lower()

    @property
    def covers(self) -> tuple[int | None, int | None, int | None]:
        """First byte, byte after the last, and size of the file as Content-Range says; None for what it does not say."""
        found = _CONTENT_RANGE.fullmatch((self.header("Content-Range") or "").strip())
        if found is None:
            return None, None, None
        first, last, size = found.groups()
        return (
            None if first is None else int(first),
            None if last is None else int(last) + 1,
            None if size == "*" else int(size),
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            PassingError: The connection was cut or stalled, or brought fewer bytes than the header says.
        """
        with explained(self.url):
            while chunk := self.response.read1(CHUNK):
                yield chunk

    def close(self) -> None:
        """Give the connection back where the body has been read, or is so small that it may as well be; else cut it."""
        try:
            if self.length is not None and self.length <= _SMALL:
                self.response.drain_conn()
        finally:
            if self.response.closed:
                self.response.release_conn()
            else:
                self.response.close()


def request(
    pools: Pools,
    method: str,
    url: Url,
    headers: Mapping[str, str],
    private: Mapping[str, str],
    *,
    accepted: frozenset[int],
    anywhere: bool,
) -> Answer:
    """Make a request, follow redirects, and return the answer, whose status is one of those accepted.

    Args:
        pools: The connections.
        method: "GET" or "HEAD".
        url: Where to.
        headers: Go with every request.
        private: Go to the URL's own origin only: credentials.
        accepted: Statuses to return.
        anywhere: Redirects may lead to private addresses.

    Raises:
        FileMissingError: There is no such file.
        PassingError: The failure may pass.
        FileError: The server refused, or redirects to where it must not.
    """
    visited = [url]
    allowed: frozenset[Reach] = frozenset()
    while True:
        current = visited[-1]
        sent = {**headers, **private} if current.origin == url.origin else dict(headers)
        with explained(current):
            response = pools.pool(current, allowed).urlopen(
                method,
                current.target,
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        answer = Answer(response, current)
        if answer.status in accepted:
            return answer
        if not anywhere and not allowed:
            allowed = _allowed_from(response)
        location = answer.header("Location")
        answer.close()
        if answer.status not in _REDIRECTS:
            raise _refusal(answer)
        following = follow(current, location)
        if following == current._replace(path=f"{current.path}/") and len(current.path) > 1:
            raise DirectoryError("this is a directory", where=current.shown)
        if following in visited:
            circle = " → ".join(each.shown for each in [*visited[visited.index(following) :], following])
            raise FileError(f"redirects lead in a circle: {circle}", where=url.shown)
        if len(visited) > MAX_REDIRECTS:
            raise FileError(f"more than {MAX_REDIRECTS} redirects", where=url.shown, mend=f"the last: {current.shown}")
        visited.append(following)


def _allowed_from(response: BaseHTTPResponse) -> frozenset[Reach]:
    """Return what a redirect may lead to: the public, and the network that the server itself is in."""
    connection = response.connection
    assert isinstance(connection, PlainConnection | EncryptedConnection), "the pools make no others"
    return frozenset({"public", reach_of(connection.peer)})


def _refusal(answer: Answer) -> FileError:
    status, where = answer.status, answer.url.shown
    said = f"the server says {status} {answer.response.reason or ''}".rstrip()
    if status in {404, 410}:
        return FileMissingError("there is no such file", where=where)
    if status in {401, 403}:
        return FileError(
            said,
            where=where,
            mend="give credentials the server takes: https://user:password@host/…, headers, or a signed URL that is valid",
        )
    if status in _PASSING:
        return PassingError(said, where=where, wait=asked_wait(answer.header("Retry-After")))
    return FileError(said, where=where, mend="that is no answer to reading a file; look whether the URL is right")


@contextmanager
def explained(url: Url) -> Iterator[None]:
    """Turn the errors of urllib3 and below into ours."""
    try:
        yield
    except FileError as error:
        error.where = error.where or url.shown
        raise
    except (HTTPError, OSError, ValueError) as error:
        raise _explanation(error, url) from error


def _explanation(error: Exception, url: Url) -> FileError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FileError(
                f"the server's certificate cannot be trusted: {cause.verify_message}",
                where=url.shown,
                mend="if you trust its authority, name the file of its certificate as ca_file",
            )
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return FileError(f"there is no host '{url.host}'", where=url.shown, mend="correct its name")
    deepest = causes[-1]
    if isinstance(deepest, ssl.SSLError) and not isinstance(deepest, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return FileError(
            f"no encrypted connection: {deepest.reason or deepest}",
            where=url.shown,
            mend="look whether the server speaks https on this port, and TLS 1.2 or newer",
        )
    if isinstance(error, ValueError) and not isinstance(error, HTTPError | OSError):
        return FileError(f"the request cannot be made: {error}", where=url.shown)
    if isinstance(error, NameResolutionError):
        return PassingError(f"cannot find the host '{url.host}'", where=url.shown)
    if any(isinstance(cause, TimeoutError) for cause in causes) or "timed out" in str(error):
        return PassingError("the server keeps us waiting", where=url.shown, mend="raise timeout if it is that slow")
    return PassingError(f"the connection failed: {deepest}", where=url.shown)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        inner = next((each for each in current.args if isinstance(each, BaseException)), None)
        current = current.__cause__ or inner or current.__context__

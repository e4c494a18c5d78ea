"""Files of HTTP servers, read only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from treenail.adapters.files.http.digests import Expected
from treenail.adapters.files.http.download import Download, seconds_of, strong_etag
from treenail.adapters.files.http.retries import RetryPolicy, retried
from treenail.adapters.files.http.urls import parse_root, split_uri
from treenail.adapters.files.paths import check_path, check_range, read_only, redacted
from treenail.adapters.files.processes import PerProcess
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, require

if TYPE_CHECKING:
    from treenail.adapters.files.http.client import Answer
    from treenail.adapters.files.http.pools import Pools

_OURS = frozenset({"range", "if-range", "accept-encoding", "connection", "content-length", "transfer-encoding"})
_HEAD_REFUSED = frozenset({403, 405, 501})  # 403: a URL that was signed for GET
_BODY_BEGINS = frozenset({200, 206, 416})


class HttpFiles:
    """Files below a URL of http or https.

    A read that is cut goes on where it stopped, by Range and If-Range (RFC 9110, 13.1.5 and 14), and only in the same
    version of the file: a server's strong ETag tells, or else its Last-Modified date. A server that ignores ranges sends
    the whole file, of which the rest is thrown away. Digests that the server sends (Repr-Digest and Content-Digest of RFC
    9530, Digest, Content-MD5) are verified when what they speak of is read whole.

    Paths are percent-encoded; a name that the server redirects to itself with a slash at its end is a directory. HTTP has
    no listings, so `list` is refused. Redirects are followed ten times at most, from http to https but never back or to other
    schemes, and only to public addresses or those of the server's own kind (private, link-local, loopback). Credentials
    go to the root's own scheme, host and port only. Proxies that the environment names are not used.

    A server that announces fewer bytes than a file has is believed, unless a digest or ``#sha256=`` tells better.

    Args:
        root: URL below which the files lie. Its user and password, its query (a signature) and `headers` go with every
            request and are never shown. ``#sha256=…`` at its end says what the files below must hash to; then a read of a
            range fetches the whole file, too.
        headers: Sent with every request to the root's own host, such as ``{"Authorization": "Bearer …"}``.
        retries: How often a request is made again that failed and brought nothing.
        backoff: Longest wait before the first retry, in seconds; it doubles with each, up to 30 s.
        timeout: Longest wait for a connection and for the next bytes, in seconds.
        slowest: Speed below which an answer counts as stalled, in bytes per second over `timeout` seconds.
        patience: How long a read may fail without progress, in seconds.
        connections: How many idle connections to a host are kept.
        ca_file: File of the authorities' certificates to trust (PEM); the system's when None.
        allow_private_redirects: Follow redirects to private addresses, too.

    Raises:
        FileError: The root is no URL of http or https, or an option is out of its range.
        MissingDependencyError: urllib3 is not installed.
    """

    def __init__(
        self,
        root: str,
        *,
        headers: Mapping[str, str] = {},  # read only
        retries: int = 5,
        backoff: float = 0.5,
        timeout: float = 30.0,
        slowest: float = 1024.0,
        patience: float = 300.0,
        connections: int = 32,
        ca_file: str | None = None,
        allow_private_redirects: bool = False,
    ) -> None:
        require("urllib3", extra="http", purpose="reading files by HTTP")
        self._root = parse_root(root)
        self.uri = redacted(root)
        # User, query and hash say what is given, too; what they are is not shown.
        self.identity = self.uri if root == self.uri else f"{blake2b(root.encode()).hexdigest()} {self.uri}"
        self._retries = RetryPolicy(retries, backoff, patience=patience).check(self.uri)
        if not (math.isfinite(timeout + slowest) and timeout > 0 and slowest >= 0 and connections > 0):
            raise FileError(
                "timeout and connections must be more than 0, slowest at least 0, all of them finite", where=self.uri
            )
        for name, value in headers.items():
            if name.lower() in _OURS or any(not " " <= letter <= "~" for letter in name + value):
                raise FileError(f"the header {name!r} cannot be given", where=self.uri, mend="leave it out")
        authorization = {"Authorization": self._root.authorization} if self._root.authorization else {}
        self._private = {**authorization, **headers}
        self._enough = max(slowest * timeout, 1.0)  # bytes of one connection that count as progress
        self._anywhere = allow_private_redirects
        self._pools = PerProcess(partial(_pools, timeout, slowest, connections, ca_file))

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (root with the query and fragment, percent-decoded path below it) of a URL."""
        return split_uri(uri)

    @property
    def capabilities(self) -> Capabilities:
        """Ranges, unless a whole file must be fetched to be verified; nothing can be written."""
        return Capabilities(atomic_replace=False, ranges=self._root.sha256 is None, writable=False)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        self._check(path, start, length)
        if self._root.sha256 is not None:
            return self._joined(path, 0, None)[start : None if length is None else start + length]
        return self._joined(path, start, length)

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield what `read` would return; the last chunk comes after everything was verified."""
        self._check(path, start, length)
        if self._root.sha256 is None:
            return _held_back(self._chunks(path, start, length, again=None))
        return _held_back(_part(self._chunks(path, 0, None, again=None), start, length))

    def stat(self, path: str) -> FileStat:
        """Return size, time (0.0 where the server does not say) and strong ETag of a file."""
        check_path(path, self.uri)
        return retried(self._retries, "stat", lambda: self._stat(path))

    def list(self, prefix: str = "") -> Iterator[str]:
        """Raise `FileError`: HTTP has no listings."""
        check_path(prefix, self.uri, root=True)
        raise FileError("HTTP has no listings", where=self._where(prefix), mend="name the files, in a list of your own")

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Raise `FileError`: this store is read only."""
        raise self._read_only(path)

    def delete(self, path: str) -> None:
        """Raise `FileError`: this store is read only."""
        raise self._read_only(path)

    def is_directory(self, path: str) -> bool:
        """Return whether the server redirects `path` to itself with a slash; the root is always one."""
        from treenail.adapters.files.http.client import DirectoryError

        if not check_path(path, self.uri, root=True):
            return True
        try:
            self.stat(path)
        except DirectoryError:
            return True
        except FileMissingError:
            pass
        return False

    def _check(self, path: str, start: int, length: int | None) -> None:
        check_path(path, self.uri)
        check_range(self._where(path), start, length)

    def _joined(self, path: str, start: int, length: int | None) -> bytes:
        found: list[bytes] = []
        for chunk in self._chunks(path, start, length, again=found.clear):
            found.append(chunk)  # noqa: PERF402 - `again` empties the list on the way
        return found[0] if len(found) == 1 else b"".join(found)

    def _chunks(
        self, path: str, start: int, length: int | None, *, again: Callable[[], None] | None
    ) -> Iterator[bytes]:
        if length == 0:
            self.stat(path)  # a missing file is missing, however little of it is read
            return
        pin = self._root.sha256
        yield from Download(
            lambda headers: self._get("GET", path, headers, _BODY_BEGINS),
            lambda: self._stat(path).size,
            where=self._where(path),
            policy=self._retries,
            enough=self._enough,
            start=start,
            length=length,
            pin=None if pin is None else Expected("sha256", bytes.fromhex(pin)),
            again=again,
        ).chunks()

    def _stat(self, path: str) -> FileStat:
        answer = self._get("HEAD", path, {}, frozenset({200}) | _HEAD_REFUSED)
        answer.close()
        size = answer.length if answer.status == 200 else None
        if size is None:
            answer = self._get("GET", path, {"Range": "bytes=0-0"}, _BODY_BEGINS)
            answer.close()
            size = answer.length if answer.status == 200 else answer.covers[2]
        if size is None:
            raise FileError("the server does not tell the file's size", where=self._where(path), mend="read it instead")
        return FileStat(size, seconds_of(answer.header("Last-Modified")) or 0.0, strong_etag(answer))

    def _read_only(self, path: str) -> FileError:
        return read_only(self.uri, path, "write to another place")

    def _where(self, path: str) -> str:
        return self._root.url.below(path).shown

    def _get(self, method: str, path: str, headers: Mapping[str, str], accepted: frozenset[int]) -> Answer:
        from treenail.adapters.files.http.client import request

        answer = request(
            self._pools.get(),
            method,
            self._root.url.below(path),
            {"Accept-Encoding": "identity", "User-Agent": "treenail", **headers},
            self._private,
            accepted=accepted,
            anywhere=self._anywhere,
        )
        coding = (answer.header("Content-Encoding") or "identity").strip().lower()
        if coding != "identity" and answer.status in {200, 206}:
            answer.close()
            raise FileError(
                f"the server sends the file encoded as {coding}, though it was asked not to",
                where=answer.url.shown,
                mend="switch the compression of this file off at the server",
            )
        return answer


def _pools(timeout: float, slowest: float, connections: int, ca_file: str | None) -> Pools:
    from treenail.adapters.files.http.pools import Pools

    return Pools(timeout=timeout, slowest=slowest, connections=connections, ca_file=ca_file)


def _held_back(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield every chunk when the next is there, and the last when all is well."""
    held: bytes | None = None
    for chunk in chunks:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held


def _part(chunks: Iterator[bytes], start: int, length: int | None) -> Iterator[bytes]:
    """Yield the bytes from `start` of chunks that are taken to their end."""
    at = 0
    for chunk in chunks:
        low = max(start - at, 0)
        piece = chunk[low : None if length is None else max(start + length - at, 0)]
        at += len(chunk)
        if piece:
            yield piece

"""Files as the items of a memcached server (https://docs.memcached.org/protocols/basic/)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, urlsplit

from treenail.adapters.files.contents import joined
from treenail.adapters.files.paths import check_path, check_range, join_uri, path_below, redacted
from treenail.adapters.files.processes import PerProcess
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, TreenailError, require

_LONGEST_KEY = 250
"""Bytes, by the protocol."""
_KEPT = "/!$&'()*+,;=:@~"
"""What keys hold as it is, beside letters, digits and ``_.-``; all else is percent-encoded, "#" too."""


class MemcachedFiles:
    """Files kept in memory by a memcached server: a cache, where any file may vanish at any time.

    **Nothing here is durable**: memcached forgets what has no room, what has expired, and everything when it restarts. It
    cannot list. It keeps no times (they are 0), and a file's size is learned by fetching it. A file is at most as large as
    the server's item size limit, 1 MB unless it was started with ``-I``.

    The key of a file is its path, percent-encoded as in URLs so that spaces and the like pass; where that is longer than
    250 bytes, it is ``#`` and the BLAKE2b hash (32 bytes, hexadecimal) of it. The value is the content as it is.

    Args:
        root: ``memcached://host:port``, with a prefix of all keys behind it, if any; the port is 11211 where it is left out.
        timeout: Seconds that connecting, and each answer, may take.
        expires: Seconds after which the server forgets what is written; 0 lets it keep what it has room for.
    """

    def __init__(self, root: str, *, timeout: float = 5.0, expires: int = 0) -> None:
        self.uri = redacted(root).rstrip("/")
        try:
            parts = urlsplit(root)
            self._host, self._port = parts.hostname, parts.port or 11211
        except ValueError as error:
            raise FileError(
                f"this is no server: {error}", where=self.uri, mend="write memcached://host:port"
            ) from error
        if parts.scheme != "memcached" or not self._host or "@" in parts.netloc or parts.query or parts.fragment:
            raise FileError("this is no server", where=self.uri, mend="write memcached://host:port; it takes no user")
        self._prefix = check_path(parts.path.strip("/"), self.uri, root=True)
        self._root, self._timeout, self._expires = root, timeout, expires
        self._client = PerProcess(partial(_connect, self._host, self._port, timeout))

    def __reduce__(self) -> tuple[object, ...]:
        return partial(MemcachedFiles, timeout=self._timeout, expires=self._expires), (self._root,)

    @property
    def capabilities(self) -> Capabilities:
        """Atomic replacement and creation; a range is cut from the whole file."""
        return Capabilities(atomic_replace=True, conditional_put=True, ranges=False)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_path(path, self.uri)
        check_range(path, start, length)
        data = self._fetch("read", path)[0]
        return data[start : None if length is None else start + length]

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`, until the server forgets it."""
        key, value = self._key(path), joined(data)
        with self._talking("write", path) as client:
            if not client.set(key, value, expire=self._expires, noreply=False):
                raise FileError("cannot write: the server did not store it", where=join_uri(self.uri, path))

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write where there is no such file; return whether there was none."""
        key, value = self._key(path), joined(data)
        with self._talking("create", path) as client:
            return bool(client.add(key, value, expire=self._expires, noreply=False))

    def stat(self, path: str) -> FileStat:
        """Return the size of a file, and as its version the number that memcached gave to its last write."""
        check_path(path, self.uri)
        data, version = self._fetch("stat", path)
        return FileStat(len(data), 0.0, version)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Refuse: memcached cannot list."""
        check_path(prefix, self.uri, root=True)
        raise FileError(
            "memcached cannot list its keys", where=join_uri(self.uri, prefix), mend="ask for files by name"
        )

    def is_directory(self, path: str) -> bool:
        """Return whether `path` is the root: memcached has no directories, and cannot tell what lies below a name."""
        return not check_path(path, self.uri, root=True)

    def delete(self, path: str) -> None:
        """Remove a file."""
        key = self._key(path)
        with self._talking("delete", path) as client:
            if not client.delete(key, noreply=False):
                raise FileMissingError("cannot delete: there is no such file", where=join_uri(self.uri, path))

    def _key(self, path: str) -> bytes:
        check_path(path, self.uri)
        key = quote(path_below(self._prefix, path), safe=_KEPT).encode()
        return key if len(key) <= _LONGEST_KEY else b"#" + blake2b(key, digest_size=32).hexdigest().encode()

    def _fetch(self, operation: str, path: str) -> tuple[bytes, str]:
        key = self._key(path)
        with self._talking(operation, path) as client:
            data, version = client.gets(key)
        if data is None:
            raise FileMissingError("there is no such file, or memcached forgot it", where=join_uri(self.uri, path))
        return bytes(data), bytes(version).decode()

    @contextmanager
    def _talking(self, operation: str, path: str) -> Iterator[Any]:  # pymemcache has no types
        where = join_uri(self.uri, path)
        try:
            yield self._client.get()
        except TreenailError:
            raise
        except _library().MemcacheError as error:
            mend = (
                "start it with a larger limit (-I), or keep large files elsewhere" if b"large" in _said(error) else None
            )
            raise FileError(
                f"cannot {operation}: {_said(error).decode(errors='replace')}", where=where, mend=mend
            ) from error
        except OSError as error:
            raise FileError(f"cannot {operation}: {error}", where=where, mend="see whether the server runs") from error


def _library() -> Any:  # pymemcache has no types
    return require("pymemcache", extra="memcached", purpose="'memcached://'")


def _connect(host: str, port: int, timeout: float) -> Any:  # pymemcache has no types
    return _library().PooledClient((host, port), connect_timeout=timeout, timeout=timeout, no_delay=True)


def _said(error: Exception) -> bytes:
    said = error.args[0] if error.args else type(error).__name__
    return said if isinstance(said, bytes) else str(said).encode()

"""Files in this process's memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from treenail.adapters.files.contents import joined
from treenail.adapters.files.paths import check_path, check_range, join_uri, redacted
from treenail.kernel import Capabilities, FileMissingError, FileStat


class MemoryFiles:
    """Files that last as long as this object; for tests and small scratch data. Safe between threads.

    Another process gets a copy of them: what either writes afterwards, the other does not see.

    Args:
        root: What messages call it.
    """

    def __init__(self, root: str = "memory://") -> None:
        self.uri = redacted(root)
        self._files: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        with self._lock:
            return _restored, (self.uri, dict(self._files))

    @property
    def capabilities(self) -> Capabilities:
        """Atomic replacement, creation and ranges."""
        return Capabilities(atomic_replace=True, conditional_put=True, ranges=True)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_range(path, start, length)
        data = self._find(path)[0]
        return data if start == 0 and length is None else data[start : None if length is None else start + length]

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`."""
        check_path(path, self.uri)
        content = joined(data)
        with self._lock:
            self._files[path] = content, time.time()

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write where there is no such file; return whether there was none."""
        check_path(path, self.uri)
        content = joined(data)
        with self._lock:
            return self._files.setdefault(path, entry := (content, time.time())) is entry

    def stat(self, path: str) -> FileStat:
        """Return size, time and a hash of the content."""
        data, modified = self._find(path)
        return FileStat(len(data), modified, blake2b(data, digest_size=16).hexdigest())

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        lead = f"{check_path(prefix, self.uri)}/" if prefix else ""
        with self._lock:
            found = [path for path in self._files if path.startswith(lead)]
        yield from sorted(found, key=str.encode)

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds."""
        self.write(target, self._find(source)[0])

    def delete(self, path: str) -> None:
        """Remove a file."""
        check_path(path, self.uri)
        with self._lock:
            if self._files.pop(path, None) is None:
                raise FileMissingError("cannot delete: there is no such file", where=join_uri(self.uri, path))

    def _find(self, path: str) -> tuple[bytes, float]:
        found = self._files.get(check_path(path, self.uri))
        if found is None:
            raise FileMissingError("there is no such file", where=join_uri(self.uri, path))
        return found


def _restored(root: str, files: dict[str, tuple[bytes, float]]) -> MemoryFiles:
    made = MemoryFiles(root)
    made._files = files
    return made

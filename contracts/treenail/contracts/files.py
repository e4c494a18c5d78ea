"""What only some stores can do well: optional abilities of a `FileBackend`.

A backend has an ability when it has its method. Whoever needs one asks with isinstance and otherwise does the same with
the port's primitives; `treenail.adapters.files` has a function for each that does so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from treenail.kernel import FileError, FileStat


@runtime_checkable
class StreamsFiles(Protocol):
    """Reads a file of any size in bounded memory."""

    @abstractmethod
    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return, a chunk at a time; of one version of the file, or raise.

        Raises:
            FileMissingError: There is no such file; raised at the call or by the first chunk.
            FileError: The range is negative, the store failed, or the file changed meanwhile.
        """
        ...


@runtime_checkable
class ReadsMany(Protocol):
    """Reads many small files concurrently."""

    @abstractmethod
    def read_many(self, paths: Sequence[str], *, concurrency: int) -> Iterator[bytes | FileError]:
        """Yield for each path, in order, its content or the error that reading it raised."""
        ...


@runtime_checkable
class ScansFiles(Protocol):
    """Lists files along with what the store knows of them."""

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield (path, stat) of the files that `list` yields, in its order."""
        ...


@runtime_checkable
class ListsEntries(Protocol):
    """Lists one directory without what lies deeper."""

    @abstractmethod
    def entries(self, path: str = "") -> Iterator[tuple[str, bool]]:
        """Yield (name, whether it is a directory) of what lies directly in a directory, empty directories included.

        A directory that is not there yields nothing.
        """
        ...


@runtime_checkable
class CopiesFiles(Protocol):
    """Copies within the store, without the bytes passing through this machine."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds, as `write` would.

        Raises:
            FileMissingError: There is no such source.
            FileError: The store refused or failed.
        """
        ...


@runtime_checkable
class CreatesFiles(Protocol):
    """Writes a file only where there is none: of several writers one succeeds."""

    @abstractmethod
    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write as `write` does if `path` does not exist; return whether it did not.

        Raises:
            FileError: The store refused or failed.
        """
        ...


@runtime_checkable
class SignsUrls(Protocol):
    """Makes URLs that work without credentials."""

    @abstractmethod
    def sign(self, path: str, *, method: Literal["GET", "PUT"] = "GET", expires: float = 3600.0) -> str:
        """Return a URL that reads (GET) or writes (PUT) `path` for `expires` seconds; the path need not exist.

        Raises:
            FileError: The store has no credentials to sign with, or `expires` is out of its range.
        """
        ...


@runtime_checkable
class HasLocalPaths(Protocol):
    """Its files lie on a local disk."""

    @abstractmethod
    def local_path(self, path: str) -> Path:
        """Return where `path` lies; nothing is read, it need not exist.

        Raises:
            FileError: The path is refused.
        """
        ...


@runtime_checkable
class TellsDirectories(Protocol):
    """Knows without a listing what is a directory."""

    @abstractmethod
    def is_directory(self, path: str) -> bool:
        """Return whether `path` ("" is the root) is a directory."""
        ...


@runtime_checkable
class HasDirectories(TellsDirectories, Protocol):
    """Has directories of its own, which may be empty."""

    @abstractmethod
    def make_directory(self, path: str) -> None:
        """Make a directory and its missing parents; it may exist.

        Raises:
            FileError: A file has that name, or the store failed.
        """
        ...

    @abstractmethod
    def delete_directory(self, path: str) -> None:
        """Remove a directory and all below it.

        Raises:
            FileMissingError: There is no such directory.
            FileError: The store failed; some files may be gone.
        """
        ...


@runtime_checkable
class HasIdentity(Protocol):
    """Other stores may show the same URI: those of another endpoint, or of another query, which may hold a signature."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What tells it from every other store, in every process; no credential can be read from it."""
        ...


@runtime_checkable
class SplitsUris(Protocol):
    """A class of backends whose root is more than ``scheme://authority``."""

    @staticmethod
    @abstractmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (URI of the root, which the class is made with; path below it) for a URI of the class's schemes.

        Raises:
            FileError: The URI is not of this form.
        """
        ...

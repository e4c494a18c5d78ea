"""ModelScope."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from treenail.adapters.files.derived import CHUNK
from treenail.adapters.files.hubs.repository import parse, seconds, split
from treenail.adapters.files.paths import check_path, check_range, join_uri, names_below, read_only, told
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, TreenailError, require


class ModelScopeFiles:
    """Files of one revision of a repository on ModelScope (https://modelscope.cn/docs).

    The files of the revision are listed once, by the first use; a file that changes afterwards is an error, told by its
    hash. The library reads whole files only, through a temporary directory that is gone afterwards: nothing is taken from
    its cache. It shows a bar meanwhile, which TQDM_DISABLE=1 hides.

    Args:
        root: ``ms://org/name``, ``ms://datasets/org/name@revision``; the revision is a branch, a tag or a commit, "master"
            where there is none; a slash in it is written ``%2F``.
        endpoint: The hub's URL; what the library is configured for, or https://modelscope.cn, when None.
        token: The one to show; what the library finds (MODELSCOPE_API_TOKEN, a login) when None.
        timeout: Seconds that the hub may be silent for; where the library's own limit (MODELSCOPE_API_TIMEOUT and the like)
            is lower, that counts.
    """

    def __init__(
        self, root: str, *, endpoint: str | None = None, token: str | None = None, timeout: float = 30.0
    ) -> None:
        self._repository = parse(root, "ms", "master")
        if self._repository.kind == "space":
            raise FileError(
                "ModelScope lists no files of spaces", where=self._repository.uri, mend="name a model or a dataset"
            )
        self.uri = self._repository.uri
        self._endpoint, self._token, self._timeout = endpoint, token, timeout
        self._listed: _Listing | None = None

    def __repr__(self) -> str:
        return f"ModelScopeFiles({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        factory = partial(ModelScopeFiles, endpoint=self._endpoint, token=self._token, timeout=self._timeout)
        return factory, (self.uri,)

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (URI of the repository with its revision, path in it)."""
        return split(uri, "ms")

    @property
    def capabilities(self) -> Capabilities:
        """Whole files."""
        return Capabilities(atomic_replace=False, ranges=False, writable=False)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None; the whole file is downloaded."""
        return b"".join(self.stream(path, start, length))

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return, from a download checked by the file's hash."""
        check_range(path, start, length)
        known = self._find(path)
        end = known.stat.size if length is None else min(known.stat.size, start + length)
        if start >= end:
            return
        with tempfile.TemporaryDirectory(prefix="treenail-") as folder:
            with self._explained("read", path):
                local = Path(
                    self._api().download_file(
                        self._repository.name,
                        self._repository.kind,
                        path,
                        revision=self._repository.revision,
                        local_dir=folder,
                        expected_sha256=known.sha256,
                        file_size=known.stat.size,
                    )
                )
            with local.open("rb") as file:
                file.seek(start)
                while start < end and (chunk := file.read(min(CHUNK, end - start))):
                    start += len(chunk)
                    yield chunk

    def stat(self, path: str) -> FileStat:
        """Return size and time of a file, and its hash as its version."""
        return self._find(path).stat

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        check_path(prefix, self.uri, root=True)
        yield from names_below(self._files().names, prefix)

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`."""
        for path in self.list(prefix):
            yield path, self.stat(path)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Raise `FileError`: this store is read only."""
        raise read_only(self.uri, path, "publish files with the hub's own tools")

    def delete(self, path: str) -> None:
        """Raise `FileError`: this store is read only."""
        raise read_only(self.uri, path, "publish files with the hub's own tools")

    def _find(self, path: str) -> _File:
        check_path(path, self.uri)
        found = self._files().files.get(path)
        if found is None:
            raise FileMissingError("there is no such file in the repository", where=join_uri(self.uri, path))
        return found

    def _files(self) -> _Listing:
        if self._listed is None:
            with self._explained("list", ""):
                found = self._api().list_repo_files(
                    self._repository.name, self._repository.kind, revision=self._repository.revision, recursive=True
                )
                files = {
                    each.path: _File(
                        FileStat(int(each.size), seconds(each.last_modified), each.sha256 or each.blob_id), each.sha256
                    )
                    for each in found
                    if not each.is_dir
                }
            self._listed = _Listing(files, sorted(files))
        return self._listed

    def _api(self) -> Any:  # made for each use: what it holds must survive neither a fork nor a thread
        hub = require("modelscope_hub", extra="hubs", purpose="'ms://'")
        session = require("requests", extra="hubs", purpose="'ms://'").Session
        api = hub.HubApi(endpoint=self._endpoint, token=self._token)
        # The library's limits are the whole process's; its sessions are this object's.
        sessions = [each for each in vars(api.legacy).values() if isinstance(each, session)]
        if not sessions:
            raise FileError("this version of modelscope-hub takes no timeout", where=self.uri, mend="install 0.5.1")
        for each in sessions:
            each.send = partial(_send_within, each.send, self._timeout)
        return api

    @contextmanager
    def _explained(self, operation: str, path: str) -> Iterator[None]:
        errors = require("modelscope_hub.errors", extra="hubs", purpose="'ms://'")
        where = join_uri(self.uri, path)
        try:
            yield
        except TreenailError:
            raise
        except errors.NotExistError as error:
            said, mend = "there is no such repository, revision or file", "check the names; a private one needs a token"
            raise FileError(f"cannot {operation}: {said}", where=where, mend=mend) from error
        except errors.FileIntegrityError as error:
            said = "the file changed since the repository was listed, or arrived damaged"
            raise FileError(f"cannot {operation}: {said}", where=where, mend="open it anew") from error
        except Exception as error:  # of the library, of requests, of the system
            raise FileError(f"cannot {operation}: {told(error, [self._token])}", where=where) from error


def _send_within(send: Callable[..., Any], limit: float, request: Any, **options: Any) -> Any:
    """Send a request of `requests` with timeouts, of the connection and between bytes, no longer than a limit."""
    given = options.pop("timeout", None)  # Any: requests has no types here
    both = given if isinstance(given, tuple) else (given, given)
    return send(request, timeout=tuple(limit if each is None else min(each, limit) for each in both), **options)


class _File(NamedTuple):
    stat: FileStat
    sha256: str | None


class _Listing(NamedTuple):
    files: dict[str, _File]
    names: list[str]

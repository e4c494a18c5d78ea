"""The Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from treenail.adapters.files.derived import CHUNK
from treenail.adapters.files.hubs.repository import parse, seconds, split
from treenail.adapters.files.paths import check_path, check_range, join_uri, read_only, told
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, TreenailError, require


class HuggingFaceFiles:
    """Files of one revision of a repository on the Hugging Face Hub (https://huggingface.co/docs/huggingface_hub).

    The revision is looked up once, by the first use; from then on all files are those of that commit. A later commit of a
    branch is seen by a new backend. The time of every file is that of the commit.

    Args:
        root: ``hf://org/name``, ``hf://datasets/org/name@revision``, ``hf://spaces/org/name``; the revision is a branch, a
            tag or a commit, "main" where there is none; a slash in it is written ``%2F``.
        endpoint: The hub's URL; HF_ENDPOINT, or https://huggingface.co, when None.
        token: The one to show; what the library finds (HF_TOKEN, a login) when None.
        timeout: Seconds that the hub may take for an answer.
    """

    def __init__(
        self, root: str, *, endpoint: str | None = None, token: str | None = None, timeout: float = 30.0
    ) -> None:
        self._repository = parse(root, "hf", "main")
        self.uri = self._repository.uri
        self._endpoint, self._token, self._timeout = endpoint, token, timeout
        self._commit: _Commit | None = None
        self._known: dict[str, FileStat] = {}

    def __repr__(self) -> str:
        return f"HuggingFaceFiles({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        factory = partial(HuggingFaceFiles, endpoint=self._endpoint, token=self._token, timeout=self._timeout)
        return factory, (self.uri,)

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (URI of the repository with its revision, path in it)."""
        return split(uri, "hf")

    @property
    def capabilities(self) -> Capabilities:
        """Ranges."""
        return Capabilities(atomic_replace=False, writable=False)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        return b"".join(self.stream(path, start, length))

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes that `read` would return, in ranges of the pinned commit's file."""
        check_range(path, start, length)
        size = self.stat(path).size
        end = size if length is None else min(size, start + length)
        for position in range(start, end, CHUNK):
            yield self._range(path, position, min(position + CHUNK, end))

    def stat(self, path: str) -> FileStat:
        """Return the size of a file, the time of the commit, and the file's hash as its version."""
        check_path(path, self.uri)
        if path not in self._known:
            hub = _hub()
            with self._explained("stat", path):
                commit = self._pinned()
                found = self._api().get_paths_info(
                    self._repository.name, [path], revision=commit.sha, repo_type=self._repository.kind
                )
            for each in found:
                if each.path == path and isinstance(each, hub.hf_api.RepoFile):
                    self._known[path] = _hf_stat(each, commit)
        if path not in self._known:
            raise FileMissingError("there is no such file in the repository", where=join_uri(self.uri, path))
        return self._known[path]

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, sorted by their bytes."""
        for path, _ in self.scan(prefix):
            yield path

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`."""
        check_path(prefix, self.uri, root=True)
        hub, lead, found = _hub(), f"{prefix}/" if prefix else "", list[tuple[str, FileStat]]()
        with self._explained("list", prefix):
            commit = self._pinned()
            tree = self._api().list_repo_tree(
                self._repository.name,
                prefix or None,
                recursive=True,
                revision=commit.sha,
                repo_type=self._repository.kind,
            )
            try:
                for each in tree:
                    if isinstance(each, hub.hf_api.RepoFile) and each.path.startswith(lead):
                        found.append((each.path, _hf_stat(each, commit)))
            except hub.errors.EntryNotFoundError:  # no such directory
                return
        self._known.update(found)
        yield from sorted(found)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Raise `FileError`: this store is read only."""
        raise read_only(self.uri, path, "publish files with the hub's own tools")

    def delete(self, path: str) -> None:
        """Raise `FileError`: this store is read only."""
        raise read_only(self.uri, path, "publish files with the hub's own tools")

    def _api(self) -> Any:  # the library's types change with its versions
        return _hub().HfApi(endpoint=self._endpoint, token=self._token)

    def _pinned(self) -> _Commit:
        if self._commit is None:
            repository = self._repository
            info = self._api().repo_info(
                repository.name, revision=repository.revision, repo_type=repository.kind, timeout=self._timeout
            )
            if not info.sha:
                raise FileError("the hub does not tell the commit of the revision", where=self.uri)
            self._commit = _Commit(str(info.sha), seconds(info.last_modified))
        return self._commit

    def _range(self, path: str, start: int, end: int) -> bytes:
        hub, repository = _hub(), self._repository
        with self._explained("read", path):
            url = hub.hf_hub_url(
                repository.name,
                path,
                repo_type=repository.kind,
                revision=self._pinned().sha,
                endpoint=self._endpoint,
            )
            headers = {
                **hub.utils.build_hf_headers(token=self._token),
                "range": f"bytes={start}-{end - 1}",
                "accept-encoding": "identity",
            }
            answer = hub.utils.http_backoff("GET", url, headers=headers, timeout=self._timeout)
            hub.utils.hf_raise_for_status(answer)
        data = answer.content[start:end] if answer.status_code == 200 else answer.content
        if len(data) != end - start:
            where = join_uri(self.uri, path)
            raise FileError(f"the hub sent {len(data)} bytes where {end - start} were asked for", where=where)
        return bytes(data)

    @contextmanager
    def _explained(self, operation: str, path: str) -> Iterator[None]:
        errors = _hub().errors
        where = join_uri(self.uri, path)
        try:
            yield
        except TreenailError:
            raise
        except errors.GatedRepoError as error:
            mend = "ask for access on its page, and log in (hf auth login)"
            raise FileError(f"cannot {operation}: the repository is gated", where=where, mend=mend) from error
        except errors.RepositoryNotFoundError as error:
            mend = "check its name and kind (datasets/, spaces/); a private one needs a token"
            raise FileError(f"cannot {operation}: there is no such repository", where=where, mend=mend) from error
        except errors.RevisionNotFoundError as error:
            said = f"cannot {operation}: there is no such revision"
            raise FileError(said, where=where, mend="name a branch, a tag or a commit") from error
        except errors.EntryNotFoundError as error:
            raise FileMissingError(f"cannot {operation}: there is no such file", where=where) from error
        except Exception as error:  # of whichever HTTP library the hub's uses
            raise FileError(f"cannot {operation}: {told(error, [self._token])}", where=where) from error


class _Commit(NamedTuple):
    sha: str
    modified: float


def _hub() -> Any:  # the library's types change with its versions
    hub = require("huggingface_hub", extra="hubs", purpose="'hf://'")
    for part in ("errors", "hf_api", "utils"):  # it loads them lazily
        require(f"huggingface_hub.{part}", extra="hubs", purpose="'hf://'")
    return hub


def _hf_stat(found: Any, commit: _Commit) -> FileStat:  # the library's types change with its versions
    version = found.lfs.sha256 if found.lfs is not None else found.blob_id
    return FileStat(int(found.size), commit.modified, str(version))

"""Repositories of model hubs, read only, through the hubs' own libraries."""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import unquote

from treenail.adapters.files.derived import CHUNK
from treenail.adapters.files.paths import check_path, check_range, join_uri
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat, TreenailError, require

Kind = Literal["model", "dataset", "space"]

_ROOT: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<kind>models|datasets|spaces)/)?(?!(?:models|datasets|spaces)/)(?P<name>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


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
        self._repository = _Repository.parse(root, "hf", "main")
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
        return _split(uri, "hf")

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
                found = hub.HfApi(endpoint=self._endpoint, token=self._token).get_paths_info(
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
            tree = hub.HfApi(endpoint=self._endpoint, token=self._token).list_repo_tree(
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
        """Refuse."""
        raise _read_only(path, self.uri)

    def delete(self, path: str) -> None:
        """Refuse."""
        raise _read_only(path, self.uri)

    def _pinned(self) -> _Commit:
        if self._commit is None:
            info = (
                _hub()
                .HfApi(endpoint=self._endpoint, token=self._token)
                .repo_info(
                    self._repository.name,
                    revision=self._repository.revision,
                    repo_type=self._repository.kind,
                    timeout=self._timeout,
                )
            )
            if not info.sha:
                raise FileError("the hub does not tell the commit of the revision", where=self.uri)
            self._commit = _Commit(str(info.sha), _seconds(info.last_modified))
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
            raise FileError(f"cannot {operation}: {_told(error, self._token)}", where=where) from error


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
    """

    def __init__(self, root: str, *, endpoint: str | None = None, token: str | None = None) -> None:
        self._repository = _Repository.parse(root, "ms", "master")
        if self._repository.kind == "space":
            raise FileError("ModelScope lists no files of spaces", where=root, mend="name a model or a dataset")
        self.uri = self._repository.uri
        self._endpoint, self._token = endpoint, token
        self._listed: _MsListing | None = None

    def __repr__(self) -> str:
        return f"ModelScopeFiles({self.uri!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(ModelScopeFiles, endpoint=self._endpoint, token=self._token), (self.uri,)

    @staticmethod
    def split_uri(uri: str) -> tuple[str, str]:
        """Return (URI of the repository with its revision, path in it)."""
        return _split(uri, "ms")

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
        names = self._files().names
        lead = f"{prefix}/" if prefix else ""
        for position in range(bisect_left(names, lead), len(names)):
            if not names[position].startswith(lead):
                return
            yield names[position]

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield path and stat of all files below the directory `prefix`."""
        for path in self.list(prefix):
            yield path, self.stat(path)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Refuse."""
        raise _read_only(path, self.uri)

    def delete(self, path: str) -> None:
        """Refuse."""
        raise _read_only(path, self.uri)

    def _find(self, path: str) -> _MsFile:
        check_path(path, self.uri)
        found = self._files().files.get(path)
        if found is None:
            raise FileMissingError("there is no such file in the repository", where=join_uri(self.uri, path))
        return found

    def _files(self) -> _MsListing:
        if self._listed is None:
            with self._explained("list", ""):
                found = self._api().list_repo_files(
                    self._repository.name, self._repository.kind, revision=self._repository.revision, recursive=True
                )
                files = {
                    each.path: _MsFile(
                        FileStat(int(each.size), _seconds(each.last_modified), each.sha256 or each.blob_id), each.sha256
                    )
                    for each in found
                    if not each.is_dir
                }
            self._listed = _MsListing(files, sorted(files))
        return self._listed

    def _api(self) -> Any:  # made for each use: what it holds must survive neither a fork nor a thread
        hub = require("modelscope_hub", extra="hubs", purpose="'ms://'")
        return hub.HubApi(endpoint=self._endpoint, token=self._token)

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
            raise FileError(f"cannot {operation}: {_told(error, self._token)}", where=where) from error


class _Repository(NamedTuple):
    """A repository at a revision; `uri` leads to it again."""

    uri: str
    kind: Kind
    name: str
    revision: str

    @classmethod
    def parse(cls, root: str, scheme: str, default_revision: str) -> _Repository:
        found = _match(root, scheme)
        if found["path"]:
            raise FileError("this is a file of a repository", where=root, mend=f"write {scheme}://org/name@revision")
        kind = cast(Kind, (found["kind"] or "models").removesuffix("s"))
        return cls(root.rstrip("/"), kind, found["name"], unquote(found["revision"] or default_revision))


class _Commit(NamedTuple):
    sha: str
    modified: float


class _MsFile(NamedTuple):
    stat: FileStat
    sha256: str | None


class _MsListing(NamedTuple):
    files: dict[str, _MsFile]
    names: list[str]


def _match(uri: str, scheme: str) -> re.Match[str]:
    found = _ROOT.fullmatch(uri)
    if found is None or found["scheme"] != scheme:
        raise FileError(
            "this is no repository",
            where=uri,
            mend=f"write {scheme}://org/name@revision/file, behind datasets/ for a dataset",
        )
    return found


def _split(uri: str, scheme: str) -> tuple[str, str]:
    path = _match(uri, scheme)["path"] or ""
    return uri.removesuffix(path).rstrip("/"), path.rstrip("/")


def _hub() -> Any:  # the library's types change with its versions
    hub = require("huggingface_hub", extra="hubs", purpose="'hf://'")
    for part in ("errors", "hf_api", "utils"):  # it loads them lazily
        require(f"huggingface_hub.{part}", extra="hubs", purpose="'hf://'")
    return hub


def _hf_stat(found: Any, commit: _Commit) -> FileStat:  # the library's types change with its versions
    version = found.lfs.sha256 if found.lfs is not None else found.blob_id
    return FileStat(int(found.size), commit.modified, str(version))


def _seconds(when: object) -> float:
    """Return a time as seconds since 1970; 0 where the hub tells none."""
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else 0.0


def _read_only(path: str, uri: str) -> FileError:
    where = join_uri(uri, check_path(path, uri))
    return FileError("this store is read only", where=where, mend="publish files with the hub's own tools")


def _told(error: Exception, token: str | None) -> str:
    """Return what an error says, without the token."""
    text = str(error) or type(error).__name__
    return text.replace(token, "***") if token else text

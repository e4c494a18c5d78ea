"""Files in S3 and stores that speak its language, Google Cloud Storage and Azure Blob Storage, through obstore."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypedDict, cast
from urllib.parse import quote, unquote, urlsplit

from treenail.adapters.files.objects.azure import AccountKey, in_order_of_bytes
from treenail.adapters.files.objects.errors import explained, is_denied
from treenail.adapters.files.objects.library import library
from treenail.adapters.files.objects.store import (
    AZURE_SCHEMES,
    GCS_SCHEMES,
    Options,
    Root,
    check_endpoint,
    open_store,
    split_root,
)
from treenail.adapters.files.objects.transfer import Source, ahead
from treenail.adapters.files.paths import check_path, check_range, join_uri, path_below
from treenail.adapters.files.processes import PerProcess
from treenail.adapters.files.workers import interruptible
from treenail.kernel import Capabilities, FileError, FileMissingError, FileStat

MAX_KEY = 1024  # bytes; "Object key naming guidelines" of S3, the same in Google Cloud Storage
MIN_PART = 5 * 1024**2  # bytes; "Amazon S3 multipart upload limits"
MAX_PARTS = 10_000
MAX_COPY = 5 * 1024**3  # bytes that CopyObject takes
_PAGE = 1000


class _Meta(TypedDict):
    path: str
    last_modified: datetime
    size: int
    e_tag: str | None


class _Client(NamedTuple):
    library: ModuleType
    store: object
    secrets: tuple[str, ...]
    signer: AccountKey | None


class ObjectFiles:
    """Files in a bucket.

    Keys are names, taken literally. What others put there may have keys that name no file of ours: an empty object whose
    key ends with a slash, which consoles make for a directory, is passed over; one with an empty, ``"."`` or ``".."``
    part or a control character makes a list of it a `FileError`, so that no data is overlooked in silence. A file larger
    than a part is written in parts and appears when all are there. Safe between threads and after a fork; pickled as its
    options.

    Credentials are never options. They are found in: the variables that options name; the profile that an option names;
    the environment as the store's own tools read it (``AWS_*``, for oss:// ``OSS_*``; ``GOOGLE_*``; ``AZURE_*``); the AWS
    profile of ``AWS_PROFILE``, or the default one; the role of the machine.

    Args:
        root: ``s3://bucket/prefix`` (also s3a, oss, minio, ceph), ``gs://bucket/prefix`` (gcs), ``az://container/prefix``
            (azure, abfs, abfss, adl; also ``abfss://container@account.dfs.core.windows.net/prefix``).
        endpoint: URL of a store that is not the provider's own; for S3 also AWS_ENDPOINT_URL or the profile's endpoint_url,
            for Azure AZURE_STORAGE_ENDPOINT or the connection string's.
        region: For S3; else AWS_REGION, AWS_DEFAULT_REGION or the profile's; us-east-1 without any.
        account: Azure's storage account; else the URI's, AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT, or that of
            AZURE_STORAGE_CONNECTION_STRING.
        profile: A section of ~/.aws/credentials or ~/.aws/config.
        access_key_variable: The environment variable that holds S3's access key.
        secret_key_variable: The one that holds S3's secret key, Azure's account key or Google's service account key (JSON).
        token_variable: The one that holds S3's session token, Azure's SAS or Google's bearer token.
        anonymous: Send no credentials: for public buckets.
        virtual_hosted: Address a bucket as part of the host's name; None means for oss:// only.
        allow_http: Use an endpoint without TLS also when it is not on this machine.
        ca_file: A PEM file with certificates to trust besides the system's.
        part_size: Bytes of a part of an upload, and of a range of a stream; at least 5 MiB. A file has at most 10,000 parts.
        concurrency: How many parts of an upload are under way at once, and half as many ranges of a stream; either
            holds at most 2 * part_size * concurrency bytes in memory.
        timeout: Seconds that the store may be silent, and during which a request is tried again.
        retries: How often a request is tried again on a broken connection, a 5xx or a 429, at growing intervals.

    Raises:
        FileError: The root or an option is not of this form.
        MissingDependencyError: obstore is not installed.
    """

    def __init__(
        self,
        root: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        account: str | None = None,
        profile: str | None = None,
        access_key_variable: str | None = None,
        secret_key_variable: str | None = None,
        token_variable: str | None = None,
        anonymous: bool = False,
        virtual_hosted: bool | None = None,
        allow_http: bool = False,
        ca_file: str | None = None,
        part_size: int = 8 * 1024**2,
        concurrency: int = 12,
        timeout: float = 60.0,
        retries: int = 5,
    ) -> None:
        self._root = split_root(root)
        self.uri = root.rstrip("/")
        self.identity = " ".join(part for part in (endpoint, account, self.uri) if part)
        if endpoint is not None:
            check_endpoint(endpoint, self.uri, allow_http=allow_http)
        if part_size < MIN_PART:
            raise FileError(f"part_size is {part_size} bytes", where=self.uri, mend=f"at least {MIN_PART} (5 MiB)")
        if concurrency < 1 or retries < 0 or not 0 < timeout <= 86_400:
            raise FileError(
                f"concurrency {concurrency}, retries {retries} and timeout {timeout} are out of range",
                where=self.uri,
                mend="concurrency is at least 1, retries at least 0, timeout more than 0 and at most a day (86,400 s)",
            )
        for part in self._root.prefix.split("/") if self._root.prefix else ():
            check_path(part, self.uri)
        library()  # a missing package is told where the backend is made
        self._options = Options(
            endpoint=endpoint,
            region=region,
            account=account,
            profile=profile,
            access_key_variable=access_key_variable,
            secret_key_variable=secret_key_variable,
            token_variable=token_variable,
            anonymous=anonymous,
            virtual_hosted=virtual_hosted,
            allow_http=allow_http,
            ca_file=ca_file,
            timeout=timeout,
            retries=retries,
        )
        self._part_size = part_size
        self._concurrency = concurrency
        self._client = PerProcess(partial(_connect, self._root, self._options, self.uri))
        self._seen: frozenset[str] = frozenset()  # what was found out about the store: "bucket", "conditions"

    def __repr__(self) -> str:
        return f"ObjectFiles({self.uri!r})"

    @property
    def capabilities(self) -> Capabilities:
        """Atomic replacement, creation, uploads in parts and ranges."""
        return Capabilities(atomic_replace=True, conditional_put=True, multipart=True, ranges=True)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, all to the end when None."""
        check_range(path, start, length)
        key = self._key(path)
        if length == 0:
            self.stat(path)
            return b""
        with self._explained("read", path):
            if start == 0 and length is None:
                return self._content(self._get(key))
            found = self._get_range(key, start, None if length is None else start + length)
            return b"" if found is None else self._content(found)

    def stream(self, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield what `read` would return in parts, of which several are under way at once; of one version of the file."""
        check_range(path, start, length)
        return self._stream(path, self._key(path), start, length)

    def read_many(self, paths: Sequence[str], *, concurrency: int) -> Iterator[bytes | FileError]:
        """Yield for each path, in order, its content or the error that reading it raised.

        Args:
            paths: Any number.
            concurrency: How many are read at once, and at most are held in memory; at least 1.
        """
        if concurrency < 1:
            raise FileError(f"concurrency is {concurrency}", where=self.uri, mend="at least 1")
        return ahead(self._read_or_error, paths, concurrency)

    def write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold exactly `data`: by one request up to a part's size, else in parts."""
        key = self._key(path)
        source = Source(data, self._part_size, join_uri(self.uri, path))
        with source.as_it_was(), self._explained("write", path):
            start = source.up_to(self._part_size)
            if source.ended:
                self._call("put", key, start, use_multipart=False)
                return
            part = self._part_size
            if isinstance(data, bytes | bytearray | memoryview):
                part = max(part, -(-len(data) // MAX_PARTS))
            pieces = chain((start,), source.rest())
            del start
            self._call("put", key, pieces, use_multipart=True, chunk_size=part, max_concurrency=self._concurrency)

    def create(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Write where there is no such file; return whether there was none. The content is held in memory.

        Raises:
            FileError: The store cannot do it. A store that does not know the condition writes all the same, so the first
                creation is asked for twice: the second must be refused.
        """
        key = self._key(path)
        source = Source(data, self._part_size, join_uri(self.uri, path))
        with source.as_it_was(), self._explained("create", path):
            content = source.up_to(None)
            if "conditions" in self._seen:
                return self._put_new(key, content)
            if self._exists(key):
                return False
            if not self._put_new(key, content):
                return False
            if self._put_new(key, content):
                raise FileError(
                    "cannot create: the store does not know conditional writes, the file may have been overwritten",
                    where=join_uri(self.uri, path),
                    mend="use write, where only one process does",
                )
            self._seen |= {"conditions"}
            return True

    def stat(self, path: str) -> FileStat:
        """Return size, time and ETag of a file."""
        key = self._key(path)
        try:
            with self._explained("stat", path):
                return _stat(self._head(key))
        except FileMissingError:
            self._demand_bucket()
            raise

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files below the directory `prefix`, in order of their names' bytes, a page at a time."""
        for path, _ in self.scan(prefix):
            yield path

    def scan(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """Yield (path, stat) of the files that `list` yields; a page has 1,000."""
        cut = len(self._root.prefix) + 1 if self._root.prefix else 0
        last = b""
        found = self._found(prefix)
        for meta in in_order_of_bytes(found) if self._root.scheme in AZURE_SCHEMES else found:
            name = meta["path"].encode()
            if name <= last:
                if meta["size"] == 0:
                    continue  # the marker of a directory, beside a file of its name
                raise FileError("cannot list: the store's names are in no order", where=join_uri(self.uri, prefix))
            last = name
            yield meta["path"][cut:], _stat(meta)

    def delete(self, path: str) -> None:
        """Remove a file."""
        self.stat(path)  # the store does not tell whether there was one
        with self._explained("delete", path):
            self._call("delete", self._key(path))

    def copy(self, source: str, target: str) -> None:
        """Make `target` hold what `source` holds, in the store; a file of more than 5 GiB passes through this machine."""
        key, target_key = self._key(source), self._key(target)
        size = self.stat(source).size
        if key == target_key:
            return
        if size > MAX_COPY:
            self.write(target, self.stream(source))
            return
        with self._explained("copy", source):
            self._call("copy", key, target_key)

    def sign(self, path: str, *, method: Literal["GET", "PUT"] = "GET", expires: float = 3600.0) -> str:
        """Return a URL that reads (GET) or writes (PUT) `path` for `expires` seconds: 1 to 604,800 (a week).

        Azure's PUT needs a header besides: ``x-ms-blob-type: BlockBlob``.
        """
        key = self._key(path)
        where = join_uri(self.uri, path)
        if method not in {"GET", "PUT"}:
            raise FileError(f"cannot sign: {method!r} is no method for it", where=where, mend="sign GET or PUT")
        if not 1 <= expires <= 604_800:  # "Authenticating requests: using query parameters" of S3
            raise FileError(f"cannot sign for {expires} s", where=where, mend="1 to 604,800 seconds (a week)")
        if self._options.anonymous:
            raise FileError("cannot sign without credentials", where=where, mend="leave out anonymous=True")
        with self._explained("sign", path):
            lasting = timedelta(seconds=math.floor(expires))
            if (signer := self._client.get().signer) is not None:
                return signer.sign(method, key, lasting)
            name = quote(key) if self._root.scheme in GCS_SCHEMES else key  # there the library escapes too little
            url = str(self._call("sign", method, name, lasting))
        written = urlsplit(url).path
        # In a bearer's or a role's name the library signs what Azure reads otherwise.
        if not unquote(written).endswith(f"/{key}") or (self._root.scheme in AZURE_SCHEMES and "%" in written):
            mend = "choose a name that a URL writes as it is; for Azure, sign with the account's key"
            raise FileError("cannot sign: the library signs this name wrongly", where=where, mend=mend)
        return url

    def _stream(self, path: str, key: str, start: int, length: int | None) -> Iterator[bytes]:
        part = self._part_size
        if length == 0:
            self.stat(path)
            return
        with self._explained("read", path):
            first = self._get_range(key, start, start + (part if length is None else min(part, length)))
            if first is None:
                return
            meta = first.meta
        end = meta["size"] if length is None else min(meta["size"], start + length)
        rest = range(start + part, end, part)

        def fetch(position: int) -> bytes:
            try:
                with self._explained("read", path):
                    found = self._get(key, range=(position, min(position + part, end)), if_match=meta["e_tag"])
                    data = bytes(found.bytes())
                    same = _stat(found.meta) == _stat(meta)
            except FileMissingError as error:
                raise self._changed(path) from error
            except FileError as error:
                if type(error.__cause__).__name__ == "PreconditionError":
                    raise self._changed(path) from error
                raise
            if not same:
                raise self._changed(path)
            return data

        # A range that arrives lies in memory twice, in pieces and joined.
        chunks = ahead(fetch, rest, max(1, self._concurrency // 2)) if rest else iter(())
        with self._explained("read", path):
            chunk = self._content(first)
        yield chunk
        del first
        yield from chunks

    def _changed(self, path: str) -> FileError:
        where = join_uri(self.uri, path)
        return FileError("cannot read: the file changed meanwhile", where=where, mend="read it again")

    def _read_or_error(self, path: str) -> bytes | FileError:
        try:
            return self.read(path)
        except FileError as error:
            return error

    def _get(self, key: str, **options: object):  # type: ignore[no-untyped-def]  # obstore's GetResult
        return self._call("get", key, options=options or None)

    def _content(self, found: Any) -> bytes:  # obstore's GetResult
        return bytes(interruptible(found.bytes))

    def _call(self, name: str, *arguments: object, **options: object) -> Any:  # what the library's function returns
        client = self._client.get()
        return interruptible(getattr(client.library, name), client.store, *arguments, **options)

    def _get_range(self, key: str, start: int, end: int | None):  # type: ignore[no-untyped-def]  # GetResult or None
        """Ask for a range; None where it begins after the file's end."""
        try:
            return self._get(key, range={"offset": start} if end is None else (start, end))
        except Exception as error:
            if " 416 " in str(error) or "Wanted range starting at" in str(error):  # or an empty answer where it ends
                return None
            raise

    def _head(self, key: str) -> _Meta:
        return cast(_Meta, self._call("head", key))  # obstore's ObjectMeta

    def _exists(self, key: str) -> bool:
        try:
            self._head(key)
        except FileNotFoundError:
            return False
        return True

    def _put_new(self, key: str, content: bytes) -> bool:
        client = self._client.get()
        try:
            self._call("put", key, content, mode="create", use_multipart=False)
        except client.library.exceptions.AlreadyExistsError:
            return False
        return True

    def _found(self, prefix: str) -> Iterator[_Meta]:
        """Yield what lies below a directory in the store's order, without the markers of directories where no file is."""
        key = self._key(prefix) if prefix else self._root.prefix
        lead = f"{key}/" if key else ""
        with self._explained("list", prefix):
            pages = self._call("list", key or None, chunk_size=_PAGE)
        while True:
            with self._explained("list", prefix):
                page: Sequence[_Meta] | None = interruptible(next, pages, None)
                if page is None:
                    return
                below = [meta for meta in page if meta["path"].startswith(lead)]
                markers = self._markers([meta["path"] for meta in below if meta["size"] == 0])
            self._seen |= {"bucket"}
            yield from (meta for meta in below if meta["size"] or meta["path"] not in markers)

    def _markers(self, keys: Sequence[str]) -> set[str]:
        """Return which of the names of empty objects are those of directories: the library leaves out a last slash."""
        if not keys:
            return set()
        found = ahead(self._exists, keys, self._concurrency)
        return {key for key, exists in zip(keys, found, strict=True) if not exists}

    def _demand_bucket(self) -> None:
        """Raise `FileError` where the bucket is missing: an answer without a body does not tell it from a missing file."""
        if "bucket" in self._seen:
            return
        try:
            with self._explained("look into the bucket", ""):
                pages = self._call("list", self._root.prefix or None, chunk_size=1)
                interruptible(next, pages, None)
        except FileError as error:
            if not is_denied(error):
                raise
        self._seen |= {"bucket"}

    def _key(self, path: str) -> str:
        check_path(path, self.uri)
        key = path_below(self._root.prefix, path)
        where = join_uri(self.uri, path)
        if len(key.encode()) > MAX_KEY:
            text = f"a key has at most {MAX_KEY} bytes, this one {len(key.encode())}"
            raise FileError(text, where=f"{where[:80]}…", mend="choose a shorter name")
        if any(character < " " or character == "\x7f" for character in key):
            raise FileError(f"{path!r} has a control character", where=self.uri, mend="choose another name")
        return key

    def _explained(self, operation: str, path: str) -> AbstractContextManager[None]:
        return explained(operation, join_uri(self.uri, path), self._secrets)

    def _secrets(self) -> tuple[str, ...]:
        client = self._client.held
        return () if client is None else client.secrets


def _connect(root: Root, options: Options, uri: str) -> _Client:
    module = library()
    with explained("open the store", uri, tuple):
        opened = open_store(module, root, options, uri)
    return _Client(module, opened.store, opened.secrets, opened.signer)


def _stat(meta: _Meta) -> FileStat:
    tag = meta["e_tag"]
    if tag and not tag.endswith('"'):
        tag = f'"{tag}"'  # Azure's lists leave out what its headers have
    return FileStat(meta["size"], meta["last_modified"].timestamp(), tag)

"""Object stores in the benchmark `files`: ours beside obstore bare, boto3, s3fs and mmengine."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from scripts.benchmarks._files_alone import Alone, alone, tell
from scripts.benchmarks._files_server import OBJECT_SIZE, PART, Scale
from scripts.benchmarks._timing import Turn, interleave

if TYPE_CHECKING:
    import s3fs
    from botocore.client import BaseClient
    from obstore.store import S3Store

    from treenail.adapters.files import ObjectFiles

CONCURRENCY = 16  # of many small objects
PARTS = 12  # of an upload at once, ours and obstore's; a download has half as many ranges at once
Races = dict[str, list[Turn[float]]]


def many(endpoint: str, scale: Scale, rounds: int) -> Races:
    """Read all small objects, once a turn; obstore bare, asynchronous, is the reference. Seconds."""
    names = scale.names()
    store, files = obstore_at(endpoint, "bucket"), ours_at(endpoint, "bucket")
    readers: dict[str, Callable[[], Iterable[bytes]]] = {
        "obstore, 16 at once, again": lambda: asyncio.run(_read_with_obstore(store, names)),
        "treenail read_many, 16 at once": lambda: _contents(files.read_many(names, concurrency=CONCURRENCY)),
        "treenail get_many over HTTP, 16 at once": lambda: _get_over_http(endpoint, names),
        "treenail, one by one": lambda: map(files.read, names),
        "obstore, one by one": lambda: (bytes(store.get(name).bytes()) for name in names),
    }
    if find_spec("boto3"):
        client = _boto3_at(endpoint)
        readers["boto3, one by one"] = lambda: (
            client.get_object(Bucket="bucket", Key=name)["Body"].read() for name in names
        )
    if find_spec("s3fs"):
        system = s3fs_at(endpoint)
        readers["s3fs, one by one"] = lambda: (system.cat_file(f"bucket/{name}") for name in names)
    if find_spec("mmengine"):
        from mmengine.fileio import HTTPBackend

        backend = HTTPBackend()
        readers["mmengine over HTTP, one by one"] = lambda: (backend.get(f"{endpoint}/bucket/{name}") for name in names)
    size = scale.objects * OBJECT_SIZE
    timed = {name: partial(_timed, partial(_read_all, reader), size) for name, reader in readers.items()}
    return interleave(timed["obstore, 16 at once, again"], timed, rounds)


def download(endpoint: str, scale: Scale, rounds: int) -> Races:
    """Read the large object, once a turn; obstore's stream of one request is the reference. Seconds."""
    store, files, size = obstore_at(endpoint, "bucket"), ours_at(endpoint, "bucket"), scale.large
    tasks: dict[str, Callable[[], int]] = {
        "obstore again": lambda: _total(store.get("large").stream(PART)),
        "obstore, 6 ranges at once, in no order": lambda: asyncio.run(_ranges_with_obstore(store, size)),
        "treenail stream": lambda: _total(files.stream("large")),
    }
    timed = {name: partial(_timed, task, size) for name, task in tasks.items()}
    return interleave(timed["obstore again"], timed, rounds)


def upload(endpoint: str, scale: Scale, rounds: int) -> Races:
    """Write the large object in parts, once a turn; obstore bare is the reference. Seconds."""
    store, files, size = obstore_at(endpoint, "up"), ours_at(endpoint, "up"), scale.large
    timed = {
        "obstore again": partial(_timed, lambda: _upload_with_obstore(store, size), size),
        "treenail write": partial(_timed, lambda: _upload_with_ours(files, size), size),
    }
    return interleave(timed["obstore again"], timed, rounds)


def ours_at(endpoint: str, bucket: str) -> ObjectFiles:
    """Return our files of a bucket."""
    from treenail.adapters.files import ObjectFiles

    return ObjectFiles(f"s3://{bucket}", endpoint=endpoint, anonymous=True, part_size=PART, concurrency=PARTS)


def obstore_at(endpoint: str, bucket: str) -> S3Store:
    """Return obstore's store of a bucket."""
    from obstore.store import S3Store

    return S3Store(bucket, endpoint=endpoint, skip_signature=True, client_options={"allow_http": True})


def s3fs_at(endpoint: str) -> s3fs.S3FileSystem:
    """Return s3fs's file system."""
    import s3fs

    return s3fs.S3FileSystem(anon=True, endpoint_url=endpoint, skip_instance_cache=True)


def _boto3_at(endpoint: str) -> BaseClient:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)


async def _read_with_obstore(store: S3Store, names: list[str]) -> list[bytes]:
    import obstore

    limit = asyncio.Semaphore(CONCURRENCY)

    async def read(name: str) -> bytes:
        async with limit:
            found = await obstore.get_async(store, name)
            return bytes(await found.bytes_async())

    return await asyncio.gather(*(read(name) for name in names))


def _get_over_http(endpoint: str, names: list[str]) -> Iterator[bytes]:
    from treenail.adapters.files import get_many

    return _contents(get_many([f"{endpoint}/bucket/{name}" for name in names], concurrency=CONCURRENCY))


def _contents(results: Iterable[bytes | Exception]) -> Iterator[bytes]:
    for each in results:
        if isinstance(each, Exception):
            raise each
        yield each


async def _ranges_with_obstore(store: S3Store, size: int) -> int:
    """Read ranges of a part's size and drop them, six at once: what a caller of obstore could write."""
    import obstore

    limit = asyncio.Semaphore(PARTS // 2)

    async def read(start: int) -> int:
        async with limit:
            return len(bytes(await obstore.get_range_async(store, "large", start=start, length=PART)))

    return sum(await asyncio.gather(*(read(start) for start in range(0, size, PART))))


def _upload_with_ours(files: ObjectFiles, size: int) -> int:
    files.write("large", _chunks(size))
    return size


def _upload_with_obstore(store: S3Store, size: int) -> int:
    import obstore

    obstore.put(store, "large", _chunks(size), chunk_size=PART, max_concurrency=PARTS)
    return size


def _chunks(size: int) -> Iterator[bytes]:
    """Yield as many bytes, each chunk new memory, as from a file."""
    for number in range(size // PART):
        yield bytes((number % 251,)) * PART


def _total(chunks: Iterable[bytes]) -> int:
    return sum(len(chunk) for chunk in chunks)


def _read_all(reader: Callable[[], Iterable[bytes]]) -> int:
    return _total(reader())


def _timed(task: Callable[[], int], size: int) -> float:
    start = perf_counter()
    found = task()
    seconds = perf_counter() - start
    _check(found, size)
    return seconds


def _list_boto3(endpoint: str, bucket: str) -> Iterator[str]:
    for page in _boto3_at(endpoint).get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page["Contents"]:
            yield each["Key"]


def _list_obstore(endpoint: str, bucket: str) -> Iterator[str]:
    return (each["path"] for page in obstore_at(endpoint, bucket).list() for each in page)


_LISTS: Mapping[str, tuple[str, Callable[[str, str], Iterable[str]]]] = {
    "treenail": ("treenail", lambda endpoint, bucket: ours_at(endpoint, bucket).list()),
    "obstore": ("obstore", _list_obstore),
    "boto3": ("boto3", _list_boto3),
    "s3fs": ("s3fs", lambda endpoint, bucket: s3fs_at(endpoint).find(bucket)),
}
LISTS = tuple(name for name, (package, _) in _LISTS.items() if find_spec(package))
_LARGE: Mapping[str, Callable[[str, int], int]] = {
    "treenail download": lambda endpoint, _: _total(ours_at(endpoint, "bucket").stream("large")),
    "obstore download": lambda endpoint, _: _total(obstore_at(endpoint, "bucket").get("large").stream(PART)),
    "treenail upload": lambda endpoint, size: _upload_with_ours(ours_at(endpoint, "up"), size),
    "obstore upload": lambda endpoint, size: _upload_with_obstore(obstore_at(endpoint, "up"), size),
}
LARGE = tuple(_LARGE)


def grown(task: str, endpoint: str, amount: int) -> Alone:
    """Do a task in a process of its own.

    Args:
        task: One of `LARGE`, or "list " and one of `LISTS`.
        endpoint: Of the server.
        amount: Bytes of the large object, or how many names are taken of the list.
    """
    return alone(__name__, task, endpoint, str(amount))


def _main(task: str, endpoint: str, amount: int) -> None:
    if task in _LARGE:
        ours_at(endpoint, "up"), obstore_at(endpoint, "up")  # their code is loaded
        tell(lambda: _check(_LARGE[task](endpoint, amount), amount))
        return
    _, listing = _LISTS[task.removeprefix("list ")]
    for _ in listing(endpoint, "page"):  # its code is loaded
        pass
    tell(lambda: _check(sum(1 for _ in islice(listing(endpoint, "list"), amount)), amount))


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        raise SystemExit(f"{found} came, not {wanted}")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

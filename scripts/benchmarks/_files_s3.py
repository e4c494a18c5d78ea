"""Object stores in the benchmark `files`: ours, obstore bare, s3fs and boto3, against nginx that answers as S3 does."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,misc,unused-ignore"

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from scripts.benchmarks._timing import Turn, interleave
from tests.files.nginx import nginx_serving

from treenail.adapters.files.objects import ObjectFiles

if TYPE_CHECKING:
    from obstore.store import S3Store

OBJECTS, OBJECT_SIZE = 2000, 100_000
LARGE = 1024**3  # bytes
KEYS, PAGE = 100_000, 1000
CONCURRENCY = 16  # of many small objects
PART, PARTS = 8 * 1024**2, 12  # of ours, and given to obstore

# "up" takes uploads in parts, each of which replaces the one before; "list" has pages that were written before.
_AS_S3 = """
client_max_body_size 0;
location /up/ {
    dav_methods PUT;
    create_full_put_path on;
    add_header ETag '"0"' always;
    set $answer "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
    if ($arg_uploadId) {
        set $answer "<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>";
    }
    if ($request_method = POST) { return 200 $answer; }
}
location = /list {
    set $page 0;
    if ($args ~ "continuation-token=([0-9]+)") { set $page $1; }
    rewrite ^ /pages/$page.xml break;
}
"""


class Peak(NamedTuple):
    """What one task in a process of its own took.

    Args:
        seconds: Wall time of the task alone.
        peak: Bytes that the resident memory grew by.
    """

    seconds: float
    peak: int


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve objects, one large file and a listing below an empty folder; give the endpoint."""
    files, work = folder / "www", folder / "work"
    for each in (work, files / "bucket" / "small", files / "up", files / "pages"):
        each.mkdir(parents=True)
    content = os.urandom(OBJECT_SIZE)
    for name in names():
        (files / "bucket" / name).write_bytes(content)
    with (files / "bucket" / "large").open("wb") as file:
        for _ in range(LARGE // PART):
            file.write(os.urandom(PART))
    for number in range(KEYS // PAGE):
        (files / "pages" / f"{number}.xml").write_text(_page(number))
    with nginx_serving(files, work, extra=_AS_S3) as server:
        yield server.url


def names() -> list[str]:
    """Return the keys of the small objects."""
    return [f"small/{number:05d}" for number in range(OBJECTS)]


def many(endpoint: str, rounds: int) -> dict[str, list[Turn[float]]]:
    """Read all small objects, once a turn; obstore bare, asynchronous, is the reference. Seconds."""
    store = _obstore(endpoint, "bucket")
    contestants: dict[str, Callable[[], float]] = {
        "treenail read_many": _timed(lambda: _ours_many(_ours(endpoint, "bucket"))),
        "obstore, one by one": _timed(lambda: sum(len(bytes(store.get(name).bytes())) for name in names())),
        "boto3, one by one": _timed(_boto3_many(endpoint)),
        "s3fs, one by one": _timed(_s3fs_many(endpoint)),
    }
    return interleave(_timed(lambda: asyncio.run(_obstore_many(store))), contestants, rounds)


def large(endpoint: str, rounds: int) -> dict[str, dict[str, list[Turn[float]]]]:
    """Read and write 1 GB, once a turn; obstore bare is the reference. Seconds."""
    source, target = _obstore(endpoint, "bucket"), _obstore(endpoint, "up")
    ours, ours_up = _ours(endpoint, "bucket"), _ours(endpoint, "up")
    return {
        "download": interleave(
            _timed(lambda: sum(len(chunk) for chunk in source.get("large").stream(PART))),
            {"treenail stream": _timed(lambda: sum(len(chunk) for chunk in ours.stream("large")))},
            rounds,
        ),
        "upload": interleave(
            _timed(lambda: _obstore_upload(target)),
            {"treenail write": _timed(lambda: _ours_upload(ours_up))},
            rounds,
        ),
    }


def peaks(endpoint: str) -> dict[str, Peak]:
    """Do each large task in a process of its own, and see how much memory it takes."""
    return {name: _alone(name, endpoint) for name in _TASKS}


def _ours_many(files: ObjectFiles) -> int:
    size = 0
    for content in files.read_many(names(), concurrency=CONCURRENCY):
        if not isinstance(content, bytes):
            raise content
        size += len(content)
    return size


async def _obstore_many(store: S3Store) -> int:
    import obstore

    limit = asyncio.Semaphore(CONCURRENCY)

    async def read(name: str) -> int:
        async with limit:
            found = await obstore.get_async(store, name)
            return len(bytes(await found.bytes_async()))

    return sum(await asyncio.gather(*(read(name) for name in names())))


def _boto3_many(endpoint: str) -> Callable[[], int]:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    return lambda: sum(len(client.get_object(Bucket="bucket", Key=name)["Body"].read()) for name in names())


def _s3fs_many(endpoint: str) -> Callable[[], int]:
    import s3fs

    files = s3fs.S3FileSystem(anon=True, endpoint_url=endpoint, skip_instance_cache=True)
    return lambda: sum(len(files.cat_file(f"bucket/{name}")) for name in names())


def _ours_upload(files: ObjectFiles) -> int:
    files.write("large", _chunks())
    return LARGE


def _obstore_upload(store: S3Store) -> int:
    import obstore

    obstore.put(store, "large", _chunks(), chunk_size=PART, max_concurrency=PARTS)
    return LARGE


def _chunks() -> Iterator[bytes]:
    """Yield 1 GB of which each chunk is new memory, as from a file."""
    for number in range(LARGE // PART):
        yield bytes((number % 251,)) * PART


def _ours(endpoint: str, bucket: str) -> ObjectFiles:
    return ObjectFiles(f"s3://{bucket}", endpoint=endpoint, anonymous=True, part_size=PART, concurrency=PARTS)


def _obstore(endpoint: str, bucket: str) -> S3Store:
    from obstore.store import S3Store

    return S3Store(bucket, endpoint=endpoint, skip_signature=True, client_options={"allow_http": True})


def _timed(task: Callable[[], int]) -> Callable[[], float]:
    def run() -> float:
        began = perf_counter()
        size = task()
        took = perf_counter() - began
        if size not in {OBJECTS * OBJECT_SIZE, LARGE}:
            raise AssertionError(f"{size} bytes came")
        return took

    return run


def _page(number: int) -> str:
    objects = "".join(
        f"<Contents><Key>{key:08d}</Key><Size>1</Size><ETag>0</ETag>"
        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in range(number * PAGE, (number + 1) * PAGE)
    )
    last = (number + 1) * PAGE == KEYS
    more = "" if last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
    return (
        f"<ListBucketResult><IsTruncated>{'false' if last else 'true'}</IsTruncated>{more}{objects}</ListBucketResult>"
    )


_TASKS: Mapping[str, Callable[[str], int]] = {
    "treenail download": lambda endpoint: sum(len(chunk) for chunk in _ours(endpoint, "bucket").stream("large")),
    "obstore download": lambda endpoint: sum(
        len(chunk) for chunk in _obstore(endpoint, "bucket").get("large").stream(PART)
    ),
    "treenail upload": lambda endpoint: _ours_upload(_ours(endpoint, "up")),
    "obstore upload": lambda endpoint: _obstore_upload(_obstore(endpoint, "up")),
    "treenail list of 10,000": lambda endpoint: _first(_ours(endpoint, "list").list(), KEYS // 10),
    "treenail list of 100,000": lambda endpoint: _first(_ours(endpoint, "list").list(), KEYS),
}


def _first(listed: Iterator[str], count: int) -> int:
    found = sum(1 for _, _ in zip(range(count), listed, strict=False))
    if found != count:
        raise AssertionError(f"{found} of {count} keys came")
    return found


def _alone(task: str, endpoint: str) -> Peak:
    command = (sys.executable, "-m", "scripts.benchmarks._files_s3", task, endpoint)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Peak(*json.loads(done.stdout))


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system tells no {field}")


def _main(task: str, endpoint: str) -> None:
    if task.startswith("obstore"):
        _obstore(endpoint, "bucket")
    else:
        _ours(endpoint, "bucket")
    before, began = _resident("VmRSS"), perf_counter()
    _TASKS[task](endpoint)
    print(json.dumps([perf_counter() - began, _resident("VmHWM") - before]))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""What a hit of the cache costs in the benchmark `files`, beside a read of a local file and fsspec's cache."""

# The peers are untyped, or not installed where the types are checked.
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call,unused-ignore"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from scripts.benchmarks._files_s3 import obstore_at, ours_at
from scripts.benchmarks._timing import Figures, compare, interleave

NAME = "megabyte"


def measure(endpoint: str, folder: Path, rounds: int, *, times: int) -> dict[str, Figures]:
    """Read one megabyte from the cache; a plain read of the same bytes on the same disk is the reference.

    Args:
        endpoint: Of the server that the file comes from.
        folder: An empty one, for the caches and the local file.
        rounds: How many turns of each are counted.
        times: Reads a turn.
    """
    from treenail.adapters.files import FileCache

    remote, store = ours_at(endpoint, "bucket"), obstore_at(endpoint, "bucket")
    content = remote.read(NAME)
    local = folder / "local" / NAME
    local.parent.mkdir()
    local.write_bytes(content)
    fresh = FileCache(folder / "fresh", max_bytes=2**30, max_age=86_400)
    validating = FileCache(folder / "validating", max_bytes=2**30)

    def plain() -> bytes:
        with local.open("rb") as file:
            return file.read()

    def asked_and_plain() -> bytes:
        store.head(NAME)
        return plain()

    readers: dict[str, Callable[[], bytes]] = {
        "plain again": plain,
        "treenail, within max_age": lambda: fresh.read(remote, NAME),
        "treenail, validated by S3": lambda: validating.read(remote, NAME),
        "obstore's HEAD and a plain read": asked_and_plain,
    }
    if find_spec("s3fs"):
        import fsspec

        cached = fsspec.filesystem(
            "filecache",
            target_protocol="s3",
            target_options={"anon": True, "endpoint_url": endpoint},
            cache_storage=str(folder / "fsspec"),
        )

        def read_with_fsspec() -> bytes:
            with cached.open(f"bucket/{NAME}", "rb") as file:
                data: bytes = file.read()
                return data

        readers["fsspec filecache, within a week"] = read_with_fsspec
    for name, read in readers.items():
        if read() != content:
            raise SystemExit(f"{name}: other bytes came")
    timed = {name: partial(_time, read, times) for name, read in readers.items()}
    turns = interleave(timed["plain again"], timed, rounds)
    return {name: compare(series) for name, series in turns.items()}


def _time(act: Callable[[], object], times: int) -> float:
    start = perf_counter()
    for _ in range(times):
        act()
    return (perf_counter() - start) / times

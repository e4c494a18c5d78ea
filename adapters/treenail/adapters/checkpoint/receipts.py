"""How rank 0 learns, without a collective, that the other ranks have written their shards: by a small file of each."""

from __future__ import annotations

from threading import Event
from time import monotonic
from typing import Final

import msgspec

from treenail.adapters.checkpoint.sharded import shard_name
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, FileBackend, FileError, FileMissingError

_SHORTEST: Final = 0.005  # seconds between two looks
_LONGEST: Final = 0.5


def write_receipt(files: FileBackend, directory: str, rank: int, world_size: int, entry: FileEntry) -> None:
    """Say that a rank's shard is durable.

    Raises:
        CheckpointError: The backend failed.
    """
    try:
        files.write(_path(directory, rank, world_size), msgspec.json.encode(entry))
    except FileError as error:
        raise CheckpointError(f"the checkpoint could not be written: {error.message}", where=error.where) from error


def collect_receipts(
    files: FileBackend, directory: str, world_size: int, cancelled: Event, timeout: float
) -> list[FileEntry]:
    """Wait for the receipts of all ranks but the first, and remove them.

    Args:
        files: A place that all ranks share.
        directory: Of the checkpoint.
        world_size: How many ranks there are.
        cancelled: Ends the waiting.
        timeout: Seconds that ranks are waited for.

    Raises:
        CheckpointError: A receipt did not come, or the backend failed.
    """
    deadline = monotonic() + timeout
    found: list[FileEntry] = []
    for rank in range(1, world_size):
        path, pause = _path(directory, rank, world_size), _SHORTEST
        while True:
            try:
                found.append(msgspec.json.decode(files.read(path), type=FileEntry))
                files.delete(path)
                break
            except FileMissingError:
                if cancelled.wait(pause) or monotonic() > deadline:
                    raise CheckpointError(
                        f"rank {rank} has not written its part of the checkpoint",
                        where=f"{files.uri}/{directory}",
                        mend="see what that rank says; earlier checkpoints are untouched",
                    ) from None
                pause = min(2 * pause, _LONGEST)
            except (FileError, msgspec.DecodeError) as error:
                where = f"{files.uri}/{path}"
                raise CheckpointError(
                    f"what rank {rank} says of its part is unreadable: {error}", where=where
                ) from error
    return found


def _path(directory: str, rank: int, world_size: int) -> str:
    return f"{directory}/{shard_name(rank, world_size).removesuffix('.safetensors')}.json"

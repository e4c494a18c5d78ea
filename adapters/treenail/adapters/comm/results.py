"""Lists of results, one item of each rank after the other, as samplers deal samples out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal, TypeVar

import torch

from treenail.adapters.comm.arguments import items
from treenail.adapters.comm.devices import get_comm_device
from treenail.adapters.comm.objects import broadcast_object, exchange, require_equal
from treenail.adapters.comm.packing import describe, pack
from treenail.adapters.comm.unpacking import unpack
from treenail.kernel import CommunicationError, Communicator

T = TypeVar("T")

_NOTHING = object()


def collect_results(
    communicator: Communicator,
    results: list[T],
    size: int,
    device: Literal["cpu", "gpu"] = "cpu",
    tmpdir: str | os.PathLike[str] | None = None,
) -> list[T] | None:
    """Return the results of all ranks, dealt out in turn, on rank 0; None elsewhere.

    First comes the first of each rank, then the second of each, and so on, which is the order of the dataset where each
    rank had every world_size-th sample. `gather_samples` needs no such agreement: it uses the samples' indices.

    Args:
        communicator: The ranks.
        results: Anything; ranks may have more or fewer.
        size: How many results there are without those of samples that were repeated as padding; what is beyond is left out.
        device: ``"cpu"``: through the memory of hosts; ``"gpu"``: through that of GPUs.
        tmpdir: A directory that all ranks share, through whose files results go in place of the network. It is made where it
            is missing; the files, and what was made, are removed afterwards.

    Raises:
        CommunicationError: A result cannot be sent, the directory cannot be written or is not shared, there is no GPU, tmpdir is
            given with ``"gpu"``, or the ranks disagree; on every rank.
    """

    def check() -> list[list[object]]:
        if device not in {"cpu", "gpu"}:
            raise CommunicationError(f"there is no device {device!r}", mend="it is 'cpu' or 'gpu'")
        if device == "gpu" and tmpdir is not None:
            raise CommunicationError("results on GPUs do not go through a directory", mend="leave tmpdir out")
        if device == "gpu" and get_comm_device(communicator).type == "cpu":
            raise CommunicationError("these ranks do not communicate through GPUs", mend="use device='cpu'")
        if not isinstance(size, int) or size < 0:
            raise CommunicationError(f"size is {size!r}, must be a number of results, at least 0")
        packed.append(pack([describe(items(results, "results"))]))
        return [[device, tmpdir is not None, size]]

    packed: list[torch.Tensor] = []
    told = exchange(communicator, "collect_results", check)
    require_equal("collect_results", ["device", "whether tmpdir is given", "size"], [asked for (asked,) in told])
    parts: Sequence[torch.Tensor] | None
    if tmpdir is not None:
        parts = _through_files(communicator, packed[0], Path(tmpdir))
    elif device == "gpu":
        parts = communicator.gather(packed[0].to(get_comm_device(communicator)))
    else:
        parts = communicator.gather(packed[0])
    if parts is None:
        return None
    lists: list[list[T]] = [unpack(part)[0] for part in parts]  # type: ignore[misc]  # every rank's are of type T
    return interleaved(lists, size)


def interleaved(parts: Sequence[Sequence[T]], size: int | None = None) -> list[T]:
    """Return the first item of each part, then the second of each, …; at most `size` of them."""
    rounds = zip_longest(*parts, fillvalue=_NOTHING)
    found = [item for item in chain.from_iterable(rounds) if item is not _NOTHING]
    return found[:size]  # type: ignore[return-value]  # what is left is of type T


def _through_files(communicator: Communicator, packed: torch.Tensor, tmpdir: Path) -> list[torch.Tensor] | None:
    """Write a file on each rank and read all of them on rank 0."""
    made: list[Path] = []
    try:
        exchange(communicator, "collect_results", lambda: _make(communicator, tmpdir, made))
        shared = Path(broadcast_object(communicator, str(made[-1]) if made else None))
        exchange(communicator, "collect_results", lambda: _write(packed, shared, communicator.rank))
        parts: list[torch.Tensor] = []
        exchange(communicator, "collect_results", lambda: _read(communicator, shared, parts))
        return parts if communicator.rank == 0 else None
    finally:
        for directory in made[-1:]:
            shutil.rmtree(directory, ignore_errors=True)
        for directory in reversed(made[:-1]):
            _remove_if_empty(directory)


def _make(communicator: Communicator, tmpdir: Path, made: list[Path]) -> list[list[object]]:
    """Make a directory in tmpdir on rank 0; tells what was made."""
    if communicator.rank == 0:
        try:
            missing = [each for each in (tmpdir, *tmpdir.parents) if not each.exists()]
            for each in reversed(missing):
                each.mkdir(exist_ok=True)
                made.append(each)
            made.append(Path(tempfile.mkdtemp(prefix="results-", dir=tmpdir)))
        except OSError as error:
            raise CommunicationError(
                f"tmpdir cannot be written: {error}", where=str(tmpdir), mend="give another one"
            ) from error
    return []


def _write(packed: torch.Tensor, shared: Path, rank: int) -> list[list[object]]:
    """Write this rank's file, which is whole once it has its name."""
    content = bytearray(len(packed))
    torch.frombuffer(content, dtype=torch.uint8).copy_(packed)
    try:
        shared.mkdir(parents=True, exist_ok=True)
        partial = shared / f"{rank}.partial"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(shared / str(rank))
    except OSError as error:
        raise CommunicationError(f"results cannot be written: {error}", where=str(shared)) from error
    return []


def _read(communicator: Communicator, shared: Path, parts: list[torch.Tensor]) -> list[list[object]]:
    if communicator.rank == 0:
        for rank in range(communicator.world_size):
            try:
                content = bytearray((shared / str(rank)).read_bytes())
            except OSError as error:
                raise CommunicationError(
                    f"the results of rank {rank} cannot be read: {error}",
                    where=str(shared),
                    mend="tmpdir must be a directory that all ranks share",
                ) from error
            parts.append(torch.frombuffer(content, dtype=torch.uint8))
    return []


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # someone else uses it by now

"""Checkpoints that many ranks write and read, each its own part, planned by torch's distributed checkpoint (DCP).

Each rank writes one file ``shard-00001-of-00004.safetensors``. The files tell all about themselves, so that writing
them needs no communication, and nothing in them is pickled: DCP's own ``.metadata`` is not used. They can be read by
any number of ranks, each of which gets the parts that it needs then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.files import SHARD
from treenail.adapters.checkpoint.headers import StoredTensor
from treenail.adapters.checkpoint.ranks import plan_together, together
from treenail.adapters.checkpoint.shard_files import (
    Chunk,
    ChunkInfo,
    Deferred,
    read_chunk,
    read_header,
    write_shard,
)
from treenail.adapters.checkpoint.tensors import Buffers, check_tensor, is_spread, pack
from treenail.adapters.comm import current_communicator
from treenail.contracts import FileEntry
from treenail.kernel import CheckpointError, Communicator, FileBackend, FileError, did_you_mean

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import SavePlan


class ShardSnapshot(NamedTuple):
    """What this rank writes, at rest: nothing in it is shared with the training, unless its `Buffers` borrow.

    Args:
        rank: Of the ranks that save.
        world_size: How many they are.
        chunks: Parts of tensors by the tensors' names.
    """

    rank: int
    world_size: int
    chunks: dict[str, Chunk]


def snapshot_shards(
    tensors: Mapping[str, Tensor], communicator: Communicator | None = None, buffers: Buffers | None = None
) -> ShardSnapshot:
    """Copy to the CPU what this rank writes of a state; all ranks call it together.

    Of a DTensor each part is written once, by one of the ranks that hold it; a plain tensor by rank 0, whatever the
    others hold.

    Args:
        tensors: Plain tensors, and DTensors that are equally named on all ranks.
        communicator: The ranks, those of torch's process group where there are DTensors; the `current_communicator`
            when None.
        buffers: Where the copies lie; each in memory of its own when None.

    Raises:
        CheckpointError: A tensor cannot be saved; on every rank.
    """
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    ranks = communicator or current_communicator()
    own = {name: tensor for name, tensor in tensors.items() if ranks.rank == 0 or is_spread(tensor)}
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)

    def plan_locally() -> SavePlan:
        for name, tensor in own.items():
            check_tensor(tensor.to_local() if is_spread(tensor) else tensor, name)
        planner.set_up_planner(dict(own), is_coordinator=ranks.rank == 0)
        return planner.create_local_plan()

    plan = planner.finish_plan(plan_together(ranks, plan_locally, planner.create_global_plan))
    chunks: dict[str, Chunk] = {}
    for item in plan.items:
        data, part = planner.resolve_data(item), item.tensor_data
        if part is None or not isinstance(data, Tensor):  # only for values that are no tensors
            raise CheckpointError(f"'{item.index.fqn}' is no tensor", mend="give tensors only")
        packed, form = pack(data, buffers)
        chunks[item.index.fqn] = Chunk(packed, tuple(part.chunk.offsets), tuple(part.size), "complex" in form)
    return ShardSnapshot(ranks.rank, ranks.world_size, chunks)


def write_shards(snapshot: ShardSnapshot, files: FileBackend, directory: str = "") -> FileEntry:
    """Write this rank's file, durably; needs no communication and works on any thread.

    Args:
        snapshot: From `snapshot_shards`.
        files: Where to; a place that all ranks share.
        directory: Path of the checkpoint's directory.

    Returns:
        The file that this rank wrote, for the checkpoint's manifest.

    Raises:
        CheckpointError: The backend failed.
    """
    rank, world_size, chunks = snapshot
    return write_shard(files, directory, shard_name(rank, world_size), chunks, rank, world_size)


def read_shards(
    tensors: Mapping[str, Tensor], files: FileBackend, directory: str = "", communicator: Communicator | None = None
) -> None:
    """Fill tensors from a checkpoint of any number of ranks; all ranks call it together.

    Each rank reads and verifies the parts that overlap its own. When the checkpoint does not fit, nothing is changed;
    when a part turns out to be damaged, tensors before it have been filled.

    Args:
        tensors: Plain tensors and DTensors, changed in place; the names, shapes and dtypes of all that was saved.
        files: Where from.
        directory: Path of the checkpoint's directory.
        communicator: The ranks; the `current_communicator` when None.

    Raises:
        CheckpointError: A shard is missing, torn or damaged, or the checkpoint is another model's; on every rank.
    """
    together(communicator or current_communicator(), lambda: _fill(tensors, files, directory))


def read_whole(files: FileBackend, directory: str = "") -> dict[str, Tensor]:
    """Return all tensors of a sharded checkpoint, whole; in one process, without a process group.

    Raises:
        CheckpointError: A shard is missing, torn or damaged.
    """
    return {name: tensor.read() for name, tensor in stored_tensors(files, directory).items()}


def stored_tensors(files: FileBackend, directory: str) -> dict[str, Deferred]:
    """Return the tensors of a sharded checkpoint, whole; reading one verifies it.

    Raises:
        CheckpointError: A shard is missing or torn.
    """
    layout = _read_layout(files, directory)
    return {
        name: Deferred(whole.dtype, whole.shape, partial(_assemble, files, name, whole))
        for name, whole in layout.items()
    }


class _Whole(NamedTuple):
    """A tensor of a checkpoint and its parts; a complex one is stored with a dtype of real numbers."""

    stored_dtype: torch.dtype
    shape: tuple[int, ...]
    is_complex: bool
    parts: list[tuple[StoredTensor, ChunkInfo]]

    @property
    def dtype(self) -> torch.dtype:
        return self.stored_dtype.to_complex() if self.is_complex else self.stored_dtype


def _assemble(files: FileBackend, name: str, whole: _Whole) -> Tensor:
    tensor = torch.empty(whole.shape, dtype=whole.dtype)
    for stored, info in whole.parts:
        part = read_chunk(files, stored, info, name)
        place = tuple(slice(offset, offset + size) for offset, size in zip(info.offsets, part.shape, strict=True))
        tensor[place] = part
    return tensor


def _read_layout(files: FileBackend, directory: str) -> dict[str, _Whole]:
    """Read the headers of all shards.

    Raises:
        CheckpointError: A shard is missing or torn, shards contradict each other, or a tensor is not all there.
    """
    where = f"{files.uri}/{directory}"
    layout: dict[str, _Whole] = {}
    for path in _shard_paths(files, directory):
        info, stored = read_header(files, path)
        for name, chunk in info.chunks.items():
            found = _Whole(stored[name].dtype, chunk.shape, chunk.is_complex, [])
            whole = layout.setdefault(name, found)
            if whole[:3] != found[:3]:
                raise CheckpointError(f"shards disagree about '{name}': are they of one checkpoint?", where=where)
            whole.parts.append((stored[name], chunk))
    for name, whole in layout.items():
        there = sum(math.prod(stored.shape) for stored, _ in whole.parts) // (2 if whole.is_complex else 1)
        if there != math.prod(whole.shape):
            raise CheckpointError(f"of '{name}' {there} of {math.prod(whole.shape)} elements are there", where=where)
    return layout


def _shard_paths(files: FileBackend, directory: str) -> list[str]:
    where = f"{files.uri}/{directory}"
    try:
        paths = list(files.list(directory))
    except FileError as error:
        raise UnsuitableError(f"the checkpoint is unreadable: {error.message}", where=where) from error
    base = f"{directory}/" if directory else ""
    found = {path.removeprefix(base) for path in paths if SHARD.fullmatch(path.removeprefix(base))}
    if not found:
        raise CheckpointError("there are no shards", where=where, mend="give the directory of a sharded checkpoint")
    sizes = {int(match[2]) for name in found if (match := SHARD.fullmatch(name))}
    if len(sizes) > 1:
        raise CheckpointError(f"there are shards of {' and of '.join(map(str, sorted(sizes)))} ranks", where=where)
    expected = [shard_name(rank, world_size) for world_size in sizes for rank in range(world_size)]
    if missing := [name for name in expected if name not in found]:
        raise CheckpointError(
            f"{len(missing)} of {len(expected)} shards are missing, such as {missing[0]}", where=where
        )
    return [base + name for name in expected]


def shard_name(rank: int, world_size: int) -> str:
    """Return what the file of a rank's shard is called."""
    return f"shard-{rank + 1:05d}-of-{world_size:05d}.safetensors"


def _fill(tensors: Mapping[str, Tensor], files: FileBackend, directory: str) -> None:
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

    layout = _read_layout(files, directory)
    _check_fit(tensors, layout, f"{files.uri}/{directory}")
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), _dcp_metadata(layout))
    items = planner.finish_plan(planner.create_local_plan()).items
    last: tuple[StoredTensor, Tensor] | None = None
    for item in sorted(items, key=lambda item: (item.storage_index.fqn, item.storage_index.index or 0)):
        name, number = item.storage_index.fqn, item.storage_index.index or 0
        stored, info = layout[name].parts[number]
        if last is None or last[0] != stored:
            last = stored, read_chunk(files, stored, info, name)
        place = tuple(
            slice(offset, offset + length) for offset, length in zip(item.storage_offsets, item.lengths, strict=True)
        )
        target = planner.resolve_tensor(item).detach()
        target.copy_(last[1][place])
        planner.commit_tensor(item, target)


def _check_fit(tensors: Mapping[str, Tensor], layout: Mapping[str, _Whole], where: str) -> None:
    for name, tensor in tensors.items():
        if name not in layout:
            hint = did_you_mean(name, layout) or "load it with the model that was saved"
            raise UnsuitableError(f"the checkpoint has no tensor '{name}'", where=where, mend=hint)
        shape, dtype = tuple(tensor.shape), tensor.dtype
        if (shape, dtype) != (layout[name].shape, layout[name].dtype):
            raise UnsuitableError(
                f"'{name}' is {layout[name].dtype} of shape {list(layout[name].shape)} in the checkpoint, "
                f"{dtype} of shape {list(shape)} here",
                where=where,
                mend="load it with the model that was saved",
            )
    if foreign := sorted(layout.keys() - tensors.keys()):
        more = f" and {len(foreign) - 1} more" if foreign[1:] else ""
        raise UnsuitableError(
            f"the checkpoint has the tensor '{foreign[0]}'{more}, for which there is no place here",
            where=where,
            mend=did_you_mean(foreign[0], tensors) or "load it with the model that was saved",
        )


def _dcp_metadata(layout: Mapping[str, _Whole]) -> Metadata:
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        TensorProperties,
        TensorStorageMetadata,
    )

    def chunk(stored: StoredTensor, info: ChunkInfo) -> ChunkStorageMetadata:
        return ChunkStorageMetadata(torch.Size(info.offsets), torch.Size(stored.shape[: len(info.shape)]))

    return Metadata(
        {
            name: TensorStorageMetadata(
                TensorProperties(dtype=whole.dtype), torch.Size(whole.shape), [chunk(*part) for part in whole.parts]
            )
            for name, whole in layout.items()
        }
    )

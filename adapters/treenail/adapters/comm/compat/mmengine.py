"""The functions of `mmengine.dist`: the same names, arguments, effects and results, in any world.

They work on `current_communicator`, or on the `group` that is given: a communicator, or a process group of torch. In a world
of one rank what reduces or broadcasts leaves the data alone, and what gathers returns it in a list. Beyond the originals,
first dimensions may differ in `gather` and `all_gather`, devices are those of the data whatever the backend, and mistakes
are errors on every rank. `init_dist` is in `treenail.adapters.launch`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.distributed import ReduceOp
from torch.distributed import get_backend as _torch_backend

from treenail.adapters.comm import devices, objects, reductions
from treenail.adapters.comm import results as collected
from treenail.adapters.comm.compat.groups import Group, communicator_of, filled, rank_in
from treenail.adapters.comm.current import current_communicator, master_only
from treenail.adapters.comm.devices import cast_data_device, get_data_device
from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.torch_world import TorchCommunicator
from treenail.kernel import CommunicationError, Communicator

__all__ = [
    "ReduceOp",
    "all_gather",
    "all_gather_object",
    "all_reduce",
    "all_reduce_dict",
    "all_reduce_params",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "cast_data_device",
    "collect_results",
    "collect_results_cpu",
    "collect_results_gpu",
    "gather",
    "gather_object",
    "get_backend",
    "get_comm_device",
    "get_data_device",
    "get_default_group",
    "get_dist_info",
    "get_local_group",
    "get_local_rank",
    "get_local_size",
    "get_rank",
    "get_world_size",
    "infer_launcher",
    "init_local_group",
    "is_distributed",
    "is_main_process",
    "master_only",
    "sync_random_seed",
]

T = TypeVar("T")

Op = str | ReduceOp | ReduceOp.RedOpType

_LOCAL: ContextVar[Communicator | None] = ContextVar("treenail_local_group", default=None)

_NAMES = {"SUM": "sum", "PRODUCT": "product", "MIN": "min", "MAX": "max", "AVG": "mean"} | {
    name: name.lower() for name in ("BAND", "BOR", "BXOR")
}


def operation(op: Op) -> str:
    """Return the name that a communicator has for an operation: mmengine's ``"produce"`` is the product."""
    if isinstance(op, str):
        return "product" if op.lower() == "produce" else op.lower()
    known = {getattr(ReduceOp, theirs): ours for theirs, ours in _NAMES.items()}
    for theirs, ours in known.items():
        if op == theirs:
            return ours
    raise CommunicationError(f"there is no operation {op}", mend=f"known are {', '.join(_NAMES.values())}")


def all_reduce(data: Tensor, op: Op = "sum", group: Group = None) -> None:
    """Replace a tensor by its element-wise reduction over ranks, in place.

    Args:
        data: Of the same shape and dtype on every rank.
        op: sum, mean, produce or product, min, max, band, bor, bxor, or torch's `ReduceOp`.
        group: The ranks.

    Raises:
        CommunicationError: The operation does not exist for this dtype, or the ranks disagree.
    """
    communicator = communicator_of(group)
    if communicator.world_size > 1:
        filled(data, communicator.all_reduce(data, operation(op)))


def all_gather(data: Tensor, group: Group = None) -> list[Tensor]:
    """Return every rank's tensor in rank order."""
    return communicator_of(group).all_gather(data)


def gather(data: Tensor, dst: int = 0, group: Group = None) -> list[Tensor]:
    """Return every rank's tensor in rank order on rank `dst`, an empty list elsewhere."""
    return communicator_of(group).gather(data, rank_in(group, dst)) or []


def broadcast(data: Tensor, src: int = 0, group: Group = None) -> None:
    """Fill a tensor with that of rank `src`, which has as many elements, in place."""
    communicator, source = communicator_of(group), rank_in(group, src)
    received = communicator.broadcast(data.detach().reshape(-1), source)
    if communicator.rank != source:
        filled(data, received.view(data.shape))


def sync_random_seed(group: Group = None) -> int:
    """Return a random number, the same on every rank."""
    return reductions.sync_random_seed(communicator_of(group))


def broadcast_object_list(data: list[T], src: int = 0, group: Group = None) -> None:
    """Fill a list with the objects of rank `src`'s list, which is as long, in place."""
    objects.broadcast_object_list(communicator_of(group), data, rank_in(group, src))


def all_reduce_dict(data: dict[str, Tensor], op: Op = "sum", group: Group = None) -> None:
    """Replace the tensors of a dict by their element-wise reductions over ranks, in place; keys are equal on all ranks."""
    communicator = communicator_of(group)
    if communicator.world_size > 1:
        for key, value in reductions.all_reduce_dict(communicator, data, operation(op)).items():
            filled(data[key], value)


def all_gather_object(data: T, group: Group = None) -> list[T]:
    """Return every rank's object in rank order."""
    return objects.all_gather_object(communicator_of(group), data)


def gather_object(data: T, dst: int = 0, group: Group = None) -> list[T] | None:
    """Return every rank's object in rank order on rank `dst`, None elsewhere."""
    return objects.gather_object(communicator_of(group), data, rank_in(group, dst))


def collect_results(
    results: list[T], size: int, device: Literal["cpu", "gpu"] = "cpu", tmpdir: str | None = None
) -> list[T] | None:
    """Return the results of all ranks, dealt out in turn and `size` of them at most, on rank 0; None elsewhere."""
    return collected.collect_results(current_communicator(), results, size, device, tmpdir)


def collect_results_cpu(result_part: list[T], size: int, tmpdir: str | None = None) -> list[T] | None:
    """Do as `collect_results` through the memory of hosts, or through files in `tmpdir`."""
    return collected.collect_results(current_communicator(), result_part, size, "cpu", tmpdir)


def collect_results_gpu(result_part: list[T], size: int) -> list[T] | None:
    """Do as `collect_results` through the memory of GPUs."""
    return collected.collect_results(current_communicator(), result_part, size, "gpu")


def all_reduce_params(
    params: Iterable[Tensor], coalesce: bool = True, bucket_size_mb: float = -1, op: Op = "sum", group: Group = None
) -> None:
    """Replace tensors by their element-wise reductions over ranks, in place; see `reductions.all_reduce_params`."""
    communicator = communicator_of(group)
    if communicator.world_size > 1:
        reductions.all_reduce_params(communicator, params, coalesce, bucket_size_mb, operation(op))


def get_dist_info(group: Group = None) -> tuple[int, int]:
    """Return (rank, world_size)."""
    return get_rank(group), get_world_size(group)


def init_local_group(node_rank: int, num_gpus_per_node: int) -> None:
    """Make the group of the ranks on this machine; called by every rank.

    Args:
        node_rank: Which machine this is; ranks are numbered machine by machine.
        num_gpus_per_node: Ranks on each machine.

    Raises:
        CommunicationError: The world does not consist of such machines, or this rank is not on this one.
    """
    communicator = current_communicator()
    size, count = communicator.world_size, num_gpus_per_node
    if count < 1 or size % count:
        raise CommunicationError(f"{size} ranks cannot be on machines with {count} each")
    if communicator.rank // count != node_rank:
        raise CommunicationError(
            f"rank {communicator.rank} is on machine {communicator.rank // count} of {size // count}, not {node_rank}",
            mend="number ranks machine by machine",
        )
    for first in range(0, size, count):
        made = communicator.group(range(first, first + count))
        if made is not None:
            _LOCAL.set(made)


def get_backend(group: Group = None) -> str | None:
    """Return the name of the group's backend; None in one process."""
    communicator = communicator_of(group)
    if isinstance(communicator, TorchCommunicator):
        return str(_torch_backend(communicator.process_group)).lower()
    return None if isinstance(communicator, SingleProcess) else type(communicator).__name__.lower()


def get_world_size(group: Group = None) -> int:
    """Return the number of ranks."""
    return communicator_of(group).world_size


def get_rank(group: Group = None) -> int:
    """Return this process's rank."""
    return communicator_of(group).rank


def get_local_size() -> int:
    """Return the number of ranks on this machine; 1 in one process."""
    return _local("LOCAL_WORLD_SIZE", lambda group: group.world_size, 1)


def get_local_rank() -> int:
    """Return this process's rank among those on this machine; 0 in one process."""
    return _local("LOCAL_RANK", lambda group: group.rank, 0)


def _local(variable: str, ask: Callable[[Communicator], int], alone: int) -> int:
    """Return what the local group, or else the launcher's variable, says."""
    if (group := get_local_group()) is not None:
        return ask(group)
    if not is_distributed():
        return alone
    if (told := os.environ.get(variable, "")).isdecimal():
        return int(told)
    raise CommunicationError(
        f"there is no local group, and {variable} is not set", mend="call init_local_group on every rank first"
    )


def is_main_process(group: Group = None) -> bool:
    """Return whether this is rank 0."""
    return get_rank(group) == 0


def barrier(group: Group = None) -> None:
    """Wait until every rank is here."""
    communicator_of(group).barrier()


def is_distributed() -> bool:
    """Return whether this is one of several processes, or of a process group of one."""
    return not isinstance(current_communicator(), SingleProcess)


def get_local_group() -> Communicator | None:
    """Return the group that `init_local_group` made; None without one."""
    return _LOCAL.get() if is_distributed() else None


def get_default_group() -> Communicator | None:
    """Return the group of all ranks; None in one process."""
    return current_communicator() if is_distributed() else None


def get_comm_device(group: Group = None) -> torch.device:
    """Return the device whose tensors the group's backend communicates: a GPU for NCCL, the CPU for gloo."""
    return devices.get_comm_device(communicator_of(group))


def infer_launcher() -> str:
    """Return which launcher started this process, by its environment: pytorch, slurm, mpi or none."""
    for variable, launcher in (
        ("WORLD_SIZE", "pytorch"),
        ("SLURM_NTASKS", "slurm"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "mpi"),
    ):
        if variable in os.environ:
            return launcher
    return "none"

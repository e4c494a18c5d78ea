"""Communicators: one process, threads, and processes of torch.distributed."""

from treenail.adapters.comm.current import (
    current_communicator,
    get_dist_info,
    is_main_process,
    master_only,
    use_communicator,
)
from treenail.adapters.comm.objects import (
    all_gather_object,
    broadcast_object,
    broadcast_object_list,
    gather_object,
    recv_object,
    scatter_object_list,
    send_object,
)
from treenail.adapters.comm.running import run_threads
from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.torch_world import TorchCommunicator

__all__ = [
    "SingleProcess",
    "TorchCommunicator",
    "all_gather_object",
    "broadcast_object",
    "broadcast_object_list",
    "current_communicator",
    "gather_object",
    "get_dist_info",
    "is_main_process",
    "master_only",
    "recv_object",
    "run_threads",
    "scatter_object_list",
    "send_object",
    "use_communicator",
]

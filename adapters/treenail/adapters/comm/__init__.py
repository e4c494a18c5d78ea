"""Communicators: one process, threads, and processes of torch.distributed."""

from treenail.adapters.comm.current import (
    current_communicator,
    get_dist_info,
    is_main_process,
    master_only,
    use_communicator,
)
from treenail.adapters.comm.running import run_threads
from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.torch_world import TorchCommunicator

__all__ = [
    "SingleProcess",
    "TorchCommunicator",
    "current_communicator",
    "get_dist_info",
    "is_main_process",
    "master_only",
    "run_threads",
    "use_communicator",
]

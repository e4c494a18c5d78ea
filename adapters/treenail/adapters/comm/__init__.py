"""Communicators: one process, threads, and processes of torch.distributed."""

from treenail.adapters.comm.current import (
    current_communicator,
    get_dist_info,
    is_main_process,
    master_only,
    use_communicator,
)
from treenail.adapters.comm.devices import cast_data_device, get_comm_device, get_data_device
from treenail.adapters.comm.objects import (
    all_gather_object,
    broadcast_object,
    broadcast_object_list,
    gather_object,
    recv_object,
    scatter_object_list,
    send_object,
)
from treenail.adapters.comm.reductions import (
    all_reduce_dict,
    all_reduce_params,
    recv,
    reduce,
    reduce_scatter,
    send,
    sync_random_seed,
)
from treenail.adapters.comm.results import collect_results
from treenail.adapters.comm.running import run_threads
from treenail.adapters.comm.samples import Samples, all_gather_samples, gather_sample_chunks, gather_samples
from treenail.adapters.comm.single import SingleProcess
from treenail.adapters.comm.structures import (
    all_gather_data,
    all_gather_list,
    all_gather_picklable,
    all_gather_tensors,
    gather_data,
    gather_list,
    gather_picklable,
    gather_tensors,
)
from treenail.adapters.comm.torch_world import TorchCommunicator

__all__ = [
    "Samples",
    "SingleProcess",
    "TorchCommunicator",
    "all_gather_data",
    "all_gather_list",
    "all_gather_object",
    "all_gather_picklable",
    "all_gather_samples",
    "all_gather_tensors",
    "all_reduce_dict",
    "all_reduce_params",
    "broadcast_object",
    "broadcast_object_list",
    "cast_data_device",
    "collect_results",
    "current_communicator",
    "gather_data",
    "gather_list",
    "gather_object",
    "gather_picklable",
    "gather_sample_chunks",
    "gather_samples",
    "gather_tensors",
    "get_comm_device",
    "get_data_device",
    "get_dist_info",
    "is_main_process",
    "master_only",
    "recv",
    "recv_object",
    "reduce",
    "reduce_scatter",
    "run_threads",
    "scatter_object_list",
    "send",
    "send_object",
    "sync_random_seed",
    "use_communicator",
]

"""The benchmark `comm`: by how much gathering lets rank 0's memory grow at most, in processes of its own for each way."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from scripts.benchmarks._comm_peers import start_peers
from scripts.benchmarks._comm_tensors import gatherers

from treenail.adapters.comm import TorchCommunicator
from treenail.adapters.launch import spawn

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_WARM = 4 * 2**20


class Peak(NamedTuple):
    """What gathering takes on rank 0, in units of the result's bytes.

    Args:
        growth: The highest resident set while gathering, less that before it, when rank 0 has its own share already.
        whole: The same with rank 0's own share counted, too.
    """

    growth: float
    whole: float


def peaks(names: Sequence[str], world_size: int, nbytes: int) -> dict[str, Peak]:
    """Measure ways to gather; nothing where the system is not Linux, which alone can reset a process's peak."""
    if not _RESET.exists():
        return {}
    return {name: spawn(_peak, world_size, name, nbytes, backend="gloo")[0] for name in names}


def _peak(name: str, nbytes: int) -> Peak:
    """Be a rank: gather a little, so that code and buffers are there, and then what is measured."""
    torch.set_num_threads(1)
    start_peers()
    communicator = TorchCommunicator()
    gatherers(communicator, _WARM)[name]()
    gather = gatherers(communicator, nbytes)[name]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the warm-up left is not there to be used again unseen
    dist.barrier()
    _RESET.write_text("5", encoding="ascii")  # the peak becomes what is there now
    before = _bytes("VmRSS")
    result = gather()
    growth = _bytes("VmHWM") - before
    dist.barrier()
    del result
    total = nbytes * communicator.world_size
    return Peak(growth / total, (growth + nbytes) / total)


def _bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024

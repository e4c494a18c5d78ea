"""What the contestants of the benchmark `comm` have in common: torch's own ways, and peers where they are installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MMENGINE = find_spec("mmengine") is not None
ACCELERATE = find_spec("accelerate") is not None


@contextmanager
def scratch_directory() -> Iterator[None]:
    """Work in a directory that all ranks share and that is removed: mmengine writes its parts to where it runs."""
    before = Path.cwd()
    made = tempfile.mkdtemp(prefix="treenail-bench-") if dist.get_rank() == 0 else ""
    told = [made]
    dist.broadcast_object_list(told)
    os.chdir(told[0])
    try:
        yield
        dist.barrier()
    finally:
        os.chdir(before)
        if made:
            shutil.rmtree(made)


def start_peers() -> None:
    """Load the peers and let them know of the process group, so that no clock runs while they do."""
    if MMENGINE:
        import mmengine.dist  # noqa: F401  # loaded before it is timed
    if ACCELERATE:
        from accelerate import PartialState

        PartialState(cpu=True)


def gather_object(value: object) -> list[Any] | None:
    """Gather by torch."""
    received: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, received)
    return received


def bare_gather(tensor: Tensor) -> list[Tensor] | None:
    """Gather tensors of equal size by torch."""
    received = [torch.empty_like(tensor) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(tensor, received)
    return received


def accelerate_gather_uneven(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Pad to the longest, gather and cut, tensor by tensor, as accelerate's documentation does it."""
    from accelerate.utils import gather, pad_across_processes

    results = []
    for tensor in tensors:
        lengths = gather(torch.tensor([len(tensor)])).tolist()
        padded = gather(pad_across_processes(tensor))
        parts = padded.split(len(padded) // len(lengths))
        results.append(torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)]))
    return results

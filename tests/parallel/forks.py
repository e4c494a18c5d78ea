"""New processes that need not import torch: a server has, and forks them."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

_IMPORTED = [
    "torch._dynamo",  # which the first optimizer of each process would import
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "treenail.adapters.cli.commands",
]


def fork_server() -> ForkServerContext:
    """Return a context whose processes have nothing of this one's memory; the server, without threads, ends with this process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context

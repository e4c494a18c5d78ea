"""New processes that need not import torch: a server has, and forks them."""

from __future__ import annotations

from contextlib import chdir
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fork_server() -> ForkServerContext:
    """Return a context whose processes have nothing of this one's memory; the server, without threads, ends with this process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.parallel.preloaded"])
    with chdir(ROOT):  # where the server finds what it imports; what it does not find it leaves out without a word
        forkserver.ensure_running()
    return context

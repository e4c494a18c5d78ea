"""Watches how much memory a training takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta

from treenail.kernel import Communicator, Engine, Hook, TrainingError

_MIB = 2**20
_STATM = Path("/proc/self/statm")


class MemoryHook(Hook):
    """Publishes, every `interval` steps, the memory of the training process, in MiB; on many ranks the largest of any.

    ``memory/rss`` is what the process has in physical memory now (Linux only), ``memory/peak_rss`` the most it ever had
    (not on Windows). On a GPU ``memory/cuda_allocated`` is what tensors take, ``memory/cuda_reserved`` what torch's
    allocator holds, and ``memory/cuda_peak`` the most that tensors took since the last record. Loader processes are not
    counted.

    Args:
        interval: Steps between two records, counted over the whole run.
        limit: Stop the run, with a checkpoint, when the process has more than so many MiB: before the system kills it.
        communicator: The ranks of the run.

    Raises:
        ValueError: An argument is out of its range, or there shall be a limit where the memory is not known.
    """

    priority = 13

    def __init__(
        self,
        interval: Annotated[int, Meta(ge=1)] = 50,
        limit: Annotated[float, Meta(gt=0)] | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        if interval < 1 or (limit is not None and not limit > 0):
            raise ValueError(f"{interval=} must be at least 1, and {limit=} above 0")
        if limit is not None and not _STATM.exists():
            raise ValueError(f"limit is {limit}, and {sys.platform} does not tell a process's memory: leave it out")
        self.interval = interval
        self.limit = limit
        self._ranks = communicator if communicator is not None and communicator.world_size > 1 else None

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Look, if it is time."""
        if (engine.step + 1) % self.interval:
            return
        found = memory_in_use()
        if self._ranks is not None:
            largest = self._ranks.all_reduce(torch.tensor(list(found.values()), dtype=torch.float64), "max").tolist()
            found = dict(zip(found, largest, strict=True))
        engine.publish({f"memory/{name}": value for name, value in found.items()})
        if self.limit is not None and found["rss"] > self.limit:
            engine.fail(
                TrainingError(
                    f"the process takes {found['rss']:.0f} MiB after step {engine.step + 1}, more than {self.limit:g}",
                    where="hooks.memory.limit",
                    mend="--resume goes on with the memory of a new process; does something collect tensors?",
                )
            )


def memory_in_use() -> dict[str, float]:
    """Return what this process takes, in MiB: ``rss``, ``peak_rss``, and on a GPU what torch's allocator tells.

    The peak of the GPU's memory begins anew.
    """
    found: dict[str, float] = {}
    if _STATM.exists():
        pages = int(_STATM.read_text().split()[1])  # proc(5)
        found["rss"] = pages * os.sysconf("SC_PAGE_SIZE") / _MIB
    if sys.platform != "win32":
        from resource import RUSAGE_SELF, getrusage  # Windows has no such module

        peak = getrusage(RUSAGE_SELF).ru_maxrss
        found["peak_rss"] = peak / _MIB if sys.platform == "darwin" else peak / 1024  # getrusage(2): bytes there
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        found["cuda_allocated"] = torch.cuda.memory_allocated() / _MIB
        found["cuda_reserved"] = torch.cuda.memory_reserved() / _MIB
        found["cuda_peak"] = torch.cuda.max_memory_allocated() / _MIB
        torch.cuda.reset_peak_memory_stats()
    return found

"""Tasks that `we` runs."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.distributed as dist

from treenail.adapters.launch import we


class Seen(NamedTuple):
    """What a task sees of its environment."""

    env: dict[str, object]
    shown: str
    total: float
    rank_in_a_thread: int
    drawn: list[float]
    config: object


def task(config: object) -> Seen:
    """Return what a task sees of its environment, in its thread and in another."""
    total = torch.tensor(float(we.rank + 1))
    if we.is_distributed:
        dist.all_reduce(total)
    ranks: list[int] = []
    thread = threading.Thread(target=lambda: ranks.append(we.rank))
    thread.start()
    thread.join()
    drawn = [random.random(), torch.rand(1).item()]
    return Seen(we.get_env(), repr(we), total.item(), ranks[0], drawn, getattr(config, "NAME", None))


def task_without_config() -> str:
    return "done"


CONFIG = SimpleNamespace(
    NAME="probe", ENV=SimpleNamespace(SEED=7, SYNC_BN=True, BACKEND="gloo", SYS_ENVS={"PROBE_VARIABLE": 3})
)

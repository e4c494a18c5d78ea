"""What the tests run on ranks."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from tests.launch.listening import free_port, is_loopback, listening_addresses
from treenail.adapters.launch import RankEnvironment, detect, init_dist, process_group


class Seen(NamedTuple):
    """What a rank sees of itself."""

    rank: int
    world_size: int
    sum_of_ranks: float
    backend: str
    argument: object
    threads: int
    detected: str
    listening: int
    beyond_loopback: list[str]


def look(argument: object) -> Seen:
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    environment = detect()
    assert environment is not None
    assert environment.rank == dist.get_rank()
    listening = listening_addresses(os.getpid()) + listening_addresses(os.getppid())
    dist.barrier()  # until every rank has looked
    return Seen(
        dist.get_rank(),
        dist.get_world_size(),
        total.item(),
        dist.get_backend(),
        argument,
        torch.get_num_threads(),
        environment.launcher,
        len(listening),
        [address for address in listening if not is_loopback(address)],
    )


def fail_on(rank: int, how: str) -> None:
    """Fail on one rank, while the others wait for it in a collective."""
    if dist.get_rank() == rank:
        if how == "raise":
            raise ValueError("image 3 is torn")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "leave":
            os._exit(0)
        if how == "exit":
            sys.exit(3)
    dist.barrier()


def hang_on_others(rank: int) -> None:
    """Fail on one rank, while the others wait for nothing that could fail."""
    if dist.get_rank() == rank:
        raise ValueError("image 3 is torn")
    time.sleep(600)


def return_unpicklable() -> Callable[[], int]:
    return lambda: 0


def wait_for_ever(directory: Path) -> None:
    (directory / str(dist.get_rank())).write_text(str(os.getpid()))
    time.sleep(600)


def meet_twice(directory: Path, port: int) -> float:
    """Meet the other of two ranks; the second group meets at the same port."""
    rank = int(os.environ["RANK"])
    for name in [name for name in os.environ if name.startswith(("MASTER", "RANK", "GLOO"))]:
        del os.environ[name]
    os.environ.update(RankEnvironment(rank, 2, rank, 2, 0, "127.0.0.1", port, "mpi").variables())
    for _ in range(2):
        with process_group(detect(), timeout=60):
            total = torch.ones(1)
            dist.all_reduce(total)
    return total.item()


def initialise(directory: Path) -> tuple[int, int, str]:
    """Initialise as mmengine's programs do, without a warning."""
    os.environ.update(RankEnvironment(0, 1, 0, 1, 0, "127.0.0.1", free_port(), "pytorch").variables())
    warnings.simplefilter("error")
    init_dist("pytorch", backend="gloo", timeout=60)
    return dist.get_rank(), dist.get_world_size(), dist.get_backend()

"""Fresh processes, alone or as a gloo group on loopback, and what the tests feed their loaders."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

P = ParamSpec("P")

SECONDS = 120  # after which processes are taken for stuck


def launch(
    function: Callable[Concatenate[Path, P], object],
    directory: Path,
    world_size: int,
    *args: P.args,
    **kwargs: P.kwargs,
) -> list[object]:
    """Run a function in new processes and return what each of them returned, in order of rank.

    They find each other as processes that torchrun starts do: by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The function
    initialises the process group itself, if it wants one.

    Args:
        function: Of a module, called with a directory and the other arguments; it returns JSON.
        directory: Of this launch, for files that the processes write.
        world_size: How many processes.
        args: What the function gets.
        kwargs: What the function gets.

    Raises:
        AssertionError: A process failed, or is stuck.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = [directory / f"answer-{rank}.json" for rank in range(world_size)]
    processes = [
        context.Process(target=_run, args=(function, directory, answer, rank, world_size, port, args, kwargs))
        for rank, answer in enumerate(answers)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
        codes = [process.exitcode for process in processes]
        assert codes == [0] * world_size, f"the processes ended with {codes}"
    finally:
        for process in processes:
            process.kill()
    return [json.loads(answer.read_text()) for answer in answers]


def _run(
    function: Callable[Concatenate[Path, P], object],
    directory: Path,
    answer: Path,
    rank: int,
    world_size: int,
    port: int,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
    )
    result = function(directory, *args, **kwargs)  # type: ignore[arg-type]  # P's arguments; `launch` has checked them
    answer.write_text(json.dumps(result))

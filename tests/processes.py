"""New processes, alone or as a gloo group on loopback, and what the tests feed their loaders."""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self

from tests.parallel.forks import fork_server

P = ParamSpec("P")

SECONDS = 120  # after which processes are taken for stuck


class Starter:
    """Starts new processes that have run nothing yet, without the seconds that each would import torch for.

    They are forked off one interpreter, of other hashes than the tests' own, which has imported modules and does nothing else.

    Args:
        modules: What that interpreter imports, besides what the fork server has imported.
    """

    def __init__(self, *modules: str) -> None:
        context = fork_server()
        self._tasks, theirs = context.Pipe()
        self._server = context.Process(target=_serve, args=(theirs, modules))
        self._server.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(BrokenPipeError):  # it may be dead
            self._tasks.send(
                None
            )  # processes forked since then may hold this end of the pipe, too: closing it says nothing
        self._server.join()
        self._tasks.close()

    def launch(
        self,
        function: Callable[Concatenate[Path, P], object],
        directory: Path,
        world_size: int,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[object]:
        """Run a function in new processes and return what each of them returned, in order of rank.

        They find each other as processes that torchrun starts do: by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The
        function initialises the process group itself, if it wants one.

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
        answers = [directory / f"answer-{rank}.json" for rank in range(world_size)]
        self._tasks.send((function, directory, answers, args, kwargs))
        codes = self._tasks.recv()
        assert codes == [0] * world_size, f"the processes ended with {codes}"
        return [json.loads(answer.read_text()) for answer in answers]


def _serve(tasks: Connection, modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a collection in a forked process would write to all of these objects, and so copy their memory
    # Spawned processes would spawn theirs: a loader's workers would import all anew, unlike those of a user's program.
    multiprocessing.set_start_method("fork", force=True)
    while True:
        try:
            task = tasks.recv()
        except EOFError:  # the tests are dead
            return
        if task is None:
            return
        tasks.send(_run_ranks(*task))


def _run_ranks(
    function: Callable[..., object],
    directory: Path,
    answers: list[Path],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> list[int | None]:
    """Return the exit codes of a process for each answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    world_size = len(answers)
    processes = [
        multiprocessing.Process(
            target=_run_rank, args=(function, directory, answer, rank, world_size, port, args, kwargs)
        )
        for rank, answer in enumerate(answers)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run_rank(
    function: Callable[..., object],
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
    result = function(directory, *args, **kwargs)
    answer.write_text(json.dumps(result))

"""A world of gloo processes that stays alive between programs, for laws that look at hundreds of them."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore  # where its type is known

from tests.parallel.forks import fork_server
from treenail.adapters.comm import TorchCommunicator
from treenail.kernel import CommunicationError, Communicator

I = TypeVar("I")  # noqa: E741  # what a program is given
O = TypeVar("O")  # noqa: E741  # what it returns

_START = 60.0  # seconds in which processes must meet, on however busy a machine


class PoolError(Exception):
    """A rank of the pool raised, died or did not answer; the next program finds a new world."""


class _Answer(NamedTuple):
    value: object = None
    error: str | None = None
    aborted: bool = False
    broken: bool = False  # before the program began: it did not


class _Watched(TorchCommunicator):
    """Knows whether its rank has aborted the world, which no program can use any more."""

    aborted = False

    def abort(self, reason: str) -> None:
        self.aborted = True
        super().abort(reason)


class ProcessPool:
    """Worlds of one to `size` processes, started when they are first needed and again after something went wrong.

    Processes are forked by a server that has imported torch once. They listen on the loopback device only.

    Args:
        size: The largest number of ranks.
        deadline: Seconds in which a program must end on every rank.
        timeout: Seconds that a rank waits for another one.
    """

    def __init__(self, size: int = 5, deadline: float = 120.0, timeout: float = 30.0) -> None:
        self.size = size
        self.deadline = deadline
        self.timeout = timeout
        self._context = fork_server()
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._store: TCPStore | None = None

    def run(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[O]:
        """Run a program on the first ranks, and return what each returned, in rank order.

        Raises:
            PoolError: A rank raised, died or did not answer in time.
        """
        answers = self._attempt(world_size, program, inputs)
        if any(answer.broken for answer in answers):  # by an earlier program, which may not even know
            answers = self._attempt(world_size, program, inputs)
        return _values(answers)

    def run_without(
        self, lost: int, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]
    ) -> list[O | None]:
        """Run a program that ends this world, as one rank dies or hangs; return what each returned, None for that one.

        Raises:
            PoolError: Another rank raised, died or did not answer in time.
        """
        try:
            self._send(world_size, program, inputs)
            return _values(self._answers(world_size, {lost: _Answer()}))
        finally:
            self.close()

    def close(self) -> None:
        """End the processes."""
        for process, connection in zip(self._processes, self._connections, strict=True):
            connection.close()
            process.kill()
        for process in self._processes:
            process.join()
            process.close()
        self._processes, self._connections, self._store = [], [], None

    def _attempt(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> list[_Answer]:
        try:
            self._send(world_size, program, inputs)
            answers = self._answers(world_size)
        except BaseException:  # an interrupt, too, leaves ranks in the middle of a program
            self.close()
            raise
        if any(answer.broken or answer.aborted or answer.error is not None for answer in answers):
            self.close()
        return answers

    def _send(self, world_size: int, program: Callable[[Communicator, I], O], inputs: Sequence[I]) -> None:
        if not self._processes:
            self._start()
        for rank, given in enumerate(inputs):
            try:
                self._connections[rank].send_bytes(pickle.dumps((world_size, program, given)))
            except ConnectionError as error:
                raise PoolError(f"rank {rank} of {world_size} died before the program began") from error

    def _answers(self, world_size: int, known: Mapping[int, _Answer] | None = None) -> list[_Answer]:
        """Wait until every rank has answered whose answer is not known."""
        deadline = monotonic() + self.deadline
        answers = dict(known or {})
        while len(answers) < world_size:
            missing = [rank for rank in range(world_size) if rank not in answers]
            ranks = {self._connections[rank].fileno(): rank for rank in missing}
            ready = wait([self._connections[rank] for rank in missing], timeout=max(0.0, deadline - monotonic()))
            if not ready:
                raise PoolError(f"ranks {missing} of {world_size} did not answer within {self.deadline} s")
            for connection in ready:
                if not isinstance(connection, Connection):
                    raise AssertionError("connections are waited for")
                rank = ranks[connection.fileno()]
                try:
                    answers[rank] = pickle.loads(connection.recv_bytes())
                except (EOFError, ConnectionError) as error:
                    raise PoolError(f"rank {rank} of {world_size} died") from error
        return [answers[rank] for rank in range(world_size)]

    def _start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        self._store = TCPStore(
            "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
        for rank in range(self.size):
            here, there = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(rank, self.size, port, self.timeout, there), daemon=True
            )
            process.start()
            there.close()
            self._processes.append(process)
            self._connections.append(here)


def _values(answers: Sequence[_Answer]) -> list[Any]:  # whatever the program returned
    for rank, answer in enumerate(answers):
        if answer.error is not None:
            raise PoolError(f"rank {rank} of {len(answers)} raised:\n{answer.error}")
    return [answer.value for answer in answers]


def _serve(rank: int, size: int, port: int, timeout: float, connection: Connection) -> None:
    """Be one rank: run the programs that come through the connection until it is closed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=_START + timeout)
    )
    groups = [dist.new_group(list(range(world_size))) for world_size in range(1, size + 1)]
    worlds = {
        world_size: _Watched(group, timeout) for world_size, group in enumerate(groups, start=1) if rank < world_size
    }
    with suppress(EOFError):
        while True:
            world_size, program, given = pickle.loads(connection.recv_bytes())
            connection.send_bytes(pickle.dumps(_answer(worlds[world_size], program, given)))


def _answer(communicator: _Watched, program: Callable[[Communicator, I], O], given: I) -> _Answer:
    try:
        communicator.barrier()
    except CommunicationError as error:
        return _Answer(error=str(error), broken=True)
    try:
        value = program(communicator, given)
        pickle.dumps(value)
    except BaseException:
        text = traceback.format_exc()
        communicator.abort(f"rank {communicator.rank} raised: {text}")
        return _Answer(error=text)
    return _Answer(value, aborted=communicator.aborted)

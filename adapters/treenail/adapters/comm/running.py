"""Runs a function on every rank of a world in the threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from treenail.adapters.comm.collectives import Collectives
from treenail.adapters.comm.current import use_communicator
from treenail.adapters.comm.threads import ThreadTransport, thread_world
from treenail.kernel import Communicator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_threads(
    world_size: int, function: Callable[[Communicator, *Ts], T], *arguments: *Ts, timeout: float = 60.0
) -> list[T]:
    """Run a function on every rank of a world in threads of this process, and return what each returned, in rank order.

    When one raises, or ends without taking part in what the others do, the others' collectives raise at once.

    Args:
        world_size: Number of ranks, at least 1.
        function: Takes its rank's communicator first; it is also the `current_communicator` there.
        *arguments: What else it takes.
        timeout: Seconds that a rank waits for another one, more than 0.

    Raises:
        Exception: What a rank raised first, with a note that names the rank.
        CommunicationError: There is no such world, or no such timeout.
    """
    transports = thread_world(world_size, timeout)
    values: dict[int, T] = {}
    errors: list[tuple[int, BaseException]] = []

    def run(rank: int, transport: ThreadTransport) -> None:
        communicator = Collectives(transport)
        try:
            with use_communicator(communicator):
                values[rank] = function(communicator, *arguments)
        except BaseException as error:  # it is raised where the world was started
            errors.append((rank, error))  # before the others learn of it and fail, too
            transport.end(f"failed ({type(error).__name__}: {error})")
        else:
            transport.end("ended")

    threads = [
        threading.Thread(target=run, args=(rank, transport), name=f"rank {rank}", daemon=True)
        for rank, transport in enumerate(transports)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        rank, error = errors[0]
        error.add_note(f"raised by rank {rank} of {world_size}")
        raise error
    return [values[rank] for rank in range(world_size)]

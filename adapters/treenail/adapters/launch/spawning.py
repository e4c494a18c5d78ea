"""Runs a function on fresh processes of this machine, each in its process group."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final, NamedTuple, TypeVar, TypeVarTuple

import torch

from treenail.adapters.launch.collecting import SETTLE, collect
from treenail.adapters.launch.environment import LOOPBACK, RankEnvironment
from treenail.adapters.launch.failures import Failure, describe, is_consequence
from treenail.adapters.launch.group import TIMEOUT, check_backend, process_group
from treenail.adapters.launch.loopback import host_store
from treenail.kernel import ConfigError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PER_CORE: Final = 16  # each imports torch, and takes hundreds of megabytes
_MERCY: Final = 5.0  # seconds between SIGTERM and SIGKILL after a failure
_INTERRUPTED_MERCY: Final = 60.0  # the same after Ctrl-C: time to save a checkpoint


def spawn(
    function: Callable[[*Ts], T],
    processes: int,
    *arguments: *Ts,
    backend: str | None = None,
    timeout: float = TIMEOUT,
) -> list[T]:
    """Run a function on new processes of this machine, in one process group; return every rank's value in rank order.

    The processes start afresh (start method spawn), so function and arguments are pickled. Where one fails, the others are ended.
    Each uses its share of the cores, unless OMP_NUM_THREADS says otherwise.

    Args:
        function: Of a module, called as ``function(*arguments)`` on every rank.
        processes: How many, at least 1.
        *arguments: What the function gets.
        backend: As for `process_group`.
        timeout: As for `process_group`: seconds of a collective, not of the function.

    Raises:
        ConfigError: There are no processes to start, or the function or an argument cannot be pickled.
        RankFailedError: A rank raised, was killed, or returned what cannot be pickled; it says which, with the remote traceback.
    """
    check_processes(processes)
    check_backend(backend)
    work = pack(function, arguments)
    store = host_store(LOOPBACK, 0, timeout)  # here, so that no port is chosen before it is used
    context = get_context("spawn")
    ranks: list[_Rank] = []
    try:
        for rank in range(processes):
            environment = RankEnvironment(
                rank, processes, rank, processes, 0, LOOPBACK, store.port, "spawn", store_is_hosted=True
            )
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_run_rank, args=(environment, work, theirs, backend, timeout), name=f"rank-{rank}"
            )
            process.start()
            theirs.close()  # or the end of the process would not be the end of the pipe
            ranks.append(_Rank(rank, process, ours))
        answers = collect(processes, partial(_arrivals, list(ranks)))
        _leave([each.process for each in ranks])
    except BaseException as error:
        _end([each.process for each in ranks], _MERCY if isinstance(error, Exception) else _INTERRUPTED_MERCY)
        raise
    finally:
        for each in ranks:
            each.connection.close()
    # What was pickled there is what the function returned.
    return [pickle.loads(answer) for answer in answers]


class _Rank(NamedTuple):
    rank: int
    process: SpawnProcess
    connection: Connection


class Died(NamedTuple):
    """What a rank sends instead of a value: the fields of a `Failure` but its rank and exit code."""

    message: str
    remote_traceback: str
    time: float
    consequence: bool


def check_processes(processes: int) -> None:
    """Refuse a number of processes that is no world, or that would bring the machine to a standstill.

    Raises:
        ConfigError: It is below 1, or far above the number of cores.
    """
    if processes < 1:
        raise ConfigError(f"cannot start {processes} processes", mend="a world has at least 1")
    if processes > (most := _PER_CORE * cores()):
        raise ConfigError(
            f"cannot start {processes} processes on {cores()} cores", mend=f"at most {most} are started on this machine"
        )


def pack(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    dumps: Callable[[object], bytes] = pickle.dumps,
) -> bytes:
    """Return a function and its arguments as other processes can load them.

    Args:
        function: To be run there.
        arguments: What it gets.
        dumps: Pickles.

    Raises:
        ConfigError: They cannot be pickled.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        dumps(function)
    except Exception as error:  # whatever a type's own __reduce__ raises
        raise ConfigError(
            f"'{name}' cannot be sent to other processes: {describe(error)}",
            mend="define it with `def` at the top level of a module",
        ) from error
    try:
        return dumps((function, arguments))
    except Exception as error:
        raise ConfigError(
            f"the arguments of '{name}' cannot be sent to other processes: {describe(error)}",
            mend="give what can be pickled, such as a path instead of an open file",
        ) from error


def _run_packed(work: bytes) -> bytes:
    """Run what `pack` returned; return the pickled value.

    Raises:
        ConfigError: The value cannot be pickled.
    """
    function, arguments = pickle.loads(work)
    value = function(*arguments)
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise ConfigError(
            f"'{function.__qualname__}' returned what cannot be sent back: {describe(error)}",
            mend="return what can be pickled",
        ) from error


def run_in_group(environment: RankEnvironment, work: bytes, backend: str | None, timeout: float) -> bytes | Died:
    """Run what `pack` returned in its process group; return the pickled value, or what it died of.

    Args:
        environment: This process's place.
        work: From `pack`.
        backend: As for `process_group`.
        timeout: As for `process_group`.
    """
    died = None
    try:
        with process_group(environment, backend, timeout):
            try:
                return _run_packed(work)
            except BaseException as error:
                died = _died(error)  # before the group is left: from then on the others fail because of this
                raise
    except BaseException as error:
        return died or _died(error)


def _died(error: BaseException) -> Died:
    return Died(describe(error), traceback.format_exc(), time.time(), is_consequence(error))


def share_cores(processes: int) -> None:
    """Let this process use its share of the machine's cores, unless OMP_NUM_THREADS says how many threads to use."""
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(cores() // processes, 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for processes that this one starts
        torch.set_num_threads(threads)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_rank(
    environment: RankEnvironment, work: bytes, connection: Connection, backend: str | None, timeout: float
) -> None:
    """Be a rank: the whole life of a process that `spawn` started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    os.environ.update(environment.variables())
    share_cores(environment.local_world_size)
    answer = run_in_group(environment, work, backend, timeout)
    connection.send(answer)
    if isinstance(answer, Died):
        sys.exit(1)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_INTERRUPTED_MERCY)
    os._exit(128 + signal.SIGTERM)


def _arrivals(waiting: list[_Rank], patience: float | None) -> Iterator[tuple[int, bytes | Failure]]:
    """Wait for a rank's end; yield the answers that are there, and take their ranks out of those that are waited for."""
    # The pipe alone would not do: processes that the rank started may hold its other end.
    wait([end for each in waiting for end in (each.connection, each.process.sentinel)], patience)
    for each in list(waiting):
        ended = not each.process.is_alive()  # asked before the pipe: what it sent last is there then
        if each.connection.poll() or ended:
            waiting.remove(each)
            yield each.rank, _answer(each)


def _answer(rank: _Rank) -> bytes | Failure:
    try:
        answer = rank.connection.recv()
    except EOFError:  # it ended without a word
        rank.process.join()
        code = rank.process.exitcode or 0
        words = "" if code else "it ended before the function returned"
        return Failure(rank.rank, code, words, "", time.time() - SETTLE)
    assert isinstance(answer, bytes | Died)
    return answer if isinstance(answer, bytes) else Failure(rank.rank, 1, *answer)


def _leave(processes: list[SpawnProcess]) -> None:
    """Reap processes that have sent their answer; a thread that one left behind would keep it for ever."""
    for process in processes:
        process.join(_MERCY)
        process.kill()
        process.join()
        process.close()


def _end(processes: list[SpawnProcess], mercy: float) -> None:
    """End processes and reap them, by force when the time is over or the user is out of patience."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + mercy
    try:
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()


__all__ = ["Died", "check_processes", "cores", "pack", "run_in_group", "share_cores", "spawn"]

"""Starts a command on several processes with torchrun's agent, and says in one error what went wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException

from treenail.adapters.launch.agent import Agent, StoppedError
from treenail.adapters.launch.endpoint import Place, parse_endpoint, place
from treenail.adapters.launch.environment import LOOPBACK, RankEnvironment, set_variables
from treenail.adapters.launch.loopback import collectives_on_loopback
from treenail.adapters.launch.rendezvous import ElasticRendezvous, FixedRendezvous, Meeting, NotNeededError
from treenail.adapters.launch.spawning import check_processes, cores
from treenail.kernel import CommunicationError, ConfigError

GRACE: Final = 300.0  # seconds: a checkpoint of a large model takes minutes

LAUNCH_ID: Final = "TREENAIL_LAUNCH_ID"
"""The environment variable that is equal in all attempts of one launch, and in those of no other."""

_WORKER: Final = Path(__file__).with_name("worker.py")
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


class Machines(NamedTuple):
    """How many machines there are, and how they find each other.

    Args:
        least: As soon as so many are there, the ranks start.
        most: So many may take part; those that come later, or leave, restart the ranks.
        node_rank: This machine's number, where least equals most and no endpoint is given.
        host: Where they meet: node 0.
        port: There; 0 takes a free one, which is of use on one machine only.
        endpoint: ``host:port`` of a meeting place that makes no difference between the machines (torch's c10d rendezvous), but
            that the machine it names has to stay until the end.
        run_id: The same on all machines, with an endpoint.
        last_call: Seconds that the ranks wait for further machines as soon as the least are there, with an endpoint.
    """

    least: int = 1
    most: int = 1
    node_rank: int = 0
    host: str = LOOPBACK
    port: int = 0
    endpoint: str | None = None
    run_id: str | None = None
    last_call: float = 30.0


def launch(
    command: Sequence[str],
    processes: int,
    machines: Machines = Machines(),  # noqa: B008 - immutable
    *,
    max_restarts: int = 0,
    grace: float = GRACE,
    debug: bool = False,
) -> int:
    """Run a command on every rank and wait for the end; return 0, or 128 + n when signal n stopped all of them.

    SIGTERM, SIGINT, SIGHUP, SIGQUIT and SIGUSR1 are passed on to the ranks. A rank that fails ends the others; then all start
    again, `max_restarts` times. Ranks that a signal stopped in good order do not. Where machines may come and go, a
    launcher that gets a signal leaves, and the ranks of the others start again, as they do when a machine joins.

    Args:
        command: ``["script", path, *arguments]`` or ``["module", name, *arguments]``.
        processes: How many on this machine.
        machines: How many there are, and how they meet.
        max_restarts: How often the ranks are started again after one failed.
        grace: Seconds that the ranks have to stop after a signal; then they are killed.
        debug: Let torchrun say what it does.

    Raises:
        ConfigError: The port is taken, the endpoint is none, or the numbers are none of a world.
        CommunicationError: Machines did not come, or where they meet is gone.
        RankFailedError: A rank failed, and there are no restarts left.
    """
    _check(processes, machines, max_restarts, grace)
    where = _meeting_place(machines)
    rank = (sys.executable, "-P", "-u", str(_WORKER), str(os.getpid()), f"{grace:g}", *command)
    with ExitStack() as stack:
        reports = Path(stack.enter_context(TemporaryDirectory(prefix="treenail-launch-")))
        stack.enter_context(_quiet(debug))
        stack.enter_context(_own_signals())
        stack.enter_context(set_variables(_inherited(processes)))
        if where.host == LOOPBACK:
            stack.enter_context(collectives_on_loopback())
        try:
            meeting = _meet(machines, where)
            stack.enter_context(set_variables({LAUNCH_ID: meeting.launch_id}))
            agent = Agent(rank, processes, meeting, max_restarts=max_restarts, grace=grace, directory=reports)
            return _run(agent, meeting)
        except dist.DistError as error:
            first_line = str(error).partition("\n")[0]
            raise CommunicationError(
                f"the launchers of the machines lost each other: {first_line}",
                where=str(where),
                mend="see what became of the other machines",
            ) from error


def _run(agent: Agent, meeting: Meeting) -> int:
    """Wait for the ranks, and let no machine join a run that ended."""
    goes_on = False
    try:
        agent.wait()
    except StoppedError as stop:
        return stop.exit_code
    except SignalException as end:
        goes_on = True  # on the other machines, where they can do without this one
        return 128 + int(end.sigval)
    except NotNeededError:
        print("the run ended without this machine: there were enough others", file=sys.stderr)
    finally:
        if not goes_on:
            meeting.shutdown()
    return 0


def become_rank(command: Sequence[str], environment: RankEnvironment | None) -> None:
    """Make this process the rank that Slurm or MPI gave it, and run the command in its place; it does not return.

    Args:
        command: As for `launch`.
        environment: As `detect` returns it; with None the process is on its own.
    """
    os.environ.update(environment.variables() if environment else {})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-u", str(_WORKER), "0", "0", *command])


def count_processes(wanted: str) -> int:
    """Return how many processes a machine runs.

    Args:
        wanted: A number, ``"gpu"`` (one for each GPU), or ``"auto"`` (the same, and one where there are none).

    Raises:
        ConfigError: It is none of these, or there are no GPUs.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return max(gpus, 1)
    if wanted == "gpu":
        if not gpus:
            raise ConfigError("there is no GPU here", where="--nproc gpu", mend="say how many processes: --nproc 2")
        return gpus
    if not wanted.isascii() or not wanted.isdecimal():
        raise ConfigError(f"{wanted!r} is no number of processes", where="--nproc", mend="give a number, auto or gpu")
    return int(wanted)


def _check(processes: int, machines: Machines, max_restarts: int, grace: float) -> None:
    """Refuse numbers that are none of a launch."""
    check_processes(processes)
    if not 1 <= machines.least <= machines.most:
        raise ConfigError(f"{machines.least} to {machines.most} machines are no range", mend="as in --nnodes 2 or 2:4")
    if not 0 <= machines.node_rank < machines.most:
        raise ConfigError(
            f"there is no machine {machines.node_rank} of {machines.most}", mend="--node-rank counts from 0"
        )
    if not 0 <= grace < 2**31:
        raise ConfigError(f"{grace:g} s is no time to stop in", mend="--grace is at least 0")
    if max_restarts < 0:
        raise ConfigError(f"{max_restarts} restarts are not possible", mend="--max-restarts is at least 0")


def _meeting_place(machines: Machines) -> Place:
    """Return where the machines meet; refuse numbers of machines that cannot."""
    if machines.endpoint is not None:
        if not machines.last_call > 0:
            raise ConfigError(f"{machines.last_call:g} s is no time to wait for further machines", mend="it is above 0")
        return parse_endpoint(machines.endpoint)
    if machines.least < machines.most:
        raise ConfigError(
            f"{machines.least} to {machines.most} machines meet at a common place, and none is given",
            mend="add --rdzv-endpoint HOST:PORT, the same on all machines",
        )
    if machines.most > 1 and not machines.port:
        raise ConfigError(
            "several machines meet at node 0, and its port is not given",
            mend="add --master-addr HOST and --master-port PORT, the same on all machines",
        )
    return place(machines.host, machines.port)


def _meet(machines: Machines, where: Place) -> Meeting:
    run_id = machines.run_id or "treenail"
    if machines.endpoint is None:
        return FixedRendezvous(where, machines.node_rank, machines.most, run_id)
    return ElasticRendezvous(where, machines.least, machines.most, run_id, machines.last_call)


def _inherited(processes: int) -> dict[str, str]:
    """Return the environment variables that the ranks inherit."""
    # What is ignored stays so: SIGHUP under nohup. An older torch does not ask, and hears all of them.
    heard = [each.name for each in _STOPS if signal.getsignal(each) is not signal.SIG_IGN]
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(cores() // processes, 1))),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(heard),
    }


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give signals back to whoever had them: torchrun takes them and keeps them."""
    if threading.current_thread() is not threading.main_thread():  # where it cannot take them
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep torchrun's own messages back: what they say stands in the error."""
    logger = logging.getLogger("torch.distributed.elastic")
    propagate = logger.propagate
    handler = logging.NullHandler()  # without one, Python would print them
    if not debug:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


__all__ = ["GRACE", "Machines", "become_rank", "count_processes", "launch"]

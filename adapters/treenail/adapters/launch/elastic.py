"""Starts a command on several processes with torchrun's agent, and says in one error what went wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from treenail.adapters.launch.environment import LOOPBACK, RankEnvironment
from treenail.adapters.launch.failures import Failure, first_cause, rank_failed, read_report
from treenail.adapters.launch.loopback import collectives_on_loopback
from treenail.adapters.launch.rendezvous import NAME, register
from treenail.adapters.launch.spawning import check_processes, cores
from treenail.kernel import CommunicationError, ConfigError

GRACE: Final = 300.0  # seconds: a checkpoint of a large model takes minutes

LAUNCH_ID: Final = "TREENAIL_LAUNCH_ID"
"""The environment variable that is equal in all attempts of one launch, and in those of no other."""

_WORKER: Final = Path(__file__).with_name("worker.py")
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Machines(NamedTuple):
    """How many machines there are, and how they find each other.

    Args:
        least: As soon as so many are there, the ranks start.
        most: So many may take part; those that come later, or leave, restart the ranks.
        node_rank: This machine's number, where least equals most and no endpoint is given.
        host: Where they meet: node 0.
        port: There; 0 takes a free one, which is of use on one machine only.
        endpoint: ``host:port`` of a meeting place that makes no difference between the machines (torch's c10d rendezvous).
        run_id: The same on all machines, with an endpoint.
    """

    least: int = 1
    most: int = 1
    node_rank: int = 0
    host: str = LOOPBACK
    port: int = 0
    endpoint: str | None = None
    run_id: str | None = None


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

    SIGTERM, SIGINT, SIGHUP and SIGQUIT are passed on to the ranks. A rank that fails ends the others; then all start again,
    `max_restarts` times.

    Args:
        command: ``["script", path, *arguments]`` or ``["module", name, *arguments]``.
        processes: How many on this machine.
        machines: How many there are, and how they meet.
        max_restarts: How often the ranks are started again after one failed.
        grace: Seconds that the ranks have to stop after a signal; then they are killed.
        debug: Let torchrun say what it does.

    Raises:
        ConfigError: The port is taken, or the numbers are none of a world.
        CommunicationError: Machines did not come.
        RankFailedError: A rank failed, and there are no restarts left.
    """
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
    register()
    with TemporaryDirectory(prefix="treenail-launch-") as reports, _quiet(debug), _own_signals():
        config = _config(processes, machines, max_restarts, grace, _Reports(reports, processes, max_restarts))
        world_size = processes * machines.most
        with _environment(processes, alone=machines.most == 1 and machines.endpoint is None):
            try:
                elastic_launch(config, sys.executable)("-P", "-u", str(_WORKER), *command)
            except ChildFailedError as error:
                failures = [
                    read_report(failure.error_file, rank, failure.exitcode, failure.timestamp)
                    for rank, failure in error.failures.items()
                ]
                stopped = _stopped(failures)
                if stopped:
                    return stopped
                raise rank_failed(failures, world_size) from None
            except SignalException as end:
                return 128 + int(end.sigval)
            except RendezvousError as error:
                raise CommunicationError(
                    f"the machines did not meet: {error}", mend=f"see whether all {machines.least} were started"
                ) from error
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
    os.execv(sys.executable, [sys.executable, "-P", "-u", str(_WORKER), *command])


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


class _Reports(DefaultLogsSpecs):
    """Where the ranks' reports of failures lie; says, before each restart, why there is one."""

    def __init__(self, directory: str, processes: int, max_restarts: int) -> None:
        super().__init__(log_dir=directory)
        self._max_restarts = max_restarts
        self._before: dict[int, str] = {}

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Return the files of an attempt, as torchrun asks for them before it starts the ranks."""
        restart = int(envs[0]["TORCHELASTIC_RESTART_COUNT"])
        ranks = {local: int(each["RANK"]) for local, each in envs.items()}
        if self._before:
            reports = [read_report(path, rank, 1, time.time()) for rank, path in self._before.items()]
            said = [report for report in reports if report.message]
            cause = first_cause(said) if said else None
            why = f"rank {cause.rank} failed: {cause.message}" if cause else "a rank ended without a word"
            print(f"{why}; restart {restart} of {self._max_restarts}", file=sys.stderr)
        destinations = super().reify(envs)
        self._before = {ranks[local]: path for local, path in destinations.error_files.items()}
        return destinations


def _config(processes: int, machines: Machines, max_restarts: int, grace: float, reports: _Reports) -> LaunchConfig:
    fixed = machines.endpoint is None
    if fixed and machines.least < machines.most:
        raise ConfigError(
            f"{machines.least} to {machines.most} machines meet at a common place, and none is given",
            mend="add --rdzv-endpoint HOST:PORT, the same on all machines",
        )
    if fixed and machines.most > 1 and not machines.port:
        raise ConfigError(
            "several machines meet at node 0, and its port is not given",
            mend="add --master-addr HOST and --master-port PORT, the same on all machines",
        )
    run_id = machines.run_id or ("treenail" if machines.most > 1 or not fixed else uuid4().hex)
    config = LaunchConfig(
        min_nodes=machines.least,
        max_nodes=machines.most,
        nproc_per_node=processes,
        logs_specs=reports,
        run_id=run_id,
        role="rank",
        rdzv_backend=NAME if fixed else "c10d",
        rdzv_endpoint=f"{machines.host}:{machines.port}" if fixed else machines.endpoint or "",
        rdzv_configs={"timeout": 900} | ({"rank": machines.node_rank} if fixed else {}),
        max_restarts=max_restarts,
        monitor_interval=0.1,
    )
    known = {field.name for field in fields(LaunchConfig)}
    if "shutdown_timeout" in known:  # an older torch always waits 30 s
        config.shutdown_timeout = round(grace)
    if "signals_to_handle" in known:  # what is ignored stays so: SIGHUP under nohup
        heard = [each.name for each in _STOPS if signal.getsignal(each) is not signal.SIG_IGN]
        config.signals_to_handle = ",".join(heard)
    return config


def _stopped(failures: list[Failure]) -> int:
    """Return the common exit code of ranks that stopped in good order after a signal, 0 if they did not."""
    codes = {failure.exit_code for failure in failures}
    orderly = not any(failure.message for failure in failures) and len(codes) == 1
    return max(codes) if orderly and codes <= {128 + signal.SIGINT, 128 + signal.SIGTERM} else 0


@contextmanager
def _environment(processes: int, *, alone: bool) -> Iterator[None]:
    """Set what the ranks inherit."""
    ours = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(cores() // processes, 1))),
        LAUNCH_ID: uuid4().hex,
    }
    # torchrun leaves its own there as well.
    before = {name: os.environ.get(name) for name in (*ours, "TORCHELASTIC_SIGNALS_TO_HANDLE")}
    os.environ.update(ours)
    try:
        if alone:
            with collectives_on_loopback():
                yield
        else:
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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

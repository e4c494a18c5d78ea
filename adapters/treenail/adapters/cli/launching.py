"""The command `launch`: another command, or a script of yours, on several processes."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from treenail.adapters.cli.main import COMMANDS, parse
from treenail.adapters.launch import GRACE, Machines, RankFailedError, become_rank, count_processes, detect
from treenail.adapters.launch import launch as launch_ranks
from treenail.kernel import ConfigError, did_you_mean

_OF_TORCHRUN = ("nproc", "nnodes", "node_rank", "master_addr", "rdzv_endpoint", "rdzv_id", "max_restarts", "grace")


def launch(options: Namespace) -> int:
    """Start the ranks, or become the one that Slurm or MPI started; wait, and say which rank failed."""
    try:
        command = _resolve(options.words)
    except SystemExit as end:  # of argparse, which has said what is wrong with the words, or shown their help
        return int(end.code or 0)
    if options.launcher in ("slurm", "mpi", "none"):
        given = [f"--{name.replace('_', '-')}" for name in _OF_TORCHRUN if getattr(options, name) is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)} cannot be said with --launcher {options.launcher}, which starts no processes",
                mend="say it to srun or mpirun",
            )
        become_rank(command, detect(options.launcher, port=options.master_port))
    machines = _machines(options)
    if options.launcher == "spawn" and (machines.most > 1 or machines.endpoint):
        raise ConfigError("--launcher spawn starts processes of one machine only", mend="leave it out, or --nnodes")
    try:
        return launch_ranks(
            command,
            count_processes(options.nproc or "auto"),
            machines,
            max_restarts=options.max_restarts or 0,
            grace=GRACE if options.grace is None else options.grace,
            debug=options.debug,
        )
    except RankFailedError as error:
        return _say(error, debug=options.debug)


def start_ranks(command: list[str], processes: int, *, debug: bool = False) -> int:
    """Start ranks on this machine and wait; say which one failed, and return its exit code.

    Args:
        command: As `treenail.adapters.launch.launch` takes it.
        processes: How many.
        debug: Show the failed rank's traceback.
    """
    try:
        return launch_ranks(command, processes, debug=debug)
    except RankFailedError as error:
        return _say(error, debug=debug)


def _say(error: RankFailedError, *, debug: bool) -> int:
    if debug:
        print(error.remote_traceback, file=sys.stderr)
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return error.exit_code


def _resolve(words: list[str]) -> list[str]:
    """Return what the ranks run, as `launch` of the adapters takes it."""
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise ConfigError("there is nothing to launch", mend="as in: treenail launch --nproc 2 train config.yaml")
    first, *rest = words
    if first == "-m":
        if not rest:
            raise ConfigError("-m names no module", mend="as in: treenail launch --nproc 2 -- -m package.module")
        return ["module", *rest]
    if first in COMMANDS and first != "launch":
        parse(words)  # a mistake is said once, before anything starts
        return ["module", "treenail.adapters.cli", *words]
    if not first.endswith(".py"):
        if first == "launch":
            raise ConfigError("a launch cannot launch another one", mend="write launch once")
        raise ConfigError(
            f"'{first}' is neither a command of treenail nor a Python script",
            mend=did_you_mean(first, COMMANDS) or "give a command, script.py or -m module, with its arguments",
        )
    if not Path(first).is_file():
        raise ConfigError("there is no such script", where=first)
    return ["script", *words]


def _machines(options: Namespace) -> Machines:
    least, colon, most = (options.nnodes or "1").partition(":")
    if not least.isdecimal() or (colon and not most.isdecimal()):
        raise ConfigError(f"{options.nnodes!r} is no number of machines", where="--nnodes", mend="as in 2, or 2:4")
    if options.master_port is not None and not 0 <= options.master_port < 2**16:
        raise ConfigError(f"there is no port {options.master_port}", where="--master-port", mend="it is 1 to 65535")
    given = {"node_rank": options.node_rank, "host": options.master_addr, "port": options.master_port}
    if options.rdzv_endpoint and any(value is not None for value in given.values()):
        raise ConfigError(
            "--rdzv-endpoint is a meeting place without a first machine",
            mend="give it alone, or --node-rank, --master-addr and --master-port",
        )
    if int(most or least) > 1 and not options.rdzv_endpoint and None in given.values():
        raise ConfigError(
            "several machines have to find each other",
            mend="add --node-rank, --master-addr and --master-port, or --rdzv-endpoint",
        )
    return Machines(
        int(least),
        int(most or least),
        endpoint=options.rdzv_endpoint,
        run_id=options.rdzv_id,
        **{name: value for name, value in given.items() if value is not None},
    )


__all__ = ["launch", "start_ranks"]

"""Which rank a process is, read from the environment variables that its launcher set."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from treenail.adapters.launch.slurm import expand_nodes, tasks_of_node
from treenail.kernel import ConfigError, did_you_mean

Launcher = Literal["none", "pytorch", "slurm", "mpi", "spawn"]

LOOPBACK: Final = "127.0.0.1"
_DEFAULT_PORT: Final = 29500  # torch's


class RankEnvironment(NamedTuple):
    """A process's place among those that work together.

    Args:
        rank: This process's number, 0 <= rank < world_size.
        world_size: How many processes there are.
        local_rank: Its number among those on this machine.
        local_world_size: How many there are on this machine.
        node_rank: The machine's number.
        master_addr: Where the processes meet: a host that all of them reach.
        master_port: The port there.
        launcher: Who started the processes.
        store_is_hosted: The launcher itself listens at master_addr:master_port; else rank 0 does.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    master_addr: str
    master_port: int
    launcher: Launcher
    store_is_hosted: bool = False

    @property
    def one_machine(self) -> bool:
        """Whether all processes are on this machine."""
        return self.local_world_size == self.world_size

    def variables(self) -> dict[str, str]:
        """Return it as the environment variables that torchrun sets."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "GROUP_RANK": str(self.node_rank),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
            "TORCHELASTIC_USE_AGENT_STORE": str(self.store_is_hosted),
        }


@contextmanager
def set_variables(values: Mapping[str, str]) -> Iterator[None]:
    """While inside, this process, and each that it starts, has these environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def detect(
    launcher: str = "auto", environ: Mapping[str, str] = os.environ, port: int | None = None
) -> RankEnvironment | None:
    """Return which rank this process is; None for a process on its own.

    Args:
        launcher: ``"pytorch"`` or ``"spawn"`` (torchrun's variables RANK, WORLD_SIZE, …), ``"slurm"`` (srun), ``"mpi"`` (Open
            MPI, MVAPICH, MPICH, Intel MPI), ``"none"``, or ``"auto"``: the one whose variables are there, None if none's are.
        environ: The environment variables.
        port: Where the processes meet, for slurm and mpi; by default MASTER_PORT, else a number derived from the job.

    Raises:
        ConfigError: A variable is missing or wrong; the message names all that are missing.
    """
    if launcher == "none":
        return None
    if launcher == "auto":
        found = next((name for name, recognised in _RECOGNISED.items() if recognised(environ)), None)
        return None if found is None else _READERS[found](environ, port)
    if launcher not in _READERS:
        raise ConfigError(
            f"there is no launcher '{launcher}'",
            mend=did_you_mean(launcher, ["auto", "none", *_READERS]) or f"known are auto, none, {', '.join(_READERS)}",
        )
    environment = _READERS[launcher](environ, port)
    return environment._replace(launcher="spawn") if launcher == "spawn" else environment


def _read_torch(environ: Mapping[str, str], port: int | None) -> RankEnvironment:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    _demand(
        environ,
        names,
        "pytorch",
        "start with `treenail launch` or torchrun, which set them; where each machine runs one process, LOCAL_RANK is 0 and "
        "LOCAL_WORLD_SIZE 1",
    )
    local_world_size = _number(environ, "LOCAL_WORLD_SIZE")
    rank = _number(environ, "RANK")
    node = "GROUP_RANK" if "GROUP_RANK" in environ else "NODE_RANK"
    return _checked(
        RankEnvironment(
            rank=rank,
            world_size=_number(environ, "WORLD_SIZE"),
            local_rank=_number(environ, "LOCAL_RANK"),
            local_world_size=local_world_size,
            node_rank=_number(environ, node) if node in environ else rank // max(local_world_size, 1),
            master_addr=environ["MASTER_ADDR"],
            master_port=_number(environ, "MASTER_PORT"),
            launcher="pytorch",
            store_is_hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        ),
        {
            "rank": "RANK",
            "world_size": "WORLD_SIZE",
            "local_rank": "LOCAL_RANK",
            "local_world_size": "LOCAL_WORLD_SIZE",
        },
    )


def _read_slurm(environ: Mapping[str, str], port: int | None) -> RankEnvironment:
    nodes_in = "SLURM_STEP_NODELIST" if "SLURM_STEP_NODELIST" in environ else "SLURM_NODELIST"
    size_in = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    tasks_in = "SLURM_STEP_TASKS_PER_NODE" if "SLURM_STEP_TASKS_PER_NODE" in environ else "SLURM_TASKS_PER_NODE"
    names = (
        "SLURM_PROCID",
        size_in,
        "SLURM_LOCALID",
        "SLURM_NODEID",
        nodes_in,
        tasks_in,
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
    )
    _demand(environ, names, "slurm", "start the ranks with srun: an sbatch script or salloc shell is none of them")
    if not _is_step(environ):
        raise ConfigError(
            "this is the job's own shell, not a step of it, so there are no other ranks",
            where=f"SLURM_STEP_ID={environ['SLURM_STEP_ID']}",
            mend="start the ranks with srun",
        )
    node_rank = _number(environ, "SLURM_NODEID")
    nodes = expand_nodes(environ[nodes_in], where=nodes_in)
    one_machine = len(nodes) == 1
    return _checked(
        RankEnvironment(
            rank=_number(environ, "SLURM_PROCID"),
            world_size=_number(environ, size_in),
            local_rank=_number(environ, "SLURM_LOCALID"),
            local_world_size=tasks_of_node(environ[tasks_in], node_rank, where=tasks_in),
            node_rank=node_rank,
            master_addr=LOOPBACK if one_machine else environ.get("MASTER_ADDR", nodes[0]),
            master_port=_port(environ, port, f"{environ['SLURM_JOB_ID']}.{environ['SLURM_STEP_ID']}"),
            launcher="slurm",
        ),
        {"rank": "SLURM_PROCID", "world_size": size_in, "local_rank": "SLURM_LOCALID", "local_world_size": tasks_in},
    )


def _read_mpi(environ: Mapping[str, str], port: int | None) -> RankEnvironment:
    family = max(_MPI, key=lambda each: sum(name in environ for name in each))
    rank, world_size, local_rank, local_world_size = family
    _demand(environ, family, "mpi", "start the ranks with mpirun or mpiexec")
    size, local_size = _number(environ, world_size), _number(environ, local_world_size)
    if local_size < size:
        _demand(environ, ("MASTER_ADDR",), "mpi", "set it to the host of rank 0: mpirun -x MASTER_ADDR=node1 …")
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid")
    return _checked(
        RankEnvironment(
            rank=_number(environ, rank),
            world_size=size,
            local_rank=_number(environ, local_rank),
            local_world_size=local_size,
            node_rank=_number(environ, rank) // max(local_size, 1),
            master_addr=environ.get("MASTER_ADDR", LOOPBACK),
            master_port=_port(environ, port, job),
            launcher="mpi",
        ),
        dict(zip(("rank", "world_size", "local_rank", "local_world_size"), family, strict=True)),
    )


_MPI: Final = (  # rank, world size, and both of this machine
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH and Intel MPI (Hydra)
)


def _is_step(environ: Mapping[str, str]) -> bool:
    """Return whether this is a task that srun started in a job; batch and interactive shells have step ids near 2**32."""
    step = environ.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < 0xFFFF_FFF0


def _is_rank_of_slurm(environ: Mapping[str, str]) -> bool:
    # `srun --pty bash` is a step as well, of one task: what is started in it is on its own.
    return "SLURM_PROCID" in environ and _is_step(environ) and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"


_Reader = Callable[[Mapping[str, str], int | None], RankEnvironment]
_READERS: Final[Mapping[str, _Reader]] = MappingProxyType(
    {"pytorch": _read_torch, "spawn": _read_torch, "slurm": _read_slurm, "mpi": _read_mpi}
)
_RECOGNISED: Final[Mapping[str, Callable[[Mapping[str, str]], bool]]] = MappingProxyType(
    {
        # torchrun may run in a step of Slurm, and mpirun starts its daemons as one, so the inner launcher is asked first.
        "pytorch": lambda environ: "RANK" in environ or "WORLD_SIZE" in environ,
        "mpi": lambda environ: any(all(name in environ for name in family) for family in _MPI),
        "slurm": _is_rank_of_slurm,
    }
)


def _demand(environ: Mapping[str, str], names: tuple[str, ...], launcher: str, mend: str) -> None:
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ConfigError(
            f"launcher '{launcher}' needs the environment variable{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            mend=mend,
        )


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not text.isascii() or not text.isdecimal():
        raise ConfigError(
            f"{text!r} is no whole number from 0", where=name, mend=f"correct the environment variable {name}"
        )
    return int(text)


def _port(environ: Mapping[str, str], port: int | None, job: str | None) -> int:
    """Return the port that all ranks of a job agree on, without talking to each other."""
    if port is not None:
        return port
    if environ.get("MASTER_PORT"):
        return _number(environ, "MASTER_PORT")
    if job is None:
        return _DEFAULT_PORT
    # Below 32768, where systems begin to hand out ports, and another for each job that shares the node.
    return 12_000 + zlib.crc32(job.encode()) % 20_000


def _checked(environment: RankEnvironment, names: Mapping[str, str]) -> RankEnvironment:
    """Refuse numbers that contradict each other."""
    for size in ("world_size", "local_world_size"):
        if getattr(environment, size) == 0:
            raise ConfigError("a world of 0 processes can do nothing", where=names[size], mend="it must be at least 1")
    for low, high in (("rank", "world_size"), ("local_rank", "local_world_size")):
        if getattr(environment, low) >= getattr(environment, high):
            raise ConfigError(
                f"{names[low]} is {getattr(environment, low)}, but {names[high]} is {getattr(environment, high)}",
                mend="ranks are numbered from 0, so the last is one less than their number",
            )
    if environment.local_world_size > environment.world_size:
        raise ConfigError(
            f"this machine has {environment.local_world_size} processes ({names['local_world_size']}), but all together are "
            f"{environment.world_size} ({names['world_size']})",
            mend="correct the environment variables",
        )
    if not 0 < environment.master_port < 2**16:
        raise ConfigError(f"there is no port {environment.master_port}", where="MASTER_PORT", mend="it is 1 to 65535")
    return environment


__all__ = ["LOOPBACK", "Launcher", "RankEnvironment", "detect", "set_variables"]

"""The seeds' ways into a distributed run: mmengine's `init_dist` and SCEPTER's working environment `we`."""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar, overload

import torch
import torch.distributed as dist

from treenail.adapters.launch.environment import detect
from treenail.adapters.launch.group import TIMEOUT, process_group
from treenail.adapters.launch.spawning import spawn
from treenail.kernel import ConfigError

T = TypeVar("T")

_FIVE_HOURS: Final = 5 * 3600.0  # SCEPTER's timeout
_SEED: Final = 2023  # SCEPTER's seed


def init_dist(launcher: str, backend: str = "nccl", **kwargs: object) -> None:
    """Initialise torch.distributed until the process ends (mmengine's `init_dist`).

    The start method of multiprocessing, which mmengine sets, stays as it is.

    Args:
        launcher: ``"pytorch"``, ``"slurm"`` or ``"mpi"``.
        backend: ``"nccl"``, ``"gloo"``, or any other that torch has.
        **kwargs: ``port`` (slurm, mpi) and ``timeout`` (a timedelta, or seconds); others go to `init_process_group`.

    Raises:
        ConfigError: The launcher is unknown, its variables are missing, the backend is not there, or the port is taken.
    """
    if launcher not in ("pytorch", "slurm", "mpi"):
        raise ConfigError(f"there is no launcher '{launcher}'", mend="known are pytorch, slurm, mpi")
    port, timeout = kwargs.pop("port", None), kwargs.pop("timeout", TIMEOUT)
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not isinstance(seconds, int | float):
        raise ConfigError(f"timeout={timeout!r} is no time", mend="give a timedelta, or seconds")
    stack = ExitStack()
    stack.enter_context(process_group(detect(launcher, port=_port(port)), backend, seconds, **kwargs))
    atexit.register(stack.close)


def _port(port: object) -> int | None:
    if port is None:
        return None
    text = str(port)  # a config may hold either
    if not text.isascii() or not text.isdecimal():
        raise ConfigError(f"port={port!r} is no port", mend="give a number from 1 to 65535")
    return int(text)


class _Value(Generic[T]):
    """A value of the working environment, read from the context."""

    def __init__(self, default: T) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        value: T = _ENVIRONMENT.get().get(self._name, self.default)
        return value

    def __set__(self, instance: object, value: T) -> None:
        _update({self._name: value})


# Anything may be set in it, under any name. `we` is imported by name wherever it is used, so it has to be one object of the
# module; what it shows is not: the values belong to the context that `init_env` runs the function in, and are gone afterwards.
# What the process is in torch's group (rank, world_size, initialized) is asked of torch, so that every thread sees it.
_ENVIRONMENT: ContextVar[Mapping[str, Any]] = ContextVar("treenail-work-environment", default=MappingProxyType({}))


def _update(values: Mapping[str, Any]) -> None:
    _ENVIRONMENT.set(MappingProxyType({**_ENVIRONMENT.get(), **values}))


class WorkEnv:
    """The environment that a task runs in (SCEPTER's `Workenv`), and the entry point that makes one."""

    is_distributed = _Value(default=False)
    """Whether there are several processes, or one in a process group."""
    sync_bn = _Value(default=False)
    """Whether batch norms are synchronised."""
    use_pl = _Value(default=False)
    """Whether Lightning runs the task, and so starts the processes."""
    data_online = _Value(default=False)
    """Whether data are read where they are, without copies on the disk."""
    share_storage = _Value(default=False)
    """Whether the machines have one file system."""
    device_id: _Value[int | str] = _Value(0)
    """The index of this process's GPU; "cpu" in a task without GPUs."""
    device_count = _Value(1)
    """How many devices this machine uses."""
    launcher: _Value[str | None] = _Value("spawn")
    """Who started the processes."""
    backend = _Value("")
    """Of the process group; empty where there is none."""
    seed = _Value(_SEED)
    """Of all random generators."""
    debug = _Value(default=False)
    """Whether the task is being debugged."""

    @property
    def initialized(self) -> bool:
        """Whether the process group is initialised."""
        return dist.is_initialized()

    @property
    def rank(self) -> int:
        """This process's number; 0 in a process on its own."""
        return dist.get_rank() if dist.is_initialized() else 0

    @property
    def world_size(self) -> int:
        """How many processes there are; 1 for a process on its own."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def init_env(
        self, config: Any, fn: Callable[..., T], logger: logging.Logger | None = None
    ) -> T:  # any shape of config
        """Set the environment up, run the task in it, and return what it returns (on rank 0, where this starts the processes).

        Under torchrun, srun or mpirun this process is one of the ranks. Otherwise it starts one process for each GPU of the
        machine, or as many as LOCAL_WORLD_SIZE says, and runs the task itself if that is one. Without GPUs they use gloo.

        Args:
            config: A mapping, or an object with attributes; all of it is optional. ENV holds SEED (2023), SYS_ENVS (environment
                variables), USE_PL, SYNC_BN and BACKEND; args holds launcher ("spawn", or as for `detect`).
            fn: Called with the config, or without arguments if it takes none.
            logger: Told how the task is run.

        Raises:
            ConfigError: A value of ENV is wrong, or the launcher's variables are.
            RankFailedError: A process that this started failed.
        """
        section = _of(config, "ENV", {})
        values = self._settings(config, section)
        os.environ.update({str(name): str(value) for name, value in dict(_of(section, "SYS_ENVS", {}) or {}).items()})
        backend = _of(section, "BACKEND", None)
        task = _Task(config, fn, values)
        environment = None if values["use_pl"] else detect(_launcher(values["launcher"]))
        processes = _processes() if environment is None and not values["use_pl"] else 1
        if logger is not None:
            how = f"{processes} processes of its own" if processes > 1 else f"launcher {values['launcher']}"
            logger.info("the task runs with %s", how)
        if processes > 1:
            values_of_ranks: list[T] = spawn(_run_spawned, processes, task, backend=backend, timeout=_FIVE_HOURS)
            return values_of_ranks[0]
        with process_group(environment, backend, _FIVE_HOURS):
            value: T = task.run(environment.local_world_size if environment else 1)
        return value

    def get_env(self) -> dict[str, Any]:
        """Return every value of the environment that can be pickled, None included."""
        names = [name for name, value in vars(WorkEnv).items() if isinstance(value, _Value | property)]
        found = {name: getattr(self, name) for name in names} | dict(_ENVIRONMENT.get())
        return {name: value for name, value in found.items() if _can_be_pickled(value)}

    def set_env(self, we_env: Mapping[str, Any]) -> None:
        """Set values by name, new ones, too; a seed seeds the generators. What torch.distributed says cannot be set.

        Args:
            we_env: As `get_env` returns it.
        """
        asked = {name for name, value in vars(WorkEnv).items() if isinstance(value, property)}
        _update({name: value for name, value in we_env.items() if name not in asked})
        if "seed" in we_env:
            _seed(we_env["seed"])

    def __getattr__(self, name: str) -> Any:
        """Return a value that `set_env` made."""
        try:
            return _ENVIRONMENT.get()[name]
        except KeyError:
            raise AttributeError(f"the working environment has no '{name}'; set_env gives it one") from None

    def __repr__(self) -> str:
        return f"WorkEnv({', '.join(f'{name}={value!r}' for name, value in sorted(self.get_env().items()))})"

    def _settings(self, config: Any, section: Any) -> dict[str, Any]:
        arguments = _of(config, "args", {})
        return {
            "seed": int(_of(section, "SEED", _SEED)),
            "use_pl": bool(_of(section, "USE_PL", False)),
            "sync_bn": bool(_of(section, "SYNC_BN", False)),
            "debug": bool(_of(section, "DEBUG", False)),
            "launcher": _of(arguments, "launcher", "spawn"),
            "data_online": _flag("DATA_ONLINE"),
            "share_storage": _flag("SHARE_STORAGE"),
        }


we = WorkEnv()
"""The documented name: ``we.init_env(config, fn)``. It holds no state of its own."""


class _Task:
    """What `init_env` runs, here or in a process that it starts."""

    def __init__(self, config: Any, fn: Callable[..., object], values: Mapping[str, Any]) -> None:
        self._config = config
        self._fn = fn
        self._values = dict(values)

    def run(self, device_count: int) -> Any:  # what the user's function returns
        distributed = dist.is_initialized()
        with _restored():
            _update(self._values)
            _update(
                {
                    "is_distributed": distributed,
                    "backend": dist.get_backend() if distributed else "",
                    "device_id": torch.cuda.current_device() if torch.cuda.is_available() else "cpu",
                    "device_count": device_count,
                }
            )
            _seed(self._values["seed"])
            return self._fn(self._config) if _takes_an_argument(self._fn) else self._fn()


def _run_spawned(task: _Task) -> Any:  # what the user's function returns
    return task.run(dist.get_world_size())


@contextmanager
def _restored() -> Iterator[None]:
    token = _ENVIRONMENT.set(_ENVIRONMENT.get())
    try:
        yield
    finally:
        _ENVIRONMENT.reset(token)


def _of(container: Any, name: str, default: Any) -> Any:
    """Return a value of a mapping or of an object with attributes, as the seeds' configs are."""
    if isinstance(container, Mapping):
        return container.get(name, default)
    return getattr(container, name, default)


def _launcher(name: str | None) -> str:
    # 'spawn' is SCEPTER's word for a program that starts its processes itself, unless torchrun did.
    return "auto" if name in ("spawn", "dist", None) else name


def _processes() -> int:
    wanted = os.environ.get("LOCAL_WORLD_SIZE")
    if wanted is None:
        return max(torch.cuda.device_count() if torch.cuda.is_available() else 1, 1)
    if not wanted.isascii() or not wanted.isdecimal() or int(wanted) < 1:
        raise ConfigError(f"{wanted!r} is no number of processes", where="LOCAL_WORLD_SIZE", mend="it is at least 1")
    return int(wanted)


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _seed(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)  # CUDA, too
    try:
        import numpy as np
    except ModuleNotFoundError:
        return  # nobody draws from it then
    np.random.seed(seed % 2**32)


def _takes_an_argument(function: Callable[..., object]) -> bool:
    from inspect import signature

    try:
        signature(function).bind(None)
    except TypeError:
        return False
    return True


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # whatever a type's own __reduce__ raises
        return False
    return True


__all__ = ["WorkEnv", "init_dist", "we"]

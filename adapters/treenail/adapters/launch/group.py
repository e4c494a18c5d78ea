"""The process group of torch.distributed, from the place that a launcher gave this process."""

from __future__ import annotations

import importlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from treenail.adapters.launch.environment import RankEnvironment
from treenail.adapters.launch.loopback import collectives_on_loopback, host_store, reach_store
from treenail.kernel import CommunicationError, ConfigError, did_you_mean

TIMEOUT: Final = 1800.0  # seconds; torch's own default for gloo

_PARTING: Final = 5.0  # seconds that a group is given to close after a failure


@contextmanager
def process_group(
    environment: RankEnvironment | None, backend: str | None = None, timeout: float = TIMEOUT, **options: object
) -> Iterator[None]:
    """Initialise torch.distributed while inside; the process's CUDA device is the one of its local rank.

    On one machine everything listens on loopback only. Every rank is waited for, and then every rank starts.

    Args:
        environment: This process's place, as `detect` returns it; with None there is no group.
        backend: Any that torch knows: ``"gloo"``, ``"nccl"``, ``"cpu:gloo,cuda:nccl"``, ``"mpi"``, ``"ucc"`` … By default gloo
            for tensors on the CPU and NCCL for those on GPUs, where each process of a machine has a GPU of its own; else gloo.
        timeout: Seconds that a rank waits for the others: here, and in each collective.
        **options: Further arguments of `torch.distributed.init_process_group`.

    Raises:
        ConfigError: The backend is not there, the port is taken, or there is a group already.
        CommunicationError: Ranks did not come within the timeout; the message says which.
    """
    if environment is None:
        yield
        return
    if dist.is_initialized():
        raise ConfigError(
            "there is a process group already", mend="leave it first: torch.distributed.destroy_process_group()"
        )
    if not 0 < timeout <= 1e7:
        raise ConfigError(f"a timeout of {timeout:g} s is none", mend="it is in seconds, above 0 and up to 1e7")
    check_backend(backend)
    with ExitStack() as stack:
        if environment.one_machine:
            stack.enter_context(collectives_on_loopback())
        device = _take_device(environment)
        meeting, shared = _meet(environment, timeout, device)
        chosen = _choose_backend(backend, shared=shared, environment=environment)
        # What is the default group when torch imports this (as the first optimizer does) stays its functions' default for ever,
        # and with it gloo's threads, which take the process down when they need the interpreter while it ends.
        importlib.import_module("torch.distributed.nn.functional")
        try:
            dist.init_process_group(
                chosen,
                store=PrefixStore("group", meeting.store),
                rank=environment.rank,
                world_size=environment.world_size,
                timeout=timedelta(seconds=timeout),
                # Whatever else the installed torch takes: it checks the names itself.
                **options,  # type: ignore[arg-type]
            )
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise CommunicationError(
                f"rank {environment.rank} cannot initialise backend '{chosen}': {error}",
                mend="try another backend; torch.distributed.init_process_group explains its arguments",
            ) from error
        try:
            yield
        except BaseException:
            meeting.give_up()
            _destroy_soon()
            raise
        _destroy()
        meeting.leave()


def available_backends() -> list[str]:
    """Return the backends of torch.distributed that this installation of torch has."""
    # 'fake' communicates nothing: it is for tests of torch itself.
    known = [name for name in dist.Backend.backend_list if name not in ("undefined", "fake")]
    return [name for name in known if dist.is_backend_available(name)]


def check_backend(backend: str | None) -> None:
    """Refuse a backend that this torch has not, before any rank waits for another.

    Raises:
        ConfigError: Says which there are.
    """
    if backend is None:
        return
    for part in backend.lower().split(","):
        name = part.rpartition(":")[2].strip()
        known = [each for each in dist.Backend.backend_list if each != "undefined"]
        if name not in known:
            raise ConfigError(
                f"torch knows no backend '{name}'",
                mend=did_you_mean(name, known) or f"this torch has {', '.join(available_backends())}",
            )
        if not dist.is_backend_available(name):
            raise ConfigError(
                f"this torch was built without backend '{name}'", mend=f"it has {', '.join(available_backends())}"
            )
        if name == "nccl" and not torch.cuda.is_available():
            raise ConfigError("backend 'nccl' needs a GPU, and this process sees none", mend="use backend 'gloo'")


def _take_device(environment: RankEnvironment) -> str | None:
    """Set the CUDA device by local rank; return what tells it from the others of the cluster."""
    if not torch.cuda.is_available():
        return None
    # A launcher that binds each process to its GPU shows it that one only.
    device = environment.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(device)
    name = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # torch < 2.5 does not tell
    return f"{environment.node_rank}/{name}" if name else None


def _choose_backend(backend: str | None, *, shared: bool, environment: RankEnvironment) -> str:
    if backend is not None:
        if shared and "nccl" in backend.lower():
            raise ConfigError(
                f"NCCL needs a GPU for each process, but some of the {environment.local_world_size} of this machine share one",
                mend=f"start at most {torch.cuda.device_count()} here, or use backend 'gloo'",
            )
        return backend.lower()
    both = torch.cuda.is_available() and dist.is_nccl_available() and not shared
    return "cpu:gloo,cuda:nccl" if both else "gloo"


def _meet(environment: RankEnvironment, timeout: float, device: str | None) -> tuple[_Meeting, bool]:
    deadline = time.monotonic() + timeout
    patience = timeout
    while True:
        meeting = _Meeting(environment, patience, timeout)
        try:
            return meeting, meeting.wait_for_all(device)
        except dist.DistError as error:
            # Where rank 0 hosts, this may have been the store of a group before, from which rank 0 went with an error.
            if environment.rank == 0 or time.monotonic() > deadline:
                raise CommunicationError(
                    f"rank {environment.rank} lost the store of the ranks: {error}", mend="see what became of rank 0"
                ) from error
        time.sleep(0.05)
        patience = max(deadline - time.monotonic(), 0.1)


class _Meeting:
    """Where ranks find each other: a key-value store, of the launcher or of rank 0."""

    def __init__(self, environment: RankEnvironment, patience: float, timeout: float) -> None:
        self._environment = environment
        self._patience = patience  # of this attempt to meet
        self._timeout = timeout
        self._hosts = environment.rank == 0 and not environment.store_is_hosted
        open_store = host_store if self._hosts else reach_store
        store = open_store(environment.master_addr, environment.master_port, patience)
        # A launcher's store outlives a group, and each group of the process needs keys of its own.
        self._count = store.add(f"treenail/groups/{environment.rank}", 1)
        self.store = PrefixStore(f"treenail/{self._count}", store)

    def wait_for_all(self, device: str | None) -> bool:
        """Wait until every rank is here; return whether two of them have the same GPU."""
        ranks = range(self._environment.world_size)
        self.store.set(f"here/{self._environment.rank}", device or "")
        if self._environment.rank == 0:
            self._wait([f"here/{rank}" for rank in ranks])
            devices = [device for device in (self.store.get(f"here/{rank}") for rank in ranks) if device]
            self.store.set("all", "shared" if len(set(devices)) < len(devices) else "own")
        else:
            self._wait(["all"])
        return bool(self.store.get("all") == b"shared")

    def give_up(self) -> None:
        """Say that this rank is gone after a failure, so that rank 0 does not wait for it."""
        if not self._hosts:
            with suppress(RuntimeError):
                self.store.add("left", 1)

    def leave(self) -> None:
        """Go, and where rank 0 hosts the store, together: it goes last, for the others may still read the store.

        The others wait until it is gone, so that none of them takes it for the store of the next group.
        """
        if self._environment.store_is_hosted:
            return
        if not self._hosts:
            where = (self._environment.master_addr, self._environment.master_port)
            with suppress(OSError), socket.create_connection(where, timeout=self._timeout) as connection:
                self.store.add("left", 1)
                connection.recv(1)  # the end of the connection is the end of the store
            return
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            if self.store.add("left", 0) == self._environment.world_size - 1:
                return
            time.sleep(0.02)

    def _wait(self, keys: list[str]) -> None:
        deadline = time.monotonic() + self._patience
        while not self.store.check(keys):
            if time.monotonic() > deadline:
                raise CommunicationError(
                    self._absent(), mend="see what became of them; a timeout of more seconds waits longer"
                )
            time.sleep(0.02)

    def _absent(self) -> str:
        rank, world_size = self._environment.rank, self._environment.world_size
        absent = [str(other) for other in range(world_size) if not self.store.check([f"here/{other}"])]
        who = f"rank{'s' if len(absent) > 1 else ''} {', '.join(absent[:20])}{' …' if len(absent) > 20 else ''}"
        return f"rank {rank} waited {self._timeout:g} s, but {who} of {world_size} did not come"


def _destroy() -> None:
    if dist.is_initialized():  # the body may have destroyed it
        dist.destroy_process_group()


def _destroy_soon() -> None:
    """Destroy the group after a failure; a backend that waits there for ranks that are gone is left to the process's end."""
    thread = threading.Thread(target=_destroy, name="destroy-process-group", daemon=True)
    thread.start()
    thread.join(_PARTING)


__all__ = ["TIMEOUT", "available_backends", "check_backend", "process_group"]

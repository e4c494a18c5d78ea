"""Ray as a launcher: a function on actors of a Ray cluster, each in the process group."""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from treenail.adapters.launch.collecting import SETTLE, collect
from treenail.adapters.launch.environment import LOOPBACK, RankEnvironment
from treenail.adapters.launch.failures import Failure
from treenail.adapters.launch.group import TIMEOUT
from treenail.adapters.launch.loopback import host_store
from treenail.adapters.launch.spawning import Died, check_processes, pack, run_in_group
from treenail.kernel import ConfigError, require

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def spawn_on_ray(
    function: Callable[[*Ts], T],
    processes: int,
    *arguments: *Ts,
    backend: str | None = None,
    timeout: float = TIMEOUT,
    cpus: float = 1,
    gpus: float = 0,
    placement: str = "PACK",
) -> list[T]:
    """Run a function on actors of the Ray cluster that this process is connected to; return their values in rank order.

    All actors get their place before one starts (a placement group); ranks are numbered machine by machine. Where one fails, the
    others are ended.

    Args:
        function: Called as ``function(*arguments)`` on every rank.
        processes: How many, at least 1.
        *arguments: What the function gets.
        backend: As for `process_group`.
        timeout: Seconds to wait for places in the cluster, for the other ranks, and in each collective.
        cpus: Of each actor.
        gpus: Of each actor.
        placement: Ray's strategy: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD.

    Raises:
        ConfigError: Ray is not connected, has no room, or what is sent cannot be pickled.
        RankFailedError: A rank failed; it says which, with the remote traceback.
        MissingDependencyError: Ray is not installed.
    """
    ray: Any = require("ray", extra="ray", purpose="starting ranks on Ray")  # it has no types for what is used here
    check_processes(processes)
    if not ray.is_initialized():
        raise ConfigError("this process is connected to no Ray cluster", mend="call ray.init() first, with its address")
    work = pack(function, arguments, ray.cloudpickle.dumps)  # functions of scripts and notebooks, too
    places = _reserve(ray, processes, cpus, gpus, placement, timeout)
    actors: list[Any] = []
    try:
        kind = ray.remote(_Rank)
        scheduling = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        for bundle in range(processes):
            options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
            actors.append(kind.options(scheduling_strategy=scheduling(places, bundle), **options).remote())
        hosts = ray.get([actor.host.remote() for actor in actors], timeout=timeout)
        # Ranks of one machine are neighbours, as torchrun numbers them.
        actors = [actor for _, actor in sorted(zip(hosts, actors, strict=True), key=lambda pair: pair[0])]
        hosts = sorted(hosts)
        master = LOOPBACK if len(set(hosts)) == 1 else hosts[0]
        port = ray.get(actors[0].host_store.remote(master, timeout), timeout=timeout)
        running = [
            actor.run.remote(environment, work, backend, timeout)
            for actor, environment in zip(actors, _environments(hosts, master, port), strict=True)
        ]
        waiting = {reference: rank for rank, reference in enumerate(running)}
        return [pickle.loads(answer) for answer in collect(processes, partial(_arrivals, ray, waiting))]
    finally:
        for actor in actors:
            with suppress(Exception):  # it may be gone already
                ray.kill(actor, no_restart=True)
        ray.util.remove_placement_group(places)


class _Rank:
    """The actor; it is Ray's that calls it, in a process of its own."""

    def host(self) -> str:
        ray: Any = require("ray", extra="ray", purpose="a rank")

        return str(ray.util.get_node_ip_address())

    def host_store(self, host: str, timeout: float) -> int:
        """Host the ranks' store as long as the actor lives; return its port, which cannot be taken meanwhile."""
        self._store = host_store(host, 0, timeout)
        return int(self._store.port)

    def run(self, environment: RankEnvironment, work: bytes, backend: str | None, timeout: float) -> bytes | Died:
        """Return the pickled value, or what the function died of."""
        os.environ.update(environment.variables())
        return run_in_group(environment, work, backend, timeout)


def _reserve(ray: Any, processes: int, cpus: float, gpus: float, placement: str, timeout: float) -> Any:
    bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    places = ray.util.placement_group([bundle] * processes, strategy=placement)
    if not places.wait(timeout_seconds=timeout):
        ray.util.remove_placement_group(places)
        has = ", ".join(f"{name} {amount:g}" for name, amount in sorted(ray.cluster_resources().items()))
        raise ConfigError(
            f"Ray found no room for {processes} processes of {cpus:g} CPUs and {gpus:g} GPUs within {timeout:g} s",
            mend=f"the cluster has {has}; ask for less, or wait longer",
        )
    return places


def _environments(hosts: Sequence[str], master: str, port: int) -> list[RankEnvironment]:
    sizes, seen, environments = Counter(hosts), Counter[str](), []
    nodes = list(dict.fromkeys(hosts))
    for rank, host in enumerate(hosts):
        environments.append(
            RankEnvironment(
                rank,
                len(hosts),
                local_rank=seen[host],
                local_world_size=sizes[host],
                node_rank=nodes.index(host),
                master_addr=master,
                master_port=port,
                launcher="spawn",
                store_is_hosted=True,
            )
        )
        seen[host] += 1
    return environments


def _arrivals(ray: Any, waiting: dict[Any, int], patience: float | None) -> Iterator[tuple[int, bytes | Failure]]:
    """Wait for a rank's end; yield its answer, and take it out of those that are waited for."""
    for reference in ray.wait(list(waiting), num_returns=1, timeout=patience)[0]:
        rank = waiting.pop(reference)
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayError as error:  # the actor's process ended
            first_line = str(error).partition("\n")[0]
            yield rank, Failure(rank, 1, first_line, "", time.time() - SETTLE)
        else:
            yield rank, answer if isinstance(answer, bytes) else Failure(rank, 1, *answer)


__all__ = ["spawn_on_ray"]

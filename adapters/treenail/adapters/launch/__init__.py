"""Processes that work together: recognised, started, and joined to a process group of torch.distributed."""

from treenail.adapters.launch.compat import WorkEnv, init_dist, we
from treenail.adapters.launch.elastic import GRACE, LAUNCH_ID, Machines, become_rank, count_processes, launch
from treenail.adapters.launch.environment import Launcher, RankEnvironment, detect
from treenail.adapters.launch.failures import RankFailedError, describe, report_failure
from treenail.adapters.launch.group import TIMEOUT, available_backends, process_group
from treenail.adapters.launch.ray import spawn_on_ray
from treenail.adapters.launch.spawning import spawn

__all__ = [
    "GRACE",
    "LAUNCH_ID",
    "TIMEOUT",
    "Launcher",
    "Machines",
    "RankEnvironment",
    "RankFailedError",
    "WorkEnv",
    "available_backends",
    "become_rank",
    "count_processes",
    "describe",
    "detect",
    "init_dist",
    "launch",
    "process_group",
    "report_failure",
    "spawn",
    "spawn_on_ray",
    "we",
]

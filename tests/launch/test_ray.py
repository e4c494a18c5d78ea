"""Ranks on actors of a real Ray, started on this machine and bound to loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.ranks import look
from treenail.adapters.launch import spawn_on_ray
from treenail.kernel import MissingDependencyError

ROOT = Path(__file__).parents[2]
HAS_RAY = importlib.util.find_spec("ray") is not None

# Ray is started by a process of its own: it changes handlers of signals and of exits, and stays in its process for good.
PROGRAM = """
import json, os, time
import ray
import torch, torch.distributed as dist
from tests.launch.listening import is_loopback, listening_addresses
from tests.launch.ranks import fail_on
from treenail.adapters.launch import spawn_on_ray

def attempt(function, processes, *arguments, **options):
    try:
        return spawn_on_ray(function, processes, *arguments, **options)
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "remote_traceback", "")]

def add(number):  # of a script: its machines do not have it
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    dist.barrier()
    beyond = [each for each in listening_addresses(os.getpid()) if not is_loopback(each)]
    return [dist.get_rank(), dist.get_world_size(), total.item() + number, dist.get_backend(), beyond]

found = {"unconnected": attempt(add, 1, 0.0)}
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20, logging_level="error")
found["values"] = attempt(add, 2, 10.0)
found["raised"] = attempt(fail_on, 2, 1, "raise")
found["killed"] = attempt(fail_on, 2, 1, "kill")
found["no room"] = attempt(add, 3, 0.0, timeout=1.0)
ray.shutdown()
print(json.dumps(found))
"""


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'treenail[ray]'")
def test_ranks_on_ray(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's way to say: on loopback
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["unconnected"][:2] == [
        "ConfigError",
        "this process is connected to no Ray cluster; call ray.init() first, with its address",
    ]
    assert [value[:4] for value in found["values"]] == [[0, 2, 11.0, "gloo"], [1, 2, 11.0, "gloo"]]
    assert [value[4] for value in found["values"]] == [[], []]
    assert found["raised"][:2] == ["RankFailedError", "rank 1 of 2 failed: ValueError: image 3 is torn"]
    assert "in fail_on" in found["raised"][2]
    assert found["killed"][0] == "RankFailedError"
    assert found["killed"][1].startswith("rank 1 of 2 ")
    assert found["no room"][0] == "ConfigError"
    assert "no room for 3 processes of 1 CPUs and 0 GPUs within 1 s; the cluster has CPU 2" in found["no room"][1]


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_error_names_the_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r"starting ranks on Ray needs the package 'ray'.*treenail\[ray\]"):
        spawn_on_ray(look, 2, None)

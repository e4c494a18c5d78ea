"""How a rank's process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.listening import free_port
from tests.processes import SECONDS

ROOT = Path(__file__).resolve().parents[2]

# What is registered first runs last, right before the interpreter ends.
RANK = """
import atexit
from pathlib import Path

@atexit.register
def threads_of_gloo():
    names = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    print("at the end:", sorted(name for name in names if "gloo" in name))

import torch
from torch import nn
from treenail.adapters.comm import TorchCommunicator
from treenail.adapters.launch import detect, process_group

def train():
    with process_group(detect()):
        communicator = TorchCommunicator()
        model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
        model.own = model, communicator  # as whatever a run is made of refers to each other
        model(torch.ones(3, 2)).sum().backward()
        print("sum:", int(communicator.all_reduce(torch.tensor(1))))
    {end}

train()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not name threads in /proc")
@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise SystemExit(3)", 3)])
def test_threads_of_gloo_end_before_the_interpreter(end: str, code: int) -> None:
    """One that needs the interpreter then takes the process down: gloo frees tensors after whoever waited goes on."""
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    rank |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    done = subprocess.run(
        [sys.executable, "-c", RANK.replace("{end}", end)],
        cwd=ROOT,
        env={**os.environ, **rank},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "sum: 1\nat the end: []\n"), done.stderr

"""However a program ends, its loader processes end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

PROGRAM = """
import errno, gc, json, multiprocessing, os, sys, threading, time
import torch.utils.data
from treenail.adapters.data import Loader
from treenail.adapters.sampling import SequentialSampler

torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # not 5 s, in which stuck workers may end by themselves

class Numbers:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        while index == stuck_at:
            time.sleep(3600)
        return index

def make():
    return Loader(Numbers(), SequentialSampler(Numbers()), batch_size=2, num_workers=2)

def print_workers():
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)

def started(batches):
    next(batches)
    print_workers()

stuck_at = None
ends = json.loads(sys.argv[1])
programs = {}
for number, end in enumerate(ends):
    if not (program := os.fork()):
        for stream in (1, 2):
            os.dup2(os.open(f"{number}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        break
    programs[program] = number
else:
    codes = [None] * len(ends)
    deadline = time.monotonic() + 60
    while programs and time.monotonic() < deadline:
        program, status = os.waitpid(-1, os.WNOHANG)
        if program:
            codes[programs.pop(program)] = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.05)
    for program in programs:
        os.kill(program, 9)
    print(json.dumps(codes))
    sys.exit()
exec(ends[number])
"""
"""Forks a program for each end, which prints the process ids of its workers; prints how each of them ended."""

ENDS = {
    "all was loaded": "loader = make(); batches = iter(loader); started(batches); list(batches)",
    "the iterator is under way": "loader = make(); batches = iter(loader); started(batches)",
    "only the iterator was kept": "batches = iter(make()); started(batches)",
    "an exception": "loader = make(); batches = iter(loader); started(batches); raise ValueError(batches)",
    "an exit": "loader = make(); batches = iter(loader); started(batches); sys.exit(3)",
    "another thread iterates": """
loader = make()
ready = threading.Event()
def iterate():
    batches = iter(loader)
    started(batches)
    ready.set()
    for _ in batches: time.sleep(0.1)
threading.Thread(target=iterate, daemon=True).start()
ready.wait()
""",
    "a cycle of references was collected": """
loader = make(); batches = iter(loader); started(batches)
cycle = [loader, batches]; cycle.append(cycle)
del loader, batches, cycle
gc.collect()
assert not multiprocessing.active_children(), "they are not waited for"
""",
    "a forked process ended before": """
loader = make(); batches = iter(loader); started(batches)
if not (process := os.fork()):
    del batches, loader
    os._exit(0)
assert os.waitpid(process, 0)[1] == 0
assert [int(number) for batch in batches for number in batch] == list(range(2, 64)), "its workers ended with the fork"
""",
    "a worker is stuck in a sample": """
stuck_at = 8
loader = make(); batches = iter(loader); started(batches)
for _ in range(3): next(batches)
""",
    "the second worker could not be started": """
fork = os.fork
def fork_once():
    if multiprocessing.active_children():
        print_workers()
        raise OSError(errno.EAGAIN, "too many processes")
    return fork()
os.fork = fork_once
loader = make(); iter(loader)
""",
}
CODES = {"an exception": 1, "an exit": 3, "the second worker could not be started": 1}


class Ended(NamedTuple):
    """How a program ended; the code is None where it hung."""

    code: int | None
    output: str
    errors: str


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    directory = tmp_path_factory.mktemp("programs")
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(ENDS.values()))]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, text=True, timeout=100, check=True)
    said = [[(directory / f"{number}.{stream}").read_text() for stream in (1, 2)] for number in range(len(ENDS))]
    return {end: Ended(code, *texts) for end, code, texts in zip(ENDS, json.loads(done.stdout), said, strict=True)}


@pytest.mark.parametrize("end", ENDS)
def test_loader_processes_end_with_the_program(programs: dict[str, Ended], end: str) -> None:
    code, output, errors = programs[end]
    assert code == CODES.get(end, 0), errors
    workers = [int(word) for word in output.split()]
    assert len(workers) == (1 if end == "the second worker could not be started" else 2)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)

"""The command in a new process: a fresh one, or one that was forked where torch had been imported, which is quicker."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.parallel.forks import fork_server

from treenail.adapters.cli import main

_PATIENCE = 120.0  # seconds without a word


class Done(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it said."""

    code: int
    said: str


def run_fresh(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    command = [sys.executable, "-m", "treenail.adapters.cli", *arguments]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    return Done(done.returncode, done.stderr)


def run_forked(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    context = fork_server()
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_command, args=(list(arguments), dict(environment), writer))
    process.start()
    writer.close()
    said = bytearray()
    while reader.poll(_PATIENCE):  # to its end: loader workers outlive a killed process for a while, and hold its lock
        if not (block := os.read(reader.fileno(), 1 << 16)):
            process.join()
            return Done(process.exitcode or 0, said.decode())
        said += block
    process.kill()
    raise TimeoutError(f"{' '.join(arguments)}: {said.decode()}")


def _command(arguments: list[str], environment: dict[str, str], output: Connection) -> None:
    multiprocessing.set_start_method(None, force=True)  # the fork server's would be that of loader workers, too
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.exit(main(arguments))

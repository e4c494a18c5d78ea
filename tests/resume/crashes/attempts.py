"""One attempt at a training, in a process that can be watched and disturbed."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.parallel.forks import fork_server

from treenail.adapters.cli import main

PATIENCE = 120.0
"""Seconds after which an attempt is taken for stuck."""
_ASKS = threading.Lock()
"""Held to ask after a process, and to start one, which asks after all: of two that ask at once, one is told 255."""
_OBEYS_MODES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, without which root obeys the modes of files, too


class Attempt:
    """A command under way.

    Args:
        arguments: Of ``treenail``.
        output: File that gets what it says.
        environment: Variables besides this process's own.
        is_fresh: Start a new interpreter, for what acts when one starts.
        obeys_modes: Let it obey the modes of files although it is root's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        environment: Mapping[str, str],
        *,
        is_fresh: bool = False,
        obeys_modes: bool = False,
    ) -> None:
        self.output = output
        self._process: BaseProcess | subprocess.Popen[bytes]
        if is_fresh:
            command = [sys.executable, "-m", "treenail.adapters.cli", *arguments]
            with output.open("wb") as file:
                self._process = subprocess.Popen(
                    command, env={**os.environ, **environment}, stdout=file, stderr=file, stdin=subprocess.DEVNULL
                )
        else:
            self._process = fork_server().Process(
                target=_command, args=(list(arguments), output, dict(environment), obeys_modes)
            )
            with _ASKS:
                self._process.start()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        process = self._process
        if isinstance(process, subprocess.Popen):
            return process.poll()
        with _ASKS:
            return process.exitcode

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def send(self, number: int, process: int | None = None) -> None:
        """Send it, or a process of its, a signal."""
        if self.code is None and self._process.pid is not None:
            os.kill(process or self._process.pid, number)

    def children(self) -> list[int]:
        """Return the processes that it has started, but for multiprocessing's own."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with suppress(OSError):
            return [
                int(each)
                for each in path.read_text().split()
                if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes()
            ]
        return []

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Wait until a condition holds or the attempt ends; return whether it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.code is not None:
                return condition()
            self._check(deadline)
            time.sleep(0.0005)
        return True

    def wait(self) -> int:
        """Wait until it ends; return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.code is None:
            self._check(deadline)
            time.sleep(0.005)
        return self.code

    def end(self) -> None:
        """Kill it if it still runs."""
        self.send(signal.SIGKILL)
        self.wait()

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.send(signal.SIGKILL)
            raise TimeoutError(f"an attempt was stuck:\n{self.said}")


def _command(arguments: list[str], output: Path, environment: dict[str, str], obeys_modes: bool) -> None:
    multiprocessing.set_start_method(None, force=True)  # the fork server's would be that of loader workers, too
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    if obeys_modes and os.geteuid() == 0:
        _drop_capabilities(_OBEYS_MODES)
    sys.exit(main(arguments))


def _drop_capabilities(numbers: Sequence[int]) -> None:
    """Take capabilities from this process (capset(2), version 3 of its interface)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    mask = ~sum(1 << number for number in numbers) & 0xFFFFFFFF
    for index in (0, 1, 2):
        sets[index] &= mask
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def last_step(work_dir: Path) -> int:
    """Return the last committed step of a training, as its curves tell it; 0 before the first."""
    try:
        tail = (work_dir / "jsonlines" / "scalars.jsonl").read_bytes()[-4096:]
    except OSError:
        return 0
    for line in reversed(tail.split(b"\n")[:-1]):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):  # torn by a crash, or cut off at the beginning of the tail
            continue
    return 0

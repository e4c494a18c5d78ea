"""Real servers on loopback for tests: found, started, awaited, and ended."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[2] / ".servers" / "bin"


def find_server(name: str) -> Path:
    """Return where a server's program lies, or skip the test with the command that brings it."""
    if (unpacked := UNPACKED / name).exists():
        return unpacked
    if found := shutil.which(name):
        return Path(found)
    pytest.skip(f"there is no {name}; run scripts/servers, or put it on the PATH")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | os.PathLike[str]],
    port: int,
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    patience: float = 60.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the block, from the moment that it accepts connections on a port of 127.0.0.1.

    Args:
        command: The program and its arguments; it must stay in the foreground.
        port: Where it listens.
        log: A file that takes what it prints.
        environment: Added to this process's environment.
        patience: How long it may take to start, in seconds.

    Raises:
        AssertionError: It ended, or does not listen; the message has the end of its log.
    """
    guard = shutil.which("setpriv")  # Linux has it: the server ends with this process, even if that is killed
    with log.open("ab") as output:
        server = subprocess.Popen(
            [*([guard, "--pdeathsig", "TERM"] if guard else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
        )
    try:
        _await(server, port, log, time.monotonic() + patience)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await(server: subprocess.Popen[bytes], port: int, log: Path, deadline: float) -> None:
    while True:
        ended = server.poll() is not None
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                assert not ended, f"something else listens on port {port}"
                return
        except OSError:
            pass
        printed = log.read_text(errors="replace")[-2000:]
        assert not ended, f"{server.args!r} ended with {server.returncode}:\n{printed}"
        assert time.monotonic() < deadline, f"{server.args!r} does not listen on port {port}:\n{printed}"
        time.sleep(0.01)

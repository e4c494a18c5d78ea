"""The command `treenail` as pages call it, without the seconds that each of its processes would import torch for.

A server has imported what the command needs. Each call is a fork of it, with the arguments, the directory, the environment and
the streams of whoever called; the script that was called passes signals on to it, and ends as it does.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # after which the server is taken for stuck

_SIZE = 8  # bytes in which the length of a call is sent

_CALL = f"""
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
call = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(call).to_bytes({_SIZE}, "big")], [0, 1, 2])
server.sendall(call)
answers = server.makefile()
process = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.killpg(process, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def commands_served(environment: Mapping[str, str]) -> Iterator[Path]:
    """Serve the command while inside.

    Args:
        environment: Of the server: what Python itself and libraries read when they are imported.

    Yields:
        The directory of the script, for PATH.
    """
    with (
        TemporaryDirectory(prefix="treenail-") as name,  # an address has at most about 100 bytes
        socket.socket(socket.AF_UNIX) as listener,
    ):
        address, call, script = (Path(name) / part for part in ("socket", "call.py", "treenail"))
        call.write_text(_CALL)
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{call}" "{address}" "$@"\n')
        script.chmod(0o755)
        listener.bind(str(address))
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno())],
            cwd=ROOT,
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
        )
        try:
            yield script.parent
        finally:
            assert server.stdin is not None
            server.stdin.write(b"\n")  # an end alone goes unnoticed while a process forked meanwhile has the pipe, too
            server.stdin.close()
            assert server.wait(SECONDS) == 0


def _serve(listener: socket.socket) -> list[str] | None:
    """Take calls until stdin ends; return the arguments where this process has become a call."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that pass on how calls end
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if listener not in ready:
            return None
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            return _be_called(connection)
        connection.close()


def _be_called(connection: socket.socket) -> list[str]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, _SIZE, 3)
    with connection.makefile("rb") as sent:
        arguments, directory, environment = json.loads(sent.read(int.from_bytes(size, "big")))
    process = os.fork()
    if process:
        os.setpgid(process, process)
        connection.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    importlib.invalidate_caches()
    # Processes that it spawns would import this module, as they do the script of the command.
    main = sys.modules["__main__"]
    main.__spec__ = None
    del main.__file__
    return list(arguments)


def _main() -> int:
    for module in ("torch._dynamo", "treenail.adapters.cli.commands", "treenail.adapters.runtime"):
        importlib.import_module(module)
    from treenail.adapters.cli.main import main

    with socket.socket(fileno=int(sys.argv[1])) as listener:
        arguments = _serve(listener)
    if arguments is None:
        return 0
    sys.argv = ["treenail", *arguments]
    return main()


if __name__ == "__main__":
    sys.exit(_main())

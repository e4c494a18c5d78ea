"""The commands `treenail` and `python` as pages call them, without the seconds that each process would import torch for.

A server has imported what they need. Each call is a fork of it, with the arguments, the directory, the environment and the
streams of whoever called; the script that was called passes signals on to it, and ends as it does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
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

_IMPORTED = (
    "torch._dynamo",  # which the first optimizer of a process would import
    "torch.utils.tensorboard",
    "sklearn.datasets",
    "treenail.adapters.cli.commands",
    "treenail.adapters.config.make",
    "treenail.adapters.runtime",
)
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
    """Serve the commands while inside.

    Args:
        environment: Of the server: what Python itself and libraries read when they are imported.

    Yields:
        The directory of their scripts, for PATH.
    """
    with (
        TemporaryDirectory(prefix="treenail-") as name,  # an address has at most about 100 bytes
        socket.socket(socket.AF_UNIX) as listener,
    ):
        address, call, scripts = (Path(name) / part for part in ("socket", "call.py", "bin"))
        call.write_text(_CALL)
        scripts.mkdir()
        for command in ("treenail", "python"):
            script = scripts / command
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{call}" "{address}" {command} "$@"\n')
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
            yield scripts
        finally:
            assert server.stdin is not None
            server.stdin.write(b"\n")  # an end alone goes unnoticed while a process forked meanwhile has the pipe, too
            server.stdin.close()
            assert server.wait(SECONDS) == 0


def _serve(listener: socket.socket) -> list[str] | None:
    """Take calls until stdin ends; return the command and its arguments where this process has become a call."""
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
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # a collection in a forked process would write to all of these objects, and so copy their memory
    from treenail.adapters.cli.main import main

    with socket.socket(fileno=int(sys.argv[1])) as listener:
        called = _serve(listener)
    if called is None:
        return 0
    command, *arguments = called
    if command == "python":
        return _be_python(*arguments)
    sys.argv = ["treenail", *arguments]
    return main()


def _be_python(first: str, *rest: str) -> int:
    """Run ``-m MODULE``, ``-c CODE`` or a script with its arguments."""
    if first == "-m":
        sys.argv = list(rest)
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = [first, *rest[1:]]
        sys.path.insert(0, "")
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(_main())

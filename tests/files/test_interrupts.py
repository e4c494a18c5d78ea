"""Ctrl-C while a store says nothing any more."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.files.s3_server import KEYS

PATIENCE = 30.0  # seconds; the stores below would be waited for much longer
BEGIN = """
import socket, sys
from treenail.adapters.files import MemoryFiles, Mounts, get_many, sync
from treenail.adapters.files.objects import ObjectFiles
port, folder = int(sys.argv[1]), sys.argv[2]

class Stalled(MemoryFiles):
    def read(self, path, start=0, length=None):
        return socket.create_connection(("127.0.0.1", port)).recv(1)

mounts = Mounts()
stalled = Stalled()
stalled.write("a", b"a")
mounts.mount("stalled://x", stalled)
bucket = ObjectFiles("s3://bucket", endpoint=f"http://127.0.0.1:{port}", timeout=600.0)
"""


@pytest.mark.parametrize(
    "call",
    [
        "bucket.read('x')",
        "bucket.write('x', b'content')",
        "next(bucket.list())",
        "next(bucket.read_many(['x', 'y'], concurrency=2))",
        "list(get_many([f'http://127.0.0.1:{port}/{each}' for each in range(4)]))",
        "sync('stalled://x', folder, mounts=mounts)",
    ],
)
def test_a_stalled_store_does_not_outlast_ctrl_c(call: str, tmp_path: Path) -> None:
    """The listener answers nothing; it is also how the test knows that the call is under way."""
    environment = {**os.environ, **KEYS, "AWS_DEFAULT_REGION": "us-east-1"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        command = [sys.executable, "-c", BEGIN + call, str(port), str(tmp_path / "target")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
            try:
                silent, _ = listener.accept()
                # The call is under way; an interrupt while Python imports or starts a thread may be lost in Python itself.
                time.sleep(1.0)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=PATIENCE)
                silent.close()
            finally:
                process.kill()
    assert process.returncode == -signal.SIGINT, said
    assert "KeyboardInterrupt" in said

"""A real memcached on loopback."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.files.servers import find_server, free_port, running


@contextmanager
def memcached_running(work: Path) -> Iterator[str]:
    """Run a memcached of 64 MB for the block; gives its ``host:port``.

    Args:
        work: A directory that takes what it prints.
    """
    port = free_port()
    # It refuses to run as root unless the user is named.
    command: list[str | Path] = [find_server("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64"]
    with running([*command, "-u", getpass.getuser()], port, log=work / "memcached.log"):
        yield f"127.0.0.1:{port}"

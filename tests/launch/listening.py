"""What a process listens on, as Linux tells it, and ports to listen on."""

import os
import random
import socket
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"


def free_port() -> int:
    """Return a port of loopback that nobody has, and that the system gives to nobody who asks for any."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def listening_addresses(pid: int) -> list[str]:
    """Return the addresses of the sockets that a process listens on, in the kernel's hexadecimal."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                found.append(fields[1].partition(":")[0])
    return found


def is_loopback(address: str) -> bool:
    """Return whether an address of `listening_addresses` is 127.x.x.x, ::1 or ::ffff:127.x.x.x."""
    return address[-2:] == "7F" if len(address) == 8 else address == V6_LOOPBACK or address[-2:] == "7F"


V6_LOOPBACK = "00000000000000000000000001000000"

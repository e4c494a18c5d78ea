"""Runs pytest on the tests of object stores while OpenStack Swift serves S3 on loopback.

Source: Swift's deployment guide and its "S3/Swift REST API comparison matrix".
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.files.s3_server import S3Server
from tests.files.servers import UNPACKED, free_port, running

KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing"}
STORES = ("account", "container", "object")

_COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {etc}/devices
mount_check = false
fallocate_reserve = 0
log_address = /dev/null
"""

_STORE = """
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

_PROXY = """
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def main(programs: Path, arguments: list[str]) -> int:
    """Start one Swift with one replica, make a bucket, and run the tests.

    Args:
        programs: The directory with Swift's programs.
        arguments: For pytest, besides the files.

    Returns:
        pytest's exit status.
    """
    with tempfile.TemporaryDirectory(prefix="treenail-s3-") as folder, ExitStack() as servers:
        etc, ports = Path(folder), {name: free_port() for name in (*STORES, "proxy", "memcached")}
        (etc / "devices" / "disk").mkdir(parents=True)
        hashes = "[swift-hash]\nswift_hash_path_prefix = loopback\nswift_hash_path_suffix = loopback\n"
        (etc / "swift.conf").write_text(hashes)
        memcached = (UNPACKED / "memcached", "-l", "127.0.0.1", "-p", str(ports["memcached"]), "-u", _user())
        servers.enter_context(running(memcached, ports["memcached"], log=etc / "memcached.log"))
        for name in (*STORES, "proxy"):
            own = _PROXY if name == "proxy" else _STORE
            config = (_COMMON + own).format(
                name=name, port=ports[name], etc=etc, user=_user(), memcached=ports["memcached"]
            )
            (etc / f"{name}.conf").write_text(config)
            if name != "proxy":
                _ring(programs, etc, name, ports[name])
        for name in (*STORES, "proxy"):
            command = (programs / f"swift-{name}-server", etc / f"{name}.conf")
            servers.enter_context(running(command, ports[name], log=etc / f"{name}.log"))
        server = S3Server(f"http://127.0.0.1:{ports['proxy']}", "laws", KEYS, real=True)
        server.client().create_bucket(Bucket=server.bucket)
        settings = {
            "TREENAIL_S3_ENDPOINT": server.endpoint,
            "TREENAIL_S3_BUCKET": server.bucket,
            # Swift looks whether there is an object, then writes: of two creators at once both may succeed.
            "TREENAIL_S3_CREATORS_RACE": "1",
        }
        tests = ("-m", "pytest", "tests/files/test_objects.py", *arguments)
        return subprocess.run((sys.executable, *tests), env=os.environ | KEYS | settings, check=False).returncode


def _ring(programs: Path, etc: Path, name: str, port: int) -> None:
    """Write down where a kind of data lies: on one device, once."""
    builder = etc / f"{name}.builder"
    for step in (
        ("create", "4", "1", "0"),
        ("add", f"r1z1-127.0.0.1:{port}/disk", "1"),
        ("rebalance",),
    ):
        command = (programs / "swift-ring-builder", builder, *step)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode > 1:  # 1 is a warning
            raise SystemExit(f"swift-ring-builder {step[0]}: {done.stdout}{done.stderr}")


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

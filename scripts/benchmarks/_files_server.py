"""The server of the benchmark `files`: nginx on loopback, which answers reads, uploads in parts and lists as S3 does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

OBJECT_SIZE = 100_000
PART = 8 * 1024**2  # bytes
_PAGE = 1000
_UNPACKED = Path(__file__).parents[2] / ".servers" / "bin" / "nginx"

# One process, which ends when it is told to. "up" takes uploads, each part of which replaces the one before; "list" has
# pages that were written before, and "page" the last of them.
_CONFIG = """
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {work}/temporary;
    proxy_temp_path {work}/temporary;
    fastcgi_temp_path {work}/temporary;
    uwsgi_temp_path {work}/temporary;
    scgi_temp_path {work}/temporary;
    types {{ }}
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        root "{served}";
        location /up/ {{
            dav_methods PUT;
            create_full_put_path on;
            add_header ETag '"0"' always;
            set $answer "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            if ($arg_uploadId) {{
                set $answer "<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>";
            }}
            if ($request_method = POST) {{ return 200 $answer; }}
        }}
        location = /list {{
            set $page 0;
            if ($args ~ "continuation-token=([0-9]+)") {{ set $page $1; }}
            rewrite ^ /pages/$page.xml break;
        }}
        location = /page {{ rewrite ^ /pages/last.xml break; }}
    }}
}}
"""


class Scale(NamedTuple):
    """How much is served.

    Args:
        objects: Small objects, of 100,000 bytes each.
        large: Bytes of the large object; a multiple of a part.
        keys: Names in the bucket that is listed; a multiple of 1,000.
    """

    objects: int
    large: int
    keys: int

    def names(self) -> list[str]:
        """Return the keys of the small objects."""
        return [f"small/{number:05d}" for number in range(self.objects)]


FULL = Scale(objects=2000, large=1024**3, keys=100_000)
QUICK = Scale(objects=20, large=2 * PART, keys=5000)


@contextmanager
def serving(folder: Path, scale: Scale) -> Iterator[str]:
    """Serve "bucket" (small/…, large, a megabyte), "up", "list" and "page" below an empty folder; give the endpoint."""
    served, work = folder / "www", folder / "work"
    for each in (work, served / "bucket" / "small", served / "up", served / "pages"):
        each.mkdir(parents=True)
    content = os.urandom(OBJECT_SIZE)
    for name in scale.names():
        (served / "bucket" / name).write_bytes(content)
    (served / "bucket" / "megabyte").write_bytes(os.urandom(1024**2))
    with (served / "bucket" / "large").open("wb") as file:
        for _ in range(scale.large // PART):
            file.write(os.urandom(PART))
    pages = scale.keys // _PAGE
    for number in range(pages):
        (served / "pages" / f"{number}.xml").write_text(_page(number, last=number == pages - 1))
    (served / "pages" / "last.xml").write_text(_page(pages - 1, last=True))
    with _nginx(served, work) as endpoint:
        yield endpoint


def _page(number: int, *, last: bool) -> str:
    objects = "".join(
        f"<Contents><Key>{key:08d}</Key><Size>1</Size><ETag>0</ETag>"
        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in range(number * _PAGE, (number + 1) * _PAGE)
    )
    more = "" if last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
    return (
        f"<ListBucketResult><IsTruncated>{'false' if last else 'true'}</IsTruncated>{more}{objects}</ListBucketResult>"
    )


@contextmanager
def _nginx(served: Path, work: Path) -> Iterator[str]:
    program = str(_UNPACKED) if _UNPACKED.exists() else shutil.which("nginx")
    if program is None:
        raise SystemExit("there is no nginx; run scripts/servers, or put it on the PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config, log = work / "nginx.conf", work / "nginx.log"
    config.write_text(_CONFIG.format(work=work, port=port, served=served))
    guard = shutil.which("setpriv")  # Linux has it: the server ends with this process, even if that is killed
    command = [*([guard, "--pdeathsig", "TERM"] if guard else []), program, "-p", str(work), "-c", str(config)]
    with log.open("ab") as output:
        server = subprocess.Popen([*command, "-e", "stderr"], stdout=output, stderr=output)
    try:
        _await(server, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _await(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise SystemExit(f"nginx does not listen on port {port}:\n{log.read_text(errors='replace')[-2000:]}")

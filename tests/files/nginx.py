"""A real nginx on loopback that serves a directory."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.files.servers import find_server, free_port, running

# One process in the foreground: it keeps the user that it was started by, and ends when it is told to.
_CONFIG = """
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log {access_log};
    client_body_temp_path {work}/temporary;
    proxy_temp_path {work}/temporary;
    fastcgi_temp_path {work}/temporary;
    uwsgi_temp_path {work}/temporary;
    scgi_temp_path {work}/temporary;
    types {{ }}
    default_type application/octet-stream;
    server_tokens off;
    server {{
        listen 127.0.0.1:{port}{tls_flag};
        server_name localhost;
        {tls}
        root "{folder}";
        {extra}
    }}
}}
"""


class Nginx(NamedTuple):
    """A running nginx.

    Args:
        url: Where the directory is served, without a slash at the end.
        port: Its port on 127.0.0.1.
        log: The file that has a line for each request: method, URI, status, sent bytes.
    """

    url: str
    port: int
    log: Path


class Certificate(NamedTuple):
    """A self-signed certificate and its key, in PEM form."""

    certificate: Path
    key: Path


@contextmanager
def nginx_serving(
    folder: Path, work: Path, *, certificate: Certificate | None = None, extra: str = ""
) -> Iterator[Nginx]:
    """Serve a directory for the block.

    Args:
        folder: What is served.
        work: A directory of its own, outside of `folder`, for its files.
        certificate: Serve by https with it.
        extra: Further directives of the server's block, such as ``location /old { return 301 /new; }``.
    """
    program = find_server("nginx")
    port = free_port()
    work.mkdir(parents=True, exist_ok=True)
    tls = (
        ""
        if certificate is None
        else f"ssl_certificate {certificate.certificate}; ssl_certificate_key {certificate.key};"
    )
    config = work / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            work=work,
            access_log=f"{work}/access.log",
            port=port,
            tls_flag=" ssl" if certificate else "",
            tls=tls,
            folder=folder,
            extra=extra,
        )
    )
    command: list[str | Path] = [program, "-p", work, "-c", config, "-e", "stderr"]
    with running(command, port, log=work / "nginx.log"):
        scheme = "https" if certificate else "http"
        yield Nginx(f"{scheme}://127.0.0.1:{port}", port, work / "access.log")


def make_certificate(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
    """Make a self-signed certificate for some names with the openssl program."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command: list[str | Path] = [
        find_server("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        f"subjectAltName={names}",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return Certificate(certificate, key)

"""The language of Google Cloud Storage for tests: an S3 server behind a gateway that translates where the two differ.

There is no server of Google's XML API to install: this shows how requests are formed and answers are read, with what
"Interoperability" and "Headers" of the XML API's reference say, not what Google's own service does besides.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.files.s3_server import KEYS, s3_running

TOKEN = "a-token-of-the-loopback"
_SIGNED = f"AWS4-HMAC-SHA256 Credential={KEYS['AWS_ACCESS_KEY_ID']}/20000101/us-east-1/s3/aws4_request, Signature=none"
_ONE_HOP = {"host", "authorization", "connection", "transfer-encoding", "server", "date"}


@contextmanager
def gcs_running(folder: Path) -> Iterator[str]:
    """Give the URL of a server that has the bucket "tests", for the block."""
    with s3_running(folder) as store:
        address = store.endpoint.removeprefix("http://")

        class Gateway(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet

            def _pass_on(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._answer(401, {}, b"")
                    return
                sent = {"Authorization": _SIGNED}
                for name, value in self.headers.items():
                    if name.lower() == "x-goog-copy-source":
                        sent["x-amz-copy-source"] = value
                    elif (name.lower(), value) == ("x-goog-if-generation-match", "0"):
                        sent["If-None-Match"] = "*"
                    elif name.lower() not in _ONE_HOP:
                        sent[name] = value
                connection = http.client.HTTPConnection(address, timeout=30)
                try:
                    connection.request(self.command, self.path, data, sent)
                    answer = connection.getresponse()
                    self._answer(answer.status, dict(answer.getheaders()), answer.read())
                finally:
                    connection.close()

            def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _ONE_HOP:
                        self.send_header(name, value)
                if "content-length" not in map(str.lower, headers):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815  # the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

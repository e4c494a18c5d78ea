"""What is Azure's own: connection strings, signatures of URLs, and the order of names."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from treenail.kernel import FileError

_VERSION = "2023-11-03"  # of the service; the library's

N = TypeVar("N", bound=Mapping[str, object])


class AccountKey(NamedTuple):
    """Signs URLs with the key of a storage account.

    The library signs the name as a URL writes it, the service wants it as it is: its signatures of names with a space, a
    percent sign or beyond ASCII do not fit.

    Args:
        account: Its name.
        key: In base64.
        endpoint: The account's URL.
        container: Where the files lie.

    Source: "Create a service SAS", Azure Storage REST API reference.
    """

    account: str
    key: str
    endpoint: str
    container: str

    def __repr__(self) -> str:
        return f"AccountKey({self.account!r})"

    def sign(self, method: str, name: str, expires: timedelta) -> str:
        """Return a URL that reads (GET) or writes (PUT) a blob."""
        now = datetime.now(UTC)
        times = {"st": now - timedelta(minutes=5), "se": now + expires}  # the clocks need not agree
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in times.values())
        rights = "r" if method == "GET" else "cw"
        place = f"/blob/{self.account}/{self.container}/{name}"
        # Besides: a policy, addresses, the protocol; a snapshot, a scope of encryption, and headers of the answer.
        text = "\n".join((rights, start, end, place, "", "", "", _VERSION, "b", *[""] * 7))
        digest = hmac.digest(base64.b64decode(self.key), text.encode(), "sha256")
        fields = {"sp": rights, "st": start, "se": end, "sv": _VERSION, "sr": "b"}
        query = urlencode({**fields, "sig": base64.b64encode(digest).decode()})
        return f"{self.endpoint}/{self.container}/{quote(name)}?{query}"


def checked_key(key: str, where: str) -> str:
    """Return an account's key.

    Raises:
        FileError: It is not base64.
    """
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise FileError("the account's key is not base64", where=where, mend="copy it whole, from the portal") from None
    return key


def connection(text: str, account: str | None) -> Mapping[str, str]:
    """Return the parts of a connection string; none where it is another account's.

    Source: "Configure Azure Storage connection strings".
    """
    parts = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    host = urlsplit(parts.get("BlobEndpoint", "")).hostname or ""
    name = parts.setdefault("AccountName", host.partition(".")[0])
    if account is not None and name != account:
        return {}
    if suffix := parts.get("EndpointSuffix"):
        parts.setdefault("BlobEndpoint", f"{parts.get('DefaultEndpointsProtocol', 'https')}://{name}.blob.{suffix}")
    return parts


def in_order_of_bytes(found: Iterable[N]) -> Iterator[N]:
    """Yield what is listed in the order of its "path" in UTF-16, as Azure does, in that of its bytes in UTF-8.

    They differ where one path has a character beyond U+FFFF and another one from U+E000 to U+FFFF there: those that
    agree up to such a character are held until all of them have come.

    Source: Azure's reference says "alphabetical"; blobfile's pull request 238 tried every character on the service.
    """
    held: list[tuple[str, list[N]]] = []
    for each in found:
        path = str(each["path"])
        while held and not path.startswith(held[-1][0]):
            yield from _sorted(held.pop()[1])
        lead = None if path.isascii() else next((path[:at] for at, sign in enumerate(path) if sign > "\uffff"), None)
        if lead is None:
            yield each
        elif held and held[-1][0] == lead:
            held[-1][1].append(each)
        else:
            held.append((lead, [each]))
    while held:
        yield from _sorted(held.pop()[1])


def _sorted(found: Iterable[N]) -> list[N]:
    return sorted(found, key=lambda each: str(each["path"]).encode())

"""URLs of http and https, and the addresses behind them."""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from treenail.adapters.files.paths import redacted
from treenail.kernel import FileError

PORTS = {"http": 80, "https": 443}
_FORM = "write https://host/path, special characters of a password percent-encoded"
_HOST = re.compile(r"[A-Za-z0-9._:%~-]+")
_PIN = re.compile(r"sha256=([0-9a-fA-F]{64})")

Reach = Literal["public", "private", "link-local", "loopback"]


class Url(NamedTuple):
    """Where a request goes.

    Args:
        scheme: "http" or "https".
        host: A name in ASCII, or an address without brackets.
        port: From 1 to 65535.
        path: Percent-encoded, with a slash at its beginning.
        query: Without its question mark; it may hold a signature.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom the request's credentials are for."""
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """What the request asks the host for."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def shown(self) -> str:
        """The URL for messages: without its query."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def below(self, path: str) -> Url:
        """Return the URL of a path below this one."""
        return self._replace(path=f"{self.path.rstrip('/')}/{quote(path, safe='/')}") if path else self


class Root(NamedTuple):
    """What the URI of a backend's root says.

    Args:
        url: Where the root lies; its query goes with every request.
        authorization: The header made of its user and password, None without.
        sha256: What every file below must hash to, in lower-case hexadecimal digits; None without.
    """

    url: Url
    authorization: str | None
    sha256: str | None


def parse_root(uri: str) -> Root:
    """Take the URI of a root apart.

    Raises:
        FileError: It is no http or https URL, or its fragment is no ``sha256=…``.
    """
    url = parse_url(uri)
    parts = urlsplit(uri)
    authorization = None
    if "@" in parts.netloc:
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(credentials.encode()).decode()}"
    pin = _PIN.fullmatch(parts.fragment)
    if parts.fragment and pin is None:
        raise FileError(
            "the fragment of the URL says nothing that is known here",
            where=redacted(uri),
            mend="write #sha256= and 64 hexadecimal digits, or percent-encode a '#' of the name as %23",
        )
    return Root(url, authorization, pin[1].lower() if pin else None)


def parse_url(uri: str) -> Url:
    """Take a URL apart; user, password and fragment are dropped.

    Raises:
        FileError: It is no http or https URL.
    """
    try:
        parts = urlsplit(uri)
        name = parts.hostname or ""
        host = name if name.isascii() else name.encode("idna").decode()
        scheme = parts.scheme.lower()
        port = PORTS.get(scheme) if parts.port is None else parts.port
    except ValueError:  # it may quote what stands in the place of the port, a part of a password perhaps
        raise FileError("not an http or https URL: its host or port is malformed", mend=_FORM) from None
    if scheme not in PORTS or not port or not _HOST.fullmatch(host):
        raise FileError("not an http or https URL", where=redacted(uri), mend=_FORM)
    return Url(scheme, host, port, _encoded(parts.path) or "/", _encoded(parts.query, "?"))


def split_uri(uri: str) -> tuple[str, str]:
    """Return (root, path below it): the query and the fragment stay with the root, the path is percent-decoded.

    Parts that no path can hold (an empty one, an encoded slash) stay with the root, and all before them.

    Raises:
        FileError: It is no http or https URL, or the name of the file is such a part.
    """
    parse_root(uri)
    parts = urlsplit(uri)
    encoded = parts.path.lstrip("/").rstrip("/").split("/") if parts.path.strip("/") else []
    if any(unquote(part) in {".", ".."} for part in encoded):
        raise FileError("the path has '.' or '..' parts", where=redacted(uri), mend="write it without them")
    if encoded and not _is_plain(encoded[-1]):
        raise FileError("the file's name has an encoded slash or NUL, or is not in UTF-8", where=redacted(uri))
    kept = max((index + 1 for index, part in enumerate(encoded) if not _is_plain(part)), default=0)
    base = "".join(f"/{part}" for part in encoded[:kept])
    query, fragment = f"?{parts.query}" if parts.query else "", f"#{parts.fragment}" if parts.fragment else ""
    root = f"{parts.scheme.lower()}://{parts.netloc}{base}{query}{fragment}"
    return root, "/".join(unquote(part) for part in encoded[kept:])


def follow(url: Url, location: str | None) -> Url:
    """Return where a redirect leads.

    Raises:
        FileError: Nowhere, to another scheme than http or https, or from https to http.
    """
    if not location:
        raise FileError("the server redirects to nowhere", where=url.shown)
    try:
        target = parse_url(urljoin(f"{url.shown}?{url.query}", location))
    except (FileError, ValueError) as error:
        scheme = location.partition(":")[0][:20]
        raise FileError(
            f"the server redirects to something else than http or https ({scheme!r})",
            where=url.shown,
            mend="a redirect to another scheme is never followed; name the file by its own URI",
        ) from error
    if (url.scheme, target.scheme) == ("https", "http"):
        raise FileError(
            f"the server redirects from https to {target.shown}",
            where=url.shown,
            mend="what comes unencrypted may be anybody's; if that is well, name that URL itself",
        )
    return target


def reach_of(address: str) -> Reach:
    """Return from where an IP address can be reached.

    Raises:
        ValueError: It is no IP address.
    """
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified:  # connecting to 0.0.0.0 arrives at this machine
        return "loopback"
    if found.is_link_local:
        return "link-local"
    return "public" if found.is_global and not found.is_multicast else "private"


def _is_plain(part: str) -> bool:
    decoded = unquote(part, errors="surrogateescape")
    return bool(decoded) and "/" not in decoded and "\0" not in decoded and not re.search("[\ud800-\udfff]", decoded)


def _encoded(text: str, extra: str = "") -> str:
    """Percent-encode what no URL may have, such as spaces and umlauts; what is encoded stays as it is."""
    return quote(text, safe=f"/%!$&'()*+,;=:@~{extra}")

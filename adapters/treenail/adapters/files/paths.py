"""What a path below a root is, and how URIs are shown; for every backend."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from treenail.kernel import FileError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_UNSOUND = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|\0|[\ud800-\udfff]")  # an empty, "." or ".." part; no text of UTF-8


def check_path(path: str, where: str, *, root: bool = False) -> str:
    """Return a path that the `FileBackend` port allows.

    Args:
        path: What a caller gave.
        where: URI of the backend's root, for the message.
        root: Whether "" (the root itself) is allowed.

    Raises:
        FileError: The path is absolute, climbs, or has an empty, "." or ".." part, a NUL or no UTF-8 form.
    """
    if _UNSOUND.search(path) and (path or not root):
        raise FileError(
            f"{path!r} is not a path below the root",
            where=where,
            mend="use a relative path such as 'runs/log.jsonl', without '.', '..' or empty parts",
        )
    return path


def check_range(path: str, start: int, length: int | None) -> None:
    """Raise `FileError` where a range begins before the file or has a negative length."""
    if start < 0 or (length is not None and length < 0):
        raise FileError(f"cannot read {length} bytes from {start}", where=path, mend="both must be at least 0")


def scheme_of(uri: str) -> str | None:
    """Return the lower-case scheme of ``scheme://…``; None for a local path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else None


def local_path_of(path: str | os.PathLike[str]) -> str:
    """Return a local path as it is, and that of a ``file://`` URI.

    Raises:
        FileError: It is empty, a URI of another scheme or host, or has a NUL.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise FileError(f"{text!r} is no path", mend="name a file or a directory")
    scheme = scheme_of(text)
    if scheme is None:
        return text
    if scheme != "file":
        raise FileError(
            "this is no local path", where=redacted(text), mend="write a directory or file:///absolute/path"
        )
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"}:
        raise FileError("a file URI has no host", where=redacted(text), mend="write file:///absolute/path")
    found = text[len("file://") + len(parts.netloc) :]  # "?" and "#" are letters of a name here
    return url2pathname(found) if os.name == "nt" else unquote(found)


def join_uri(root: str, path: str) -> str:
    """Return the URI of a path below a root."""
    return f"{root.rstrip('/')}/{path}" if path else root


def redacted(uri: str) -> str:
    """Return a URI without user and password, and without the query and fragment of HTTP, which may hold signatures."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    if scheme.lower() in {"http", "https"}:
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    user, _, host = rest.rpartition("@")
    # A user without a password is in the authority only; a password may have slashes that should have been escaped.
    return f"{scheme}://***@{host}" if user and (":" in user or "/" not in user) else f"{scheme}://{rest}"

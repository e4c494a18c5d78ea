"""What a path below a root is, and how URIs are shown; for every backend."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from treenail.kernel import FileError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_UNSOUND = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|\0|[\ud800-\udfff]")  # an empty, "." or ".." part; no text of UTF-8
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LARGEST = 2**63 - 1  # bytes that a file can have on any system
_LONGEST_NAME = 200
_LONGEST_SUFFIX = 20


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
        if _SURROGATE.search(path):
            raise _no_text(path, where)
        raise FileError(
            f"{path!r} is not a path below the root",
            where=where,
            mend="use a relative path such as 'runs/log.jsonl', without '.', '..' or empty parts",
        )
    return path


def check_range(path: str, start: int, length: int | None) -> None:
    """Raise `FileError` where a range begins before the file, has a negative length, or is beyond every file (2**63 bytes)."""
    if start < 0 or (length is not None and length < 0):
        raise FileError(f"cannot read {length} bytes from {start}", where=path, mend="both must be at least 0")
    if start + (length or 0) > _LARGEST:
        raise FileError(f"cannot read {length} bytes from {start}", where=path, mend="no file has 2**63 bytes")


def short_name(name: str) -> str:
    """Return a name that every local disk takes, for a temporary file: the same, or one with the same suffix."""
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    suffix = PurePosixPath(name).suffix
    return f"file{suffix if len(os.fsencode(suffix)) <= _LONGEST_SUFFIX else ''}"


def _no_text(path: str, where: str) -> FileError:
    """Return the error of a name that the disk has and no URI can; it is shown so that every terminal can print it."""
    parts = path.split("/")
    depth = next(number for number, part in enumerate(parts) if _SURROGATE.search(part))
    directory = join_uri(where, "/".join(parts[:depth]))
    return FileError(f"{parts[depth]!r}: its name is not UTF-8", where=directory, mend="rename it")


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


def absolute(path: str) -> str:
    """Return a local path from the root of its disk, its ".." as they are.

    Raises:
        FileError: It is relative, and the current directory is not there any more.
    """
    try:
        return str(Path(path).absolute())
    except FileNotFoundError as error:
        mend = "change to one that is there, or give an absolute path"
        raise FileError("the current directory is gone", where=path, mend=mend) from error


def path_below(directory: str, path: str) -> str:
    """Return the path of what lies at a path below a directory; "" is the root, or the directory itself."""
    return f"{directory}/{path}" if directory and path else directory or path


def split_inside(uri: str) -> tuple[str, str]:
    """Return (URI of a file that holds files, path in it): what stands before and after the first ``!/``."""
    holder, _, path = uri.partition("!/")
    return holder.removesuffix("!"), path.rstrip("/")


def names_below(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Yield which of some sorted paths lie below the directory `prefix`; "" is the root."""
    lead = f"{prefix}/" if prefix else ""
    for position in range(bisect_left(names, lead), len(names)):
        if not names[position].startswith(lead):
            return
        yield names[position]


def read_only(uri: str, path: str, mend: str) -> FileError:
    """Return the error of whoever would change a file of a store that is only read.

    Raises:
        FileError: There can be no such path.
    """
    return FileError("this store is read only", where=join_uri(uri, check_path(path, uri)), mend=mend)


def join_uri(root: str, path: str) -> str:
    """Return the URI of a path below a root."""
    return f"{root}{'' if root.endswith('/') else '/'}{path}" if path else root


def redacted(uri: str) -> str:
    """Return a URI without user and password, and without the query and fragment of HTTP, which may hold signatures."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    if _SCHEME.match(rest):  # zip://https://…
        return f"{scheme}://{redacted(rest)}"
    if scheme.lower() in {"http", "https"}:
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    user, _, host = rest.rpartition("@")
    port = rest.partition("/")[0].rpartition(":")
    if not user and port[0] and port[2] and not port[2].isdecimal() and not port[2].endswith("]"):
        return f"{scheme}://***"  # a password that was cut at a letter which should have been escaped
    # A user without a password is in the authority only; a password may have slashes that should have been escaped.
    return f"{scheme}://***@{host}" if user and (":" in user or "/" not in user) else f"{scheme}://{rest}"


def told(error: BaseException, secrets: Iterable[str | None] = ()) -> str:
    """Return what an error of someone else says, without the secrets."""
    text = str(error) or type(error).__name__
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text

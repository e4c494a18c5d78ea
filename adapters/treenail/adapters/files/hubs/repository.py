"""What the URI of a hub's repository says."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import unquote

from treenail.adapters.files.paths import redacted
from treenail.kernel import FileError

Kind = Literal["model", "dataset", "space"]

_ROOT: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<kind>models|datasets|spaces)/)?(?!(?:models|datasets|spaces)/)(?P<name>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


class Repository(NamedTuple):
    """A repository at a revision.

    Args:
        uri: It leads here again.
        kind: What it holds.
        name: ``org/name``.
        revision: A branch, a tag or a commit.
    """

    uri: str
    kind: Kind
    name: str
    revision: str


def parse(root: str, scheme: str, default_revision: str) -> Repository:
    """Take the URI of a repository apart.

    Raises:
        FileError: It is none of this scheme, or one of a file in it.
    """
    found = _match(root, scheme)
    if found["path"]:
        mend = f"write {scheme}://org/name@revision"
        raise FileError("this is a file of a repository", where=redacted(root), mend=mend)
    kind = cast(Kind, (found["kind"] or "models").removesuffix("s"))
    return Repository(root.rstrip("/"), kind, found["name"], unquote(found["revision"] or default_revision))


def split(uri: str, scheme: str) -> tuple[str, str]:
    """Return (URI of a repository with its revision, path in it).

    Raises:
        FileError: It is no repository of this scheme.
    """
    path = _match(uri, scheme)["path"] or ""
    return uri.removesuffix(path).rstrip("/"), path.rstrip("/")


def seconds(when: object) -> float:
    """Return a time that a hub tells as seconds since 1970; 0 where it tells none."""
    if isinstance(when, datetime):
        return when.timestamp()
    return float(when) if isinstance(when, int | float) else 0.0


def _match(uri: str, scheme: str) -> re.Match[str]:
    found = _ROOT.fullmatch(uri)
    if found is None or found["scheme"] != scheme:
        raise FileError(
            "this is no repository",
            where=redacted(uri),
            mend=f"write {scheme}://org/name@revision/file, behind datasets/ for a dataset",
        )
    return found

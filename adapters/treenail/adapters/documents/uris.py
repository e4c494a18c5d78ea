"""Configs that lie in a store: named by a URI, read through the file backends, and shown without credentials."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from treenail.adapters.documents.limits import MAX_BYTES, too_large
from treenail.kernel import ConfigError, FileMissingError, TreenailError

if TYPE_CHECKING:
    from treenail.adapters.files import Place

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Uri:
    """Where a config lies in a store, as `Path` says it of a local disk; its text shows no credentials.

    The mounts in use find the store when something is read; whoever only names it needs no network.

    Args:
        full: The URI, such as ``s3://bucket/run.yaml``, with any credentials in it.

    Attributes:
        full: The same; for whoever reads it again, never for people.
    """

    def __init__(self, full: str) -> None:
        self.full = full
        self._place: Place | None = None  # of a base, which shares the credentials of the file that names it

    def __str__(self) -> str:
        from treenail.adapters.files import redacted  # a local config is read without it

        return redacted(self.full)

    def __repr__(self) -> str:
        return f"Uri({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uri) and self.full == other.full

    def __hash__(self) -> int:
        return hash(self.full)

    @property
    def name(self) -> str:
        """The last part: ``run.yaml``."""
        is_web = self.full.lower().startswith(("http://", "https://"))
        return PurePosixPath(re.split("[?#]", self.full, maxsplit=1)[0] if is_web else self.full).name

    @property
    def stem(self) -> str:
        """The last part without its suffix: ``run``."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix: ``.yaml``."""
        return PurePosixPath(self.name).suffix

    @property
    def directory(self) -> str:
        """The URI of the directory around it, without credentials."""
        return str(self).rpartition("/")[0]

    def read(self) -> bytes:
        """Return what it holds, and at most one byte more than a config may have.

        Raises:
            ConfigError: There is no such file, it is too large, or the store cannot be reached, refused or failed.
        """
        try:
            place = self._found()
            if not place.backend.capabilities.ranges and place.backend.stat(place.file()).size > MAX_BYTES:
                raise too_large(str(self))  # it would be fetched whole
            return place.read(0, MAX_BYTES + 1)
        except FileMissingError:
            mend = "check its name; `treenail copy` brings a file there"
            raise ConfigError("there is no such file", where=str(self), mend=mend) from None
        except ConfigError:
            raise
        except TreenailError as error:
            raise ConfigError(error.message, where=error.where or str(self), mend=error.mend) from error

    def base(self, name: str) -> Uri:
        """Return the file that a config here names as its base; nothing is read.

        Args:
            name: Relative to this file, or a URI; either must lie below the root of this file's store.

        Raises:
            LookupError: It does not, or nothing can lie there; the text says what to do.
        """
        from treenail.adapters.files import redacted

        mend = "a config in a store has its bases below the root of that store; copy it, or lay it over with --with"
        try:
            place = self._found()
            root = redacted(place.backend.uri)
            if is_uri(name):
                found = Uri(name)
                if redacted(found._found().backend.uri) != root:
                    raise LookupError(f"{found} does not lie below {root}; {mend}")
                return found
        except TreenailError as error:
            raise LookupError(str(error)) from None
        if self.full.lower().startswith(("http://", "https://")) and "#" in self.full:
            raise LookupError(
                f"the hash of {self} says nothing of '{name}'; name it by its whole URL, with a #sha256= of its own"
            )
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place.path), name))
        if name.startswith("/") or "\\" in name or path.startswith("..") or path == ".":
            raise LookupError(f"'{name}' leads out of {root}; {mend}")
        beside = place._replace(path=path)
        found = Uri(beside.uri)
        found._place = beside
        return found

    def _found(self) -> Place:
        if self._place is not None:
            return self._place
        from treenail.adapters.files import current_mounts

        return current_mounts().resolve(self.full)


Location: TypeAlias = Path | Uri
"""Where a config lies."""


def location(text: str | Location) -> Location:
    """Return where a config lies that people name by a path or a URI; ``file:///…`` is a path.

    Args:
        text: What they wrote; what is a `Path` or `Uri` already stays so.

    Raises:
        ConfigError: A ``file://`` URI has a host or an empty path.
    """
    if not isinstance(text, str):
        return text
    found = _SCHEME.match(text)
    if found is None:
        return Path(text)
    if found[1].lower() != "file":
        return Uri(text)
    from treenail.adapters.files import local_path_of

    try:
        return Path(local_path_of(text))
    except TreenailError as error:
        raise ConfigError(error.message, where=error.where, mend=error.mend) from None


def is_uri(text: str) -> bool:
    """Return whether a text begins with ``scheme://``."""
    return _SCHEME.match(text) is not None

"""To whom the parts of a config belong: from this follow their places and whether they are frozen."""

from __future__ import annotations

from typing import Any, Protocol

from treenail.adapters.documents import TreePath, dotted
from treenail.adapters.trees.errors import FrozenConfigError

# `Any` stands in this file for the values of a config, which may be of every type.


class Part(Protocol):
    """A mapping or list of a config."""

    @property
    def _content(self) -> Any: ...
    @property
    def _frozen(self) -> bool: ...
    @property
    def _owner(self) -> Part | None: ...


def is_frozen(part: Part) -> bool:
    """Return whether a part, or a node that it belongs to, is frozen."""
    above: Part | None = part
    while above is not None:
        if above._frozen:
            return True
        above = above._owner
    return False


def refuse_if_frozen(part: Part, *key: Any) -> None:
    """Check that a part may be changed, at a key if one is given.

    Raises:
        FrozenConfigError: It may not.
    """
    if is_frozen(part):
        raise FrozenConfigError(
            "the config is frozen",
            where=place_of(part, *key),
            mend="unfreeze the whole, or change a copy(frozen=False)",
        )


def path_of(part: Part) -> TreePath:
    """Return where a part is in its config."""
    path: TreePath = ()
    while part._owner is not None:
        owner = part._owner
        entries = owner._content.items() if isinstance(owner._content, dict) else enumerate(owner._content)
        path = next((key, *found) for key, value in entries if (found := _within(value, part)) is not None) + path
        part = owner
    return path


def place_of(part: Part, *key: Any) -> str | None:
    """Return the path of a part, or of an entry in it, for messages; None for the whole."""
    return dotted((*path_of(part), *(one if isinstance(one, int) else str(one) for one in key))) or None


def _within(value: Any, part: Part) -> TreePath | None:
    """Return where a part is in a value: the value itself, or inside tuples."""
    if value is part:
        return ()
    if type(value) is tuple:
        for number, item in enumerate(value):
            found = _within(item, part)
            if found is not None:
                return (number, *found)
    return None


def root_of(part: Part) -> Part:
    """Return the whole that a part belongs to."""
    while part._owner is not None:
        part = part._owner
    return part

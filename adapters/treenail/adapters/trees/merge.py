"""Laying one config over another, and finding what to lay over it; on plain data, and on what behaves like it."""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any, Final, TypeAlias

from treenail.adapters.documents import NOTHING, TreePath, dotted
from treenail.kernel import ConfigError

# `Any` stands in this file for the values of a config, which may be of every type.

DELETE: Final = "_delete_"
"""The key that says that a mapping replaces the one below it."""

MAX_DEPTH: Final = 200
Change: TypeAlias = tuple[Any, Any, Any]
"""A container, a key or number in it, and the value that it gets; NOTHING where the entry goes."""


def too_deep(where: str | None) -> ConfigError:
    """Return the error for nesting that does not end."""
    return ConfigError(f"this is nested more than {MAX_DEPTH} levels deep, or holds itself", where=where)


def plain(value: Any, path: TreePath = ()) -> Any:
    """Return a copy made of dicts, lists and tuples; other objects are kept as they are.

    Raises:
        ConfigError: The nesting does not end.
    """
    if len(path) > MAX_DEPTH:
        raise too_deep(dotted(path[:3]))
    if isinstance(value, Mapping):
        return {key: plain(inner, (*path, _step(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, (*path, number)) for number, inner in enumerate(value)]
    if type(value) is tuple:
        return tuple(plain(inner, (*path, number)) for number, inner in enumerate(value))
    return value


def merge_changes(target: Any, other: dict[Any, Any], *, allow_list_keys: bool, path: TreePath) -> list[Change]:
    """Return what to change in a mapping so that another one lies over it.

    Args:
        target: Not changed.
        other: Plain data.
        allow_list_keys: Whether a mapping with the keys 0, 1, … changes the items of a list.
        path: Where the target is, for messages.

    Raises:
        ConfigError: A mapping would lie over something else, or an item over a list that is shorter.
    """
    if _replaces(other, path):
        gone: list[Change] = [(target, key, NOTHING) for key in target if key not in other]
        return gone + [(target, key, value) for key, value in _without_marks(other, path).items()]
    changes: list[Change] = []
    for written, value in other.items():
        if written == DELETE:
            continue
        key = written
        if allow_list_keys and isinstance(target, list):
            key = _number_in(target, written, path)
        elif allow_list_keys and written not in target and str(written).isdecimal() and int(written) in target:
            key = int(written)  # a path is text, a key may be a number
        below = (*path, _step(key))
        old = target[key] if isinstance(target, list) else target.get(key, NOTHING)
        if not isinstance(value, dict) or old is NOTHING or _replaces(value, below):
            changes.append((target, key, _without_marks(value, below)))
        elif isinstance(old, dict) or (allow_list_keys and isinstance(old, list)):
            changes += merge_changes(old, value, allow_list_keys=allow_list_keys, path=below)
        else:
            kind = type(old).__name__
            raise ConfigError(
                f"a mapping cannot be merged into {'a list' if isinstance(old, list) else f'the {kind} {old!r}'}",
                where=dotted(below),
                mend=f"put '{DELETE}: true' into the mapping to replace what is there",
            )
    return changes


def nested_options(options: Mapping[str, Any]) -> dict[Any, Any]:
    """Return ``{"a": {"b": 1}}`` for ``{"a.b": 1}``; the values are copied.

    Raises:
        ConfigError: A path has an empty part, or leads through the value of another one.
    """
    nested: dict[Any, Any] = {}
    for name, value in options.items():
        parts = str(name).split(".")
        if not all(parts):
            raise ConfigError(
                f"'{name}' is no path", mend="write names with a dot between them, for example optimizer.lr"
            )
        inner = nested
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"another option gives '{part}' a value that is no mapping", where=str(name))
        old, copied = inner.get(parts[-1], NOTHING), plain(value)
        if isinstance(old, dict) and isinstance(copied, dict):
            for container, key, changed in merge_changes(old, copied, allow_list_keys=False, path=tuple(parts)):
                container[key] = changed
        elif isinstance(old, dict):
            raise ConfigError("another option leads into this value", where=str(name))
        else:
            inner[parts[-1]] = copied
    return nested


def difference(entries: dict[Any, Any], base: dict[Any, Any], path: TreePath = ()) -> dict[Any, Any]:
    """Return what to merge into a base to get some entries.

    Raises:
        ConfigError: There is an entry ``_delete_``, which says something else in a difference.
    """
    if DELETE in entries:
        raise ConfigError(f"an entry '{DELETE}' cannot be written into a difference", where=dotted(path) or None)
    if any(key not in entries for key in base):
        return {DELETE: True} | entries
    changed: dict[Any, Any] = {}
    for key, value in entries.items():
        old = base.get(key, NOTHING)
        if same(value, old):
            continue
        below = (*path, _step(key))
        if isinstance(value, dict) and isinstance(old, dict):
            changed[key] = difference(value, old, below)
        elif isinstance(value, dict) and old is not NOTHING:
            changed[key] = difference(value, {NOTHING: None}, below)
        else:
            changed[key] = value
    return changed


def same(one: Any, other: Any) -> bool:
    """Return whether two values are written alike: 1, 1.0 and true differ, as do (1, 2) and [1, 2]; nan is nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(key in other and same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124  # what nan is known by


def is_name(key: object) -> bool:
    """Return whether a key can be an attribute."""
    return isinstance(key, str) and key.isidentifier() and not iskeyword(key)


def _replaces(mapping: dict[Any, Any], path: TreePath) -> bool:
    mark = mapping.get(DELETE, False)
    if not isinstance(mark, bool):
        raise ConfigError(f"expected true or false, not {mark!r}", where=dotted((*path, DELETE)))
    return mark


def _without_marks(value: Any, path: TreePath) -> Any:
    """Return a mapping without the marks of deletion in it: where nothing lies below, there is nothing to delete."""
    if not isinstance(value, dict):
        return value
    _replaces(value, path)
    return {key: _without_marks(inner, (*path, _step(key))) for key, inner in value.items() if key != DELETE}


def _number_in(target: list[Any], key: Any, path: TreePath) -> int:
    if not str(key).isdecimal() or int(key) >= len(target):
        raise ConfigError(
            f"this is a list of {len(target)}; '{key}' is not one of its numbers",
            where=dotted(path),
            mend=f"write 0 to {len(target) - 1}" if target else "give the whole list",
        )
    return int(key)


def _step(key: Any) -> str | int:
    return key if isinstance(key, int) else str(key)

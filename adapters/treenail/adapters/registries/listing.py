"""Registries as a table to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from treenail.kernel import Registry, name_of

T = TypeVar("T")


@runtime_checkable
class Dialect(Protocol):
    """A registry of any dialect."""

    name: str
    core: Registry[Any]  # a listing holds registries of whatever type side by side


@runtime_checkable
class Tree(Dialect, Protocol):
    """A registry with children."""

    scope: str

    @property
    def children(self) -> Mapping[str, Tree]:
        """The registries below it, by scope."""
        ...


def targets(core: Registry[T]) -> dict[str, str]:
    """Return ``module:qualname`` of what each plain name stands for; nothing that is declared is imported for it."""
    found = {name: f"{each.module}:{name}" for each in core.namespaces for name in each.members()}
    declared: dict[str, list[str]] = {}
    for _, adapter in core:
        for name in (adapter.name, *adapter.aliases):
            declared.setdefault(name, []).append(adapter.target)
    found.update({name: " or ".join(each) for name, each in declared.items()})
    found.update({name: name_of(target) for name, target in core.registered.items()})
    return {name: found[name] for name in core.names() if ":" not in name}


def registry_table(*registries: Dialect | Registry[Any]) -> str:
    """Return registries, and those below them, as a table: registry, scope, name, target.

    Args:
        registries: Of any dialect, or the kernel's.
    """
    rows = [("registry", "scope", "name", "target"), *(row for each in registries for row in _rows(each, 0))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _rows(registry: Dialect | Registry[Any], depth: int) -> Iterator[tuple[str, str, str, str]]:
    name, core = (registry.port, registry) if isinstance(registry, Registry) else (registry.name, registry.core)
    tree = registry if isinstance(registry, Tree) else None
    label, scope = "  " * depth + name, tree.scope if tree else ""
    members = targets(core)
    if not members:
        yield label, scope, "(nothing)", ""
    for member, target in members.items():
        yield label, scope, member, target
    for child in tree.children.values() if tree else ():
        yield from _rows(child, depth + 1)

"""What is registered in a tree of registries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from treenail.adapters.registries.listing import registry_table, targets
from treenail.adapters.registries.mmengine.registry import Registry
from treenail.adapters.registries.mmengine.roots import RootRegistries
from treenail.kernel import FileError


class NodeStatistics(TypedDict):
    """One registry: its name and scope, its parent's scope, and ``module:qualname`` of what it holds, by name."""

    name: str
    scope: str
    parent: NotRequired[str]
    num_modules: int
    modules: dict[str, str]


def traverse_registry_tree(registry: Registry[Any], verbose: bool = True) -> list[NodeStatistics]:
    """Return what each registry of a tree holds, the root first.

    Args:
        registry: Any registry of the tree.
        verbose: Print it as a table, too.
    """
    if verbose:
        print(registry_table(registry.root))
    return _below(registry.root)


def _below(registry: Registry[Any]) -> list[NodeStatistics]:
    modules = targets(registry.core)
    own = NodeStatistics(name=registry.name, scope=registry.scope, num_modules=len(modules), modules=modules)
    if registry.parent is not None:
        own["parent"] = registry.parent.scope
    return [own, *(each for child in registry.children.values() for each in _below(child))]


def count_registered_modules(
    roots: RootRegistries | Mapping[str, Registry[Any]], save_path: str | Path | None = None, verbose: bool = True
) -> dict[str, list[NodeStatistics]]:
    """Return what root registries, and those below them, hold.

    Args:
        roots: The root registries; the original has them in a global, here they are passed.
        save_path: A JSON file to write it to.
        verbose: Print it as a table, too.

    Raises:
        FileError: The file cannot be written.
    """
    named = roots.by_name() if isinstance(roots, RootRegistries) else roots
    found = {name: traverse_registry_tree(registry, verbose=False) for name, registry in named.items()}
    if verbose:
        print(registry_table(*(registry.root for registry in named.values())))
    if save_path is not None:
        try:
            Path(save_path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise FileError(f"the file cannot be written: {error.strerror}", where=str(save_path)) from error
    return found

"""PyYAML with the safe types and Python's tuples: what mmengine writes is read, and nothing that runs code."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from treenail.kernel import require

_TUPLE = "tag:yaml.org,2002:python/tuple"


def yaml() -> ModuleType:
    """Return PyYAML.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return require("yaml", extra="mmengine", purpose="mmengine's YAML")


@functools.cache
def loader() -> Any:  # PyYAML has no types
    """Return a loader of the safe types and tuples; any other tag of Python's is an error of PyYAML's."""
    library = yaml()
    base: Any = getattr(library, "CSafeLoader", library.SafeLoader)  # ten times as fast, where it was built
    ours: Any = type("SafeLoaderWithTuples", (base,), {})
    ours.add_constructor(_TUPLE, lambda loading, node: tuple(loading.construct_sequence(node, deep=True)))
    return ours


@functools.cache
def dumper() -> Any:  # PyYAML has no types
    """Return a dumper of the safe types and tuples; it refuses other objects."""
    library = yaml()
    base: Any = getattr(library, "CSafeDumper", library.SafeDumper)
    ours: Any = type("SafeDumperWithTuples", (base,), {})
    ours.add_representer(tuple, lambda dumping, value: dumping.represent_sequence(_TUPLE, value))
    return ours

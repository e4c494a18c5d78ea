"""Walks of directories, local and in stores without any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from treenail.adapters.files.compat.placing import local_path
from treenail.adapters.files.local.durable import UNFINISHED
from treenail.adapters.files.mounts import Place
from treenail.adapters.files.sync import RECORD


def walked(place: Place, recurse: bool) -> Iterator[str]:
    """Yield what lies in a directory, relative to it: files, directories, then what lies in each of these."""
    top = local_path(place)
    yield from _walked_local(top, "", recurse) if top is not None else _walked_tree(_tree(place), "", recurse)


def uploads_of(top: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and directory below a local one with its path below it; what `sync` keeps there is left out."""
    for each in _walked_local(top, "", recurse=True):
        if each != RECORD:
            yield top / each, each


def _walked_local(top: Path, lead: str, recurse: bool) -> Iterator[str]:
    with os.scandir(top) as entries:
        found = sorted(
            (entry for entry in entries if not entry.name.endswith(UNFINISHED)), key=lambda entry: entry.name
        )
    directories = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    yield from (lead + entry.name for entry in found if entry.name not in directories)
    yield from (lead + name for name in directories)
    for name in directories if recurse else ():
        yield from _walked_local(top / name, f"{lead}{name}/", recurse)


Tree = dict[str, "Tree | None"]


def _tree(place: Place) -> Tree:
    """Return names to trees, to None for files; in memory, as a store lists paths in another order."""
    lead = len(place.path) + 1 if place.path else 0
    root: Tree = {}
    for each in place.backend.list(place.path):
        *directories, name = each[lead:].split("/")
        tree = root
        for part in directories:
            inner = tree.get(part)
            if inner is None:  # a name may be a file and a directory at once
                inner = tree[part] = {}
            tree = inner
        tree.setdefault(name, None)
    return root


def _walked_tree(tree: Tree, lead: str, recurse: bool) -> Iterator[str]:
    yield from (lead + name for name, inner in tree.items() if inner is None)
    yield from (lead + name for name, inner in tree.items() if inner is not None)
    for name, inner in tree.items() if recurse else ():
        if inner is not None:
            yield from _walked_tree(inner, f"{lead}{name}/", recurse)

"""What is wrong in a config's section `files`, found without opening a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from treenail.adapters.files.memory import MemoryFiles
from treenail.adapters.files.mounts import Mounts
from treenail.adapters.files.paths import scheme_of
from treenail.kernel import FileBackend, Late, Spec, TreenailError

_BACKEND: Spec[FileBackend] = Spec(MemoryFiles)
"""What stands for a backend that a config describes; it is not built."""
_OPENER: Late[str, FileBackend] = Late(MemoryFiles, (), {}, awaited=1)


def mistakes_in_files(files: Mapping[str | int, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (place, what is wrong and what to do) of what a run could not find its files by; no store is asked.

    Args:
        files: The section ``files`` of a config, as plain data; what has a wrong type is left to its schema.
    """
    right: dict[str, dict[str, Any]] = {"schemes": {}, "mounts": {}, "mirrors": {}}  # each of a type of its own
    for section, entries in right.items():
        written = files.get(section)
        for name, value in written.items() if isinstance(written, Mapping) else ():
            given = _OPENER if section == "schemes" else value if isinstance(value, str) else _BACKEND
            if section == "mirrors" and not isinstance(value, str):
                continue
            tried = {**entries, str(name): given}
            if problem := _problem(partial(_mounts, {section: tried})):
                yield (section, str(name)), problem
            else:
                entries[str(name)] = given
    found = _mounts(right)
    for section in ("mounts", "mirrors"):
        for prefix in right[section]:
            if problem := _problem(partial(found.check, prefix)):
                yield (section, prefix), problem
    checkpoints, cache = files.get("checkpoints"), files.get("cache")
    if isinstance(checkpoints, str) and (problem := _problem(partial(found.check, checkpoints))):
        yield ("checkpoints",), problem
    folder = cache.get("folder") if isinstance(cache, Mapping) else None
    if isinstance(folder, str) and scheme_of(folder) is not None:
        yield ("cache", "folder"), "a cache needs a local directory; write its path"


def _mounts(given: Mapping[str, dict[str, Any]]) -> Mounts:
    return Mounts(given.get("mounts", {}), schemes=given.get("schemes", {}), mirrors=given.get("mirrors", {}))


def _problem(act: Callable[[], object]) -> str | None:
    """Return what an act raises, as a sentence; None if it raises nothing."""
    try:
        act()
    except TreenailError as error:
        return f"{error.message}; {error.mend}" if error.mend else error.message
    return None

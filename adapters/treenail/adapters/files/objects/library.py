"""obstore in a process that was forked from one that used it."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from treenail.kernel import FileError, require

_LOCKS: dict[int, threading.Lock] = {}  # by process: a lock that another thread held during a fork is never released


def library() -> ModuleType:
    """Return obstore's compiled module, one that works in this process.

    Its threads belong to the process that first used it, and a forked child has none of them: a call there waits for
    ever. The child gets a second copy of the module, which has threads of its own.

    Raises:
        MissingDependencyError: obstore is not installed.
        FileError: This process was forked where a copy cannot be made.
    """
    process = os.getpid()
    with _LOCKS.setdefault(process, threading.Lock()):
        return _loaded() if _first_process() == process else _copied(process)


@cache
def _first_process() -> int:
    return os.getpid()


@cache
def _loaded() -> ModuleType:
    require("obstore", extra="cloud", purpose="an object store")
    return require("obstore._obstore", extra="cloud", purpose="an object store")


@cache
def _copied(process: int) -> ModuleType:
    """Load the module once more: the dynamic loader takes a file in memory for another library."""
    original = _loaded()
    if sys.platform != "linux":
        raise FileError(
            "an object store was used before this process was forked",
            mend="start workers by 'spawn': multiprocessing_context='spawn' of a DataLoader",
        )
    assert original.__file__ is not None, "a compiled module lies in a file"
    handle = os.memfd_create("obstore")
    try:
        with open(original.__file__, "rb") as source:
            left = os.fstat(source.fileno()).st_size
            while left:
                left -= os.sendfile(handle, source.fileno(), None, left)
        # With the process's number: a library of the same name would be taken for one that is loaded already.
        path = f"/proc/{process}/fd/{handle}"
        spec = spec_from_file_location(original.__name__, path, loader=ExtensionFileLoader(original.__name__, path))
        assert spec is not None, "a loader is given"
        assert spec.loader is not None, "a loader is given"
        before = {name: module for name, module in sys.modules.items() if name.startswith("obstore")}
        copy = module_from_spec(spec)
        try:
            spec.loader.exec_module(copy)
        finally:
            sys.modules.update(before)  # it registers its submodules there
        return copy
    finally:
        os.close(handle)

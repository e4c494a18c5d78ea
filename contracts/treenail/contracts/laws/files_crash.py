"""The laws of a file backend whose process is killed in the midst of its work.

The environment variable TREENAIL_KILL_EXAMPLES says how often each of them kills (twice without it).
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from treenail.contracts.laws import _crash_worker as worker
from treenail.kernel import FileBackend

LONGEST_WAIT = 0.15  # seconds from the first work to the kill: some dozens of writes on a disk, one or two on a store


class FileCrashLaws(ABC):
    """What a backend that lasts obeys when its process is killed: subclass it and define `make_in`.

    A worker process writes, copies or copies trees again and again, and is killed (SIGKILL) at a random instant; another
    goes on with what it left.
    """

    @abstractmethod
    def make_in(self) -> tuple[Callable[..., FileBackend], tuple[object, ...]]:
        """Return a function and its arguments, all of which pickle can name: called in any process, it opens one backend.

        The backend is fresh and empty after each call of `make_in`.
        """

    def copy_tree(self) -> Callable[[FileBackend, str, str], object] | None:
        """Return a function of a module that copies a directory over another: (backend, source, target).

        None stands for copying file by file.
        """
        return None

    def is_own(self, path: str) -> bool:
        """Return whether a file is one that `copy_tree` keeps for itself: its record, its lock."""
        del path
        return False

    def test_a_killed_write_leaves_whole_files(self) -> None:
        """After a kill during writes, each path holds a whole content, no older than the last that was done."""
        self._survive("write")

    def test_a_killed_copy_leaves_whole_files(self) -> None:
        """After a kill during copies, source and copy hold whole contents, the copy none older than the last done."""
        self._survive("copy")

    def test_a_killed_copy_of_a_tree_leaves_whole_files(self) -> None:
        """After a kill during the copy of a tree, each file of both trees holds a whole content."""
        self._survive("tree")

    def _survive(self, job: str) -> None:
        factory, arguments = self.make_in()
        backend, generation = factory(*arguments), 0
        for _ in range(int(os.environ.get("TREENAIL_KILL_EXAMPLES", "2"))):
            done = _work_and_be_killed((factory, arguments, job, self.copy_tree(), generation))
            found = {path: _generation(backend, path) for path in list(backend.list()) if not self.is_own(path)}
            for path, least in done.items():
                if path == "copied":
                    trees = {each: now for each, now in found.items() if each.startswith("copied/")}
                    assert len(trees) == worker.FILES, f"the copy of a tree was done, but holds only {sorted(trees)}"
                    for each, now in trees.items():
                        assert now >= least, f"a kill took '{each}' back from content {least} to {now}"
                else:
                    assert path in found, f"'{path}' was written, but a kill took it"
                    assert found[path] >= least, f"a kill took '{path}' back from content {least} to {found[path]}"
            generation = max(found.values(), default=generation) + 1


def _work_and_be_killed(request: tuple[object, ...]) -> dict[str, int]:
    """Let a worker work, kill it at a random instant; return the last generation of each path that it said was done."""
    program = Path(worker.__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-P", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin)
            process.stdin.close()
            ready = process.stdout.readline()
            time.sleep(random.uniform(0, LONGEST_WAIT))
        finally:
            process.kill()
        said = process.stdout.read().decode()
    assert ready.strip() == b"ready", "the worker could not open the backend; see what it printed"
    lines = [line.rpartition(" ") for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return {path: int(generation) for path, _, generation in lines}


def _generation(backend: FileBackend, path: str) -> int:
    """Return of which generation a file's content is; it must be whole."""
    original = f"tree/{path.removeprefix('copied/')}" if path.startswith("copied/") else path
    name = "source" if path == "d/copy" else original
    data = backend.read(path)
    number = data.partition(b";")[0].rpartition(b":")[2]
    assert number.isdigit(), (
        f"after a kill, '{path}' of {len(data)} bytes begins with {data[:30]!r}, or is no file of ours"
    )
    expected = worker.content(name, int(number))
    assert data == expected, f"after a kill, '{path}' has {len(data)} bytes, whole it has {len(expected)}: a mixture"
    return int(number)

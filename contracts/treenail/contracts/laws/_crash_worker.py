"""Works on a file backend until it is killed; a program of its own, so that it starts in a moment.

It reads from its standard input, as pickle, what `FileCrashLaws` asks for, and prints one line as soon as something is
done: what was told so must be there after the process was killed.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from treenail.contracts.files import CopiesFiles
from treenail.kernel import FileBackend

FILES = 4
CHUNK = 20_000


def content(path: str, generation: int) -> bytes:
    """Return the one content of a path in a generation; no part of it is that of another generation."""
    return f"{path}:{generation};".encode() * (200 + generation % 5 * 3000)


def write_for_ever(backend: FileBackend, first: int) -> Iterator[tuple[str, int]]:
    """Overwrite some files again and again, whole or in chunks."""
    for generation in count(first):
        for number in range(FILES):
            path = f"d{number % 2}/file-{number}"
            data = content(path, generation)
            backend.write(path, data if generation % 2 else _chunks(data))
            yield path, generation


def copy_for_ever(backend: FileBackend, first: int) -> Iterator[tuple[str, int]]:
    """Change a file and copy it over another."""
    for generation in count(first):
        backend.write("source", content("source", generation))
        if isinstance(backend, CopiesFiles):
            backend.copy("source", "d/copy")
        else:
            backend.write("d/copy", _chunks(backend.read("source")))
        yield "d/copy", generation


def copy_trees_for_ever(
    copy_tree: Callable[[FileBackend, str, str], object], backend: FileBackend, first: int
) -> Iterator[tuple[str, int]]:
    """Change a tree and copy it to another place, by a function of the suite's."""
    for generation in count(first):
        for number in range(FILES):
            path = f"tree/tree/{number}" if number % 2 else f"tree/{number}"
            backend.write(path, content(path, generation))
        copy_tree(backend, "tree", "copied")
        yield "copied", generation


def copy_each(backend: FileBackend, source: str, target: str) -> None:
    """Copy a tree file by file."""
    for path in list(backend.list(source)):
        backend.write(f"{target}/{path[len(source) + 1 :]}", backend.read(path))


def _chunks(data: bytes) -> Iterable[bytes]:
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def main() -> None:
    """Open the backend, say that it works, work until killed."""
    factory, arguments, job, copy_tree, first = pickle.load(sys.stdin.buffer)
    backend = factory(*arguments)
    jobs = {"write": write_for_ever, "copy": copy_for_ever}
    work = copy_trees_for_ever(copy_tree or copy_each, backend, first) if job == "tree" else jobs[job](backend, first)
    print("ready", flush=True)
    for path, generation in work:
        print(path, generation, flush=True)


if __name__ == "__main__":
    main()

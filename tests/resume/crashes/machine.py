"""What this machine is made to do: a disk of its own that is full, a clock that jumps."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotDisturbError(Exception):
    """This machine does not let a disturbance be made; the message says why."""


@contextmanager
def own_disk(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a small file system at a directory; what lies on it stays there afterwards, on the larger one."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotDisturbError(f"a file system cannot be mounted here: {done.stderr.strip()}")
    kept = directory.with_name("kept")
    try:
        yield directory
        shutil.copytree(directory, kept, symlinks=True)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
    shutil.copytree(kept, directory, symlinks=True, dirs_exist_ok=True)


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def clock_library() -> Path:
    """Return the compiled library that sets clocks."""
    library = Path(tempfile.gettempdir()) / f"treenail-clock-{os.getuid()}" / "clock.so"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise CannotDisturbError("there is no C compiler for the library that sets clocks back")
        library.parent.mkdir(exist_ok=True)
        made = library.with_name(f"{os.getpid()}.so")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(made), str(Path(__file__).parent / "clock.c"), "-ldl"], check=True
        )
        made.replace(library)
    return library

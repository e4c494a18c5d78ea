"""The command that copies files between stores."""

from __future__ import annotations

from argparse import Namespace

from treenail.adapters.files import copyfile, isdir, stat, sync, transfer_progress
from treenail.kernel import FileError


def copy(options: Namespace) -> int:
    """Copy a file, or make one directory equal to another."""
    source, target = options.source, options.target
    if isdir(source):
        with transfer_progress(source) as advance:
            done = sync(
                source, target, delete=options.delete, concurrency=options.jobs, progress=lambda _, size: advance(size)
            )
        print(f"copied {len(done.copied)}, deleted {len(done.deleted)}, unchanged {done.unchanged}")
        return 0
    if options.delete:
        raise FileError("--delete is for directories, this is a file", where=source, mend="leave it out")
    size = stat(source).size
    with transfer_progress(source, size) as advance:
        written = copyfile(source, target, progress=advance)
    print(f"copied {written}")
    return 0


__all__ = ["copy"]

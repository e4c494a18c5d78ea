"""The command that copies files between stores."""

from __future__ import annotations

from argparse import Namespace

from treenail.adapters.files import copyfile, isdir, redacted, stat, sync, transfer_progress
from treenail.kernel import FileError


def copy(options: Namespace) -> int:
    """Copy a file, or make one directory equal to another."""
    source, target = options.source, options.target
    shown = redacted(source)
    if options.jobs < 1:
        raise FileError(f"--jobs is {options.jobs}", mend="it is at least 1")
    if isdir(source):
        with transfer_progress(shown) as advance:
            done = sync(
                source, target, delete=options.delete, concurrency=options.jobs, progress=lambda _, size: advance(size)
            )
        print(f"copied {len(done.copied)}, deleted {len(done.deleted)}, unchanged {done.unchanged}")
        return 0
    if options.delete:
        raise FileError("--delete is for directories, this is a file", where=shown, mend="leave it out")
    size = stat(source).size
    with transfer_progress(shown, size) as advance:
        written = copyfile(source, target, progress=advance)
    print(f"copied {redacted(written)}")
    return 0


__all__ = ["copy"]

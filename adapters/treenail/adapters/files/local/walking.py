"""Walks of a local directory in order of the bytes of whole paths."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from treenail.adapters.files.local.durable import UNFINISHED, failure

_HIDDEN: Final = os.fsencode(UNFINISHED)


def files_below(top: str) -> Iterator[bytes]:
    """Yield the files below a directory as paths relative to it, in order of their bytes.

    Kept in memory are the names of the directories from the top to where the walk stands, not those of the tree. Symbolic
    links to files are files; those to directories are not followed, so that a walk ends. What is not there yields nothing.

    Raises:
        FileError: A directory cannot be read.
    """
    root = os.path.join(os.fsencode(top), b"")
    waiting = [(b"", _names(root))]
    while waiting:
        lead, names = waiting[-1]
        if not names:
            waiting.pop()
            continue
        path = lead + names.pop()
        if path.endswith(b"/"):
            waiting.append((path, _names(root + path)))
        else:
            yield path


def links_below(top: str) -> Iterator[tuple[str, str]]:
    """Yield (path, where it leads) of the symbolic links below a directory that `files_below` leaves out.

    Raises:
        FileError: A directory cannot be read.
    """
    waiting = [""]
    while waiting:
        lead = waiting.pop()
        directory = os.path.join(top, lead)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    path = lead + entry.name
                    if entry.name.endswith(UNFINISHED):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    elif entry.is_symlink() and (leads := _leads(entry)):
                        yield path, leads
        except (FileNotFoundError, NotADirectoryError):  # there is none, or it went meanwhile
            continue
        except OSError as error:
            raise failure("list", directory, error) from error


def _leads(link: os.DirEntry[str]) -> str | None:
    """Return where a symbolic link leads that cannot be read as a file; None for one that can."""
    try:
        if link.is_dir():
            return "to a directory"
        return None if os.path.exists(link.path) else "nowhere"
    except OSError as error:
        return "in a circle" if error.errno == errno.ELOOP else f"where nothing can be seen ({error.strerror})"


def names_in(directory: str) -> list[bytes]:
    """Return the names of files and directories in a directory, sorted; those of directories, and of links to them, with a slash.

    Raises:
        FileError: The directory cannot be read.
    """
    return _names(os.fsencode(directory), linked=True)[::-1]


def _names(directory: bytes, *, linked: bool = False) -> list[bytes]:
    """Return the names in a directory, the last first: with a slash behind those of directories, they sort as paths do."""
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name + b"/" if entry.is_dir(follow_symlinks=linked) else entry.name
                for entry in entries
                if not entry.name.endswith(_HIDDEN) and (entry.is_dir(follow_symlinks=linked) or _is_file(entry))
            ]
    except (FileNotFoundError, NotADirectoryError):  # there is none, or it went meanwhile
        return []
    except OSError as error:
        raise failure("list", os.fsdecode(directory), error) from error
    names.sort(reverse=True)
    return names


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a symbolic link that leads nowhere
        return False

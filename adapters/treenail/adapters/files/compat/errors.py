"""Errors that are ours and Python's own at once, so that the `except` clauses of existing code go on working."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from treenail.kernel import FileError, FileMissingError


class StoreFailedError(FileError, OSError):
    """A store, or the disk, refused or failed."""

    number: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend)
        self.errno, self.strerror, self.filename = self.number, message, where


class AbsentError(FileMissingError, StoreFailedError, FileNotFoundError):
    """There is no such file or directory."""

    number = errno.ENOENT


class DirectoryError(StoreFailedError, IsADirectoryError):
    """A directory stands where a file is meant."""

    number = errno.EISDIR


class NoDirectoryError(StoreFailedError, NotADirectoryError):
    """A file stands where a directory is meant."""

    number = errno.ENOTDIR


class TakenError(StoreFailedError, FileExistsError):
    """Something has that name."""

    number = errno.EEXIST


class ForbiddenError(StoreFailedError, PermissionError):
    """There is no permission for it."""

    number = errno.EACCES


class SameFileError(StoreFailedError, shutil.SameFileError):
    """Source and target are the same file."""

    number = errno.EINVAL


class ArgumentValueError(FileError, ValueError):
    """An argument has the right type and no right value."""


class ArgumentTypeError(FileError, TypeError):
    """An argument is of the wrong type."""


class ContentError(FileError, AssertionError, ValueError):
    """A file, or an argument, is not what it must be; where the original asserts it."""


class BackendNameError(FileError, KeyError, ValueError):
    """No backend has that name or scheme, or one has it already."""


class NotOfferedError(FileError, NotImplementedError):
    """The store cannot do that."""


_BY_CAUSE: tuple[tuple[type[OSError], type[StoreFailedError]], ...] = (
    (shutil.SameFileError, SameFileError),
    (FileNotFoundError, AbsentError),
    (IsADirectoryError, DirectoryError),
    (NotADirectoryError, NoDirectoryError),
    (FileExistsError, TakenError),
    (PermissionError, ForbiddenError),
    (OSError, StoreFailedError),
)


def like(cause: BaseException | None) -> type[StoreFailedError]:
    """Return the class of ours that is also the class of a system's error."""
    return next((ours for theirs, ours in _BY_CAUSE if isinstance(cause, theirs)), StoreFailedError)


@contextmanager
def as_python_errors() -> Iterator[None]:
    """Raise what is only ours, or only the system's, as both.

    Raises:
        StoreFailedError: Or one of its subclasses: what the block raised as a `FileError` or an `OSError`.
    """
    try:
        yield
    except FileMissingError as error:
        if isinstance(error, OSError):
            raise
        kind = like(error.__cause__)
        if not issubclass(kind, DirectoryError | NoDirectoryError):  # a directory on the way, or at the end, is none
            kind = AbsentError
        raise kind(error.message, where=error.where, mend=error.mend) from error
    except FileError as error:
        if isinstance(error, OSError | ValueError | TypeError | KeyError | NotImplementedError):
            raise
        raise like(error.__cause__)(error.message, where=error.where, mend=error.mend) from error
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else None
        raise like(error)(error.strerror or str(error), where=where) from error

"""Lets the system begin to write a file to the disk before all of it is there, by sync_file_range(2) of Linux.

Python has no function for it; the manual page sync_file_range(2) describes the call.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Final

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and wait for nothing


def begin_write_back(descriptor: int, start: int, length: int) -> None:
    """Send a range of a file to the disk, and do not wait for it; nothing is durable before fsync, which tells all errors.

    Args:
        descriptor: Of the file.
        start: Where the range begins, in bytes.
        length: Of the range, in bytes.
    """
    if (call := _sync_file_range()) is not None:
        call(descriptor, start, length, _WRITE)


@cache
def _sync_file_range() -> ctypes._NamedFuncPointer | None:
    """Return the call of the C library on Linux, None elsewhere."""
    if sys.platform != "linux":
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if call is not None:
        call.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
        call.restype = ctypes.c_int
    return call

"""Opens local files only where no symbolic link is on the way, by openat2(2) of Linux, at the cost of one system call.

Python has no function for it; the manual page openat2(2) describes the call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from functools import cache
from typing import Final

_OPENAT2: Final = 437  # its number on every processor
_AT_FDCWD: Final = -100
_RESOLVE_NO_SYMLINKS: Final = 0x04
_SIZE: Final = 24  # of struct open_how: flags, mode, resolve
# Links; or a kernel before 5.6, a sandbox that forbids the call, a signal: then the usual call decides.
_UNDECIDED: Final = {errno.ELOOP, errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EINTR, errno.EAGAIN}


class LinklessOpener:
    """Opens files by absolute paths with the same flags each time.

    Args:
        flags: As `os.open` takes them.
    """

    def __init__(self, flags: int) -> None:
        self._how = struct.pack("QQQ", flags, 0, _RESOLVE_NO_SYMLINKS)

    def open(self, path: str) -> int | None:
        """Return a descriptor, or None where there are symbolic links on the way or the system cannot tell.

        Raises:
            OSError: It cannot be opened; as `os.open` raises it.
        """
        call = _system_call()
        if call is None:
            return None
        descriptor: int = call(_OPENAT2, _AT_FDCWD, os.fsencode(path), self._how, _SIZE)
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number in _UNDECIDED:
            return None
        raise OSError(number, os.strerror(number), path)

    def __reduce__(self) -> tuple[type[LinklessOpener], tuple[int]]:
        return LinklessOpener, struct.unpack("QQQ", self._how)[:1]


@cache
def _system_call() -> ctypes._NamedFuncPointer | None:
    """Return syscall(2) of the C library on Linux, None elsewhere."""
    if sys.platform != "linux":
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t
    call.restype = ctypes.c_long
    return call

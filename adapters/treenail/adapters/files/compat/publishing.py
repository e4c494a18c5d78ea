"""Open files whose content is published in a store when they are closed."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from treenail.adapters.files.compat import placing
from treenail.adapters.files.compat.errors import as_python_errors
from treenail.adapters.files.derived import download, upload
from treenail.adapters.files.mounts import Place


def published(
    place: Place, mode: str, *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
) -> IO[Any]:  # of texts or bytes, as the mode says
    """Open a temporary file that becomes a store's file when it is closed; not when its `with` block ends by an exception.

    Args:
        place: The file.
        mode: That of the built-in `open`; what "a" and "r+" keep is downloaded first.
        encoding: Of a text; UTF-8 when None.
        errors: What becomes of letters that it does not have, as in `open`.
        newline: What becomes of newlines, as in `open`.

    Raises:
        FileMissingError: It is opened by "r+", and there is no such file.
        FileError: The store failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="treenail-"))
    local = folder / "file"
    try:
        if "r" in mode or ("a" in mode and placing.is_file(place)):
            download(place.backend, place.path, local)
        raw = _Raw(local, mode.replace("b", "").replace("t", ""), place)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    binary = _Random(raw) if "+" in mode else _Writer(raw)
    return binary if "b" in mode else _Text(binary, encoding or "utf-8", errors, newline)


class _Raw(io.FileIO):
    """The temporary file."""

    def __init__(self, local: Path, mode: str, place: Place) -> None:
        super().__init__(local, mode)
        self._local, self._place = local, place
        self.abandoned = False

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            if not self.abandoned:
                with as_python_errors():
                    upload(self._local, self._place.backend, self._place.path)
                    placing.forget(self._place)
        finally:
            shutil.rmtree(os.path.dirname(self._local), ignore_errors=True)


def _abandon(file: _Writer | _Random, kind: object) -> None:
    raw = file.raw
    if kind is not None and isinstance(raw, _Raw):
        raw.abandoned = True


class _Writer(io.BufferedWriter):
    def __exit__(self, kind: object, *_: object) -> None:
        _abandon(self, kind)
        self.close()


class _Random(io.BufferedRandom):
    def __exit__(self, kind: object, *_: object) -> None:
        _abandon(self, kind)
        self.close()


class _Text(io.TextIOWrapper):
    def __init__(self, binary: _Writer | _Random, encoding: str, errors: str | None, newline: str | None) -> None:
        super().__init__(binary, encoding, errors, newline)
        self._binary = binary

    def __exit__(self, kind: object, *_: object) -> None:
        _abandon(self._binary, kind)
        self.close()

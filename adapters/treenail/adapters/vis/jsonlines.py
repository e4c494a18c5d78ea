"""Curves as local files: JSON lines, PNG images and texts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import BinaryIO

import msgspec
from torch import Tensor, nn

from treenail.contracts.vis import Histogram
from treenail.kernel import FileError, Record, require


class JsonLines:
    """Writes ``scalars.jsonl``, ``histograms.jsonl``, ``images/``, ``texts/``, ``config.txt`` and ``graph.txt``.

    A line of ``scalars.jsonl`` is a record: step, epoch, commit, attempt, and the values by name. One of ``histograms.jsonl``
    is a distribution: step, name, and the fields of `treenail.contracts.vis.Histogram`.

    Args:
        directory: Where; it is made when the run starts.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._file: BinaryIO | None = None
        self._histograms: BinaryIO | None = None
        self._encoder = msgspec.json.Encoder(enc_hook=float)  # a hook may publish a tensor

    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None:
        """Open the files; lines of earlier attempts from later commits are dropped."""
        path, histograms = self.directory / "scalars.jsonl", self.directory / "histograms.jsonl"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _drop_tail(path, "commit", commit)
            if histograms.exists():
                _drop_tail(histograms, "step", step)
            self._file = path.open("ab", buffering=0)  # a line is written at once, whatever happens then
        except OSError as error:
            raise _failed(error, path) from error

    def scalars(self, record: Record) -> None:
        """Add a line."""
        if self._file is None:
            raise FileError("scalars before start() or after close()", where=str(self.directory))
        values, step, epoch, commit, attempt = record
        own = {"step": step, "epoch": epoch, "commit": commit, "attempt": attempt}
        line = {**own, **values, **own}  # first in the line, and nobody's to replace
        self._append(self._file, line)

    def histogram(self, name: str, histogram: Histogram, *, step: int) -> None:
        """Add a line to ``histograms.jsonl``; the first one makes the file."""
        if self._file is None:
            raise FileError("a histogram before start() or after close()", where=str(self.directory))
        if self._histograms is None:
            path = self.directory / "histograms.jsonl"
            try:
                self._histograms = path.open("ab", buffering=0)
            except OSError as error:
                raise _failed(error, path) from error
        self._append(self._histograms, {"step": step, "name": name, **histogram._asdict()})

    def _append(self, file: BinaryIO, line: object) -> None:
        try:
            file.write(self._encoder.encode(line) + b"\n")
        except OSError as error:
            raise _failed(error, file.name) from error

    def image(self, name: str, image: Tensor, *, step: int) -> None:
        """Write ``images/NAME/STEP.png``.

        Raises:
            MissingDependencyError: Pillow is not installed.
            ValueError: The image has another form than float[1 or 3, height, width].
        """
        if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.is_floating_point():
            raise ValueError(f"an image is float[1 or 3, height, width], got {image.dtype}{list(image.shape)}")
        pillow = require("PIL.Image", extra="train", purpose="writing images")
        pixels = image.detach().cpu().clamp(0, 1).mul(255).round().byte()
        array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
        path = self._below("images", name) / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(array).save(path)

    def graph(self, model: nn.Module, inputs: Tensor) -> None:
        """Write the module tree and the example's shape to ``graph.txt``."""
        (self.directory / "graph.txt").write_text(f"inputs {list(inputs.shape)}\n{model}\n", encoding="utf-8")

    def config(self, config: str) -> None:
        """Write ``config.txt``."""
        (self.directory / "config.txt").write_text(config, encoding="utf-8")

    def text(self, name: str, text: str, *, step: int) -> None:
        """Write ``texts/NAME/STEP.txt``."""
        path = self._below("texts", name) / f"{step:08d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._histograms):
            if file is not None:
                file.close()
        self._file = self._histograms = None

    def _below(self, kind: str, name: str) -> Path:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r} is no name for a file")
        return self.directory.joinpath(kind, *parts)


def _failed(error: OSError, path: object) -> FileError:
    mend = "free some space there, or write the curves elsewhere" if error.errno == errno.ENOSPC else None
    return FileError(f"cannot write: {error.strerror}", where=str(path), mend=mend)


def _drop_tail(path: Path, key: str, last: int) -> None:
    """Keep the whole lines up to a commit, or a step; a line that a crash tore is dropped, too."""
    temporary = path.with_suffix(".tmp")
    with path.open("rb") as lines, temporary.open("wb") as file:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get(key), int) and record[key] <= last:
                file.write(line.rstrip(b"\n") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

"""Predictions in files, each with the index of its sample; memory holds one batch of them."""

from __future__ import annotations

import io
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import torch
from torch import Tensor

from treenail.adapters.evaluation.samples import as_plain, to_cpu
from treenail.adapters.files import JsonFormat, current_mounts, redacted
from treenail.kernel import TrainingError

_CHUNK = 2**22  # bytes that are read back at a time


class DumpPredictions:
    """Writes what a model predicts to a file, in the order of the data, each prediction with its sample's index.

    As a metric it measures nothing. On many ranks the predictions of all are written, by rank 0. The file is whole or as it was
    before; each pass over the data replaces it. Meanwhile predictions are kept in a temporary file of this machine.

    ========================= =============================================================================================
    ``….jsonl``               a line ``{"index": 0, "prediction": …}`` for each sample; of any form that JSON has
    ``….npy``                 one record for each sample, with the fields ``index`` and ``prediction``
    ``….safetensors``         the tensors ``index``, int64[samples], and ``prediction``, [samples, …]
    ========================= =============================================================================================

    The last two take predictions that are tensors of one shape; those of a mapping are called ``prediction/NAME``.

    Args:
        output: Path or URI of the file.

    Attributes:
        count: How many predictions were taken.

    Raises:
        ValueError: The file has another suffix.
    """

    def __init__(self, output: str) -> None:
        suffix = os.path.splitext(output)[1]
        if suffix not in _WRITERS:
            raise ValueError(f"output is {redacted(output)!r}, must end in {', '.join(_WRITERS)}")
        self.output = output
        self.count = 0
        self._writer = _WRITERS[suffix]()

    @property
    def result_names(self) -> tuple[str, ...]:
        """It measures nothing."""
        return ()

    def reset(self) -> None:
        """Forget everything taken; the file stays as it is."""
        self._writer.close()
        self._writer = type(self._writer)()
        self.count = 0

    def take(self, indices: Tensor | None, predictions: object) -> None:
        """Keep the predictions for a batch.

        Args:
            indices: The samples' indices in the dataset, int64[batch]; None: their places in the order of the data.
            predictions: Tensors [batch, …], lists of one a sample, or mappings and tuples of such.

        Raises:
            TrainingError: They are not of the file's form, or not as many as there are samples.
        """
        predictions = as_plain(to_cpu(predictions))
        rows = _length(predictions)
        if indices is None:
            indices = torch.arange(self.count, self.count + rows)
        if rows != len(indices):
            raise TrainingError(
                f"there are {rows} predictions for {len(indices)} samples", mend="let the model return one a sample"
            )
        if rows:
            self._writer.add(indices.cpu(), predictions)
            self.count += rows

    def compute(self) -> dict[str, float]:
        """Write the file, and measure nothing.

        Raises:
            TrainingError: Nothing was taken.
            FileError: The store refused or failed; the file is as it was.
        """
        if not self.count:
            raise TrainingError("there are no predictions to write", where=redacted(self.output))
        place = current_mounts().resolve(self.output)
        place.backend.write(place.file(), self._writer.contents())
        place.forget()
        return {}


class _Writer(ABC):
    """Predictions on their way into a file of one format."""

    def __init__(self) -> None:
        self._spools: dict[str, IO[bytes]] = {}

    @abstractmethod
    def add(self, indices: Tensor, predictions: Any) -> None:  # Any: the model says what it predicts
        """Keep the predictions for a batch, at least one."""

    @abstractmethod
    def contents(self) -> Iterator[bytes]:
        """Yield the file."""

    def spool(self, name: str, data: bytes) -> None:
        """Append to a temporary file."""
        if name not in self._spools:
            self._spools[name] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._spools[name].write(data)

    def spooled(self, name: str) -> Iterator[bytes]:
        """Yield a temporary file."""
        spool = self._spools[name]
        spool.seek(0)
        while chunk := spool.read(_CHUNK):
            yield chunk

    def close(self) -> None:
        """Remove the temporary files."""
        for spool in self._spools.values():
            spool.close()


class _Lines(_Writer):
    def __init__(self) -> None:
        super().__init__()
        self._format = JsonFormat()

    def add(self, indices: Tensor, predictions: Any) -> None:  # Any: as in the base
        lines = []
        for row, index in enumerate(indices.tolist()):
            try:
                lines.append(self._format.encode({"index": index, "prediction": _row(predictions, row)}) + b"\n")
            except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:  # torch's, of sparse tensors
                raise TrainingError(
                    f"the prediction for sample {index} cannot be written as JSON: {error}",
                    mend="let the model return tensors, numbers, texts, and lists and mappings of such",
                ) from error
        self.spool("lines", b"".join(lines))

    def contents(self) -> Iterator[bytes]:
        return self.spooled("lines")


class _Columns(_Writer):
    """Tensors of one shape and dtype a sample, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self.rows = 0

    def add(self, indices: Tensor, predictions: Any) -> None:  # Any: as in the base
        """Take the predictions of samples."""
        columns: dict[str, Tensor] = {}
        for name, column in [("index", indices), *_columns(predictions, "prediction")]:
            if name in columns:
                raise TrainingError(f"two predictions are called '{name}'", mend="give one of them another name")
            if column.layout != torch.strided:
                raise TrainingError(f"'{name}' is a sparse tensor", mend="let the model return it by to_dense()")
            columns[name] = column
        forms = {name: (column.dtype, tuple(column.shape[1:])) for name, column in columns.items()}
        self.forms = self.forms or forms
        for name in self.forms | forms:
            if forms.get(name) != self.forms.get(name):
                raise TrainingError(
                    f"'{name}' is {_form(forms.get(name))} for sample {int(indices[0])}, and was {_form(self.forms.get(name))}",
                    mend="write a .jsonl, whose predictions need not be alike",
                )
        if self.rows == 0:
            for name, (dtype, _) in forms.items():
                self.refuse_unwritable(name, dtype)
        self.rows += len(indices)
        self.keep({name: column.contiguous() for name, column in columns.items()})

    @abstractmethod
    def refuse_unwritable(self, name: str, dtype: torch.dtype) -> None:
        """Refuse what the format has no place for.

        Raises:
            TrainingError: It is such a name or dtype.
        """

    @abstractmethod
    def keep(self, columns: Mapping[str, Tensor]) -> None:
        """Keep contiguous columns [rows, …]."""


class _Records(_Columns):
    """A structured array of numpy's, format 1.0 (numpy.lib.format)."""

    def refuse_unwritable(self, name: str, dtype: torch.dtype) -> None:
        if dtype.itemsize == 1 and dtype.is_floating_point:
            raise TrainingError(f"numpy has no {dtype}", where=name, mend="write a .jsonl")
        try:
            name.encode("latin-1")
        except UnicodeEncodeError:
            mend = "write a .safetensors, or a .jsonl"
            raise TrainingError(f"'{name}' is no name that a .npy can have", mend=mend) from None

    def keep(self, columns: Mapping[str, Tensor]) -> None:
        """Write the rows of some samples."""
        import numpy as np

        arrays = {name: _array(column) for name, column in columns.items()}
        dtype = np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
        records = np.empty(len(arrays["index"]), dtype)
        for name, array in arrays.items():
            records[name] = array
        self.descr = np.lib.format.dtype_to_descr(dtype)
        self.spool("records", records.tobytes())

    def contents(self) -> Iterator[bytes]:
        import numpy as np

        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": self.descr, "fortran_order": False, "shape": (self.rows,)}
        )
        yield header.getvalue()
        yield from self.spooled("records")


class _Safetensors(_Columns):
    """The format of safetensors: the header's size, a header of JSON, and the tensors one after another."""

    def refuse_unwritable(self, name: str, dtype: torch.dtype) -> None:
        if dtype not in _SAFETENSORS:
            raise TrainingError(f"safetensors have no {dtype}", where=name, mend="write a .jsonl")

    def keep(self, columns: Mapping[str, Tensor]) -> None:
        for name, column in columns.items():
            self.spool(name, column.reshape(-1).view(torch.uint8).numpy().tobytes())

    def contents(self) -> Iterator[bytes]:
        header, end = {}, 0
        for name, (dtype, shape) in self.forms.items():
            begin, end = end, end + self._spools[name].seek(0, os.SEEK_END)
            header[name] = {"dtype": _SAFETENSORS[dtype], "shape": [self.rows, *shape], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for name in self.forms:
            yield from self.spooled(name)


_WRITERS: Mapping[str, type[_Writer]] = {".jsonl": _Lines, ".npy": _Records, ".safetensors": _Safetensors}

_SAFETENSORS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def _array(column: Tensor) -> Any:  # Any: an array of numpy's, of any dtype
    return (column.float() if column.dtype is torch.bfloat16 else column).numpy()  # which has no bfloat16


def _form(form: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "missing" if form is None else f"{str(form[0]).removeprefix('torch.')}{list(form[1])}"


def _length(predictions: Any) -> int:  # Any: as in `_Writer`
    """Return for how many samples predictions are."""
    if isinstance(predictions, Mapping):
        lengths = {_length(each) for each in predictions.values()}
    elif isinstance(predictions, tuple):
        lengths = {_length(each) for each in predictions}
    elif isinstance(predictions, list) or (isinstance(predictions, Tensor) and predictions.ndim):
        return len(predictions)
    else:
        lengths = set()
    if len(lengths) != 1:
        what = f"of {sorted(lengths)} samples" if lengths else f"a {type(predictions).__name__}"
        raise TrainingError(
            f"predictions are {what}, not one a sample",
            mend="let the model return tensors [batch, …], or a list of one a sample",
        )
    return lengths.pop()


def _row(predictions: Any, row: int) -> Any:  # Any: as in `_Writer`
    """Return what was predicted for one sample."""
    if isinstance(predictions, Mapping):
        named = {str(name): _row(each, row) for name, each in predictions.items()}
        if len(named) < len(predictions):
            raise TrainingError(
                f"two predictions share a name, among {', '.join(map(repr, predictions))}",
                mend="let names be different texts",
            )
        return named
    if isinstance(predictions, tuple):
        return [_row(each, row) for each in predictions]
    return predictions[row]


def _columns(predictions: Any, name: str) -> list[tuple[str, Tensor]]:  # Any: as in `_Writer`
    """Return predictions as tensors [samples, …], with their names."""
    if isinstance(predictions, Tensor):
        return [(name, predictions)]
    if isinstance(predictions, Mapping):
        return [pair for part, each in predictions.items() for pair in _columns(each, f"{name}/{part}")]
    if isinstance(predictions, tuple):
        return _columns(dict(enumerate(predictions)), name)
    first = predictions[0]
    if isinstance(first, Mapping) and all(
        isinstance(each, Mapping) and each.keys() == first.keys() for each in predictions
    ):
        return _columns({key: [each[key] for each in predictions] for key in first}, name)
    return [(name, _column(predictions, name))]


def _column(values: Sequence[Any], name: str) -> Tensor:  # Any: as in `_Writer`
    try:
        return torch.stack([torch.as_tensor(value) for value in values])
    except (RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the predictions for a batch are no tensors of one shape: {error}",
            where=name,
            mend="write a .jsonl, whose predictions need not be alike",
        ) from error

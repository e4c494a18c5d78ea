"""ONNX, run by onnxruntime before anybody else gets it."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from treenail.kernel import ExportError, ParityReport, require

_INLINE_LIMIT = 1_500_000_000  # bytes of weights; a protobuf message, hence a single .onnx file, ends at 2 GiB


class OnnxExporter:
    """Exports by torch's dynamo-based exporter, checks the file, and compares it with the model at several batch sizes.

    Input and output are called ``input`` and ``output``; the first dimension is free.

    Args:
        tolerance: Largest absolute difference that is accepted.
        opset: ONNX operator set; torch's default when None.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """

    def __init__(self, tolerance: float = 1e-4, opset: int | None = None) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, extra="onnx", purpose="ONNX export")
        self.tolerance = tolerance
        self.opset = opset

    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        """Export, compare, publish.

        Args:
            model: Takes one tensor, returns one tensor; exported in eval mode and given back as it was.
            inputs: Example of shape [batch, …], batch >= 1.
            destination: Path of the ``.onnx`` file; weights beyond 1.5 GB go to a file beside it.

        Raises:
            ExportError: The model cannot be exported or disagrees with the artefact; the destination is as before.
        """
        if inputs.ndim == 0 or len(inputs) == 0:
            raise ExportError(f"the example input has shape {list(inputs.shape)}", mend="give at least one sample")
        destination = Path(destination)
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with _eval_mode(model), tempfile.TemporaryDirectory(prefix=".treenail-", dir=destination.parent) as staging:
                staged = Path(staging) / destination.name
                self._write(model, inputs, staged)
                shapes, worst = self._compare(model, inputs, staged)
                files = _publish(Path(staging), destination)
        except OSError as error:
            raise ExportError(f"cannot write: {error.strerror or error}", where=str(destination)) from error
        return ParityReport(files=files, shapes=shapes, max_abs_error=worst, tolerance=self.tolerance)

    def _write(self, model: nn.Module, inputs: Tensor, path: Path) -> None:
        # Two samples: an exporter may take a batch of one for a constant.
        example = inputs if len(inputs) > 1 else torch.cat([inputs, inputs])
        size = sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()])
        try:
            with _silence():
                program = torch.onnx.export(
                    model,
                    (example,),
                    dynamo=True,
                    opset_version=self.opset,
                    input_names=["input"],
                    output_names=["output"],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    verbose=False,
                )
                assert program is not None  # it returns None only with dynamo=False
                program.save(str(path), external_data=size > _INLINE_LIMIT)
                require("onnx", extra="onnx", purpose="ONNX export").checker.check_model(str(path))
        except (ExportError, OSError):
            raise
        except Exception as error:  # the exporter raises many types of its own
            detail = str(error).strip().splitlines() or [""]
            raise ExportError(
                f"{type(model).__qualname__} cannot be exported: {type(error).__name__}: {detail[0]}",
                mend="run with --debug for the exporter's whole report",
            ) from error

    def _compare(self, model: nn.Module, inputs: Tensor, path: Path) -> tuple[tuple[tuple[int, ...], ...], float]:
        runtime = require("onnxruntime", extra="onnx", purpose="ONNX export")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types that its package does not export
            raise ExportError(f"onnxruntime does not load the artefact: {error}") from error
        worst, shapes = 0.0, []
        for batch in dict.fromkeys((len(inputs), 1, len(inputs) + 3)):
            sample = inputs[torch.arange(batch) % len(inputs)]
            try:
                with torch.inference_mode():
                    expected = model(sample)
            except Exception as error:  # a model raises whatever it likes
                detail = " ".join(str(error).split())
                raise ExportError(
                    f"the model itself fails on a batch of {batch}: {type(error).__name__}: {detail}",
                    mend="let it take any number of samples",
                ) from error
            if not isinstance(expected, Tensor):
                raise ExportError(f"the model returns a {type(expected).__name__}", mend="let it return one tensor")
            try:
                (found,) = session.run(None, {"input": sample.detach().cpu().numpy()})
            except Exception as error:  # likewise
                raise ExportError(f"the artefact fails on a batch of {batch}: {error}") from error
            shapes.append(tuple(sample.shape))
            result = torch.from_numpy(found)
            if result.shape != expected.shape:
                raise ExportError(
                    f"on a batch of {batch} the artefact returns {list(result.shape)}, the model {list(expected.shape)}"
                )
            difference = (result.double() - expected.cpu().double()).abs().max().item() if result.numel() else 0.0
            if not difference <= self.tolerance:  # also refuses NaN
                raise ExportError(
                    f"on a batch of {batch} the artefact differs from the model by {difference:.3g}, "
                    f"more than {self.tolerance:.3g}; nothing was published",
                    mend="does the model behave differently while it is exported, or branch on its data?",
                )
            worst = max(worst, difference)
        return tuple(shapes), worst


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress and its remarks on packages that are not needed from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _publish(staging: Path, destination: Path) -> tuple[str, ...]:
    """Move the files to their place: side files first, so that the artefact never lacks them."""
    staged = sorted(staging.iterdir(), key=lambda path: path.name == destination.name)
    published = []
    for path in staged:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target = destination.with_name(path.name)
        path.replace(target)
        published.append(str(target))
    return tuple(reversed(published))

"""A small honest exporter, for its mutants: TorchScript by tracing, which takes milliseconds."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

from treenail.kernel import ExportError, ParityReport


class TracedExporter:
    """Writes the traced model, and beside it a text about it (``NAME.txt``)."""

    tolerance = 1e-4

    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        staging = Path(mkdtemp())
        try:
            with self.eval_mode(model), torch.no_grad():
                staged = staging / destination.name
                self.write(model, inputs, staged)
                samples = self.samples(inputs)
                worst = self.compare(model, samples, staged)
            files = self.publish(staging, destination)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(f"{type(model).__qualname__} cannot be exported: {error}") from error
        finally:
            shutil.rmtree(staging)
        return self.report(files, samples, worst)

    @contextmanager
    def eval_mode(self, model: nn.Module) -> Iterator[None]:
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training

    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated, and warns of branches
            torch.jit.trace(model, inputs, check_trace=False).save(str(staged))  # type: ignore[no-untyped-call]
        staged.with_name(f"{staged.name}.txt").write_text(type(model).__qualname__)

    def samples(self, inputs: Tensor) -> list[Tensor]:
        """Return what to compare on: the example, one sample, more samples, and other values."""
        return [inputs, inputs[:1], torch.cat([inputs, inputs, inputs]), -inputs]

    def compare(self, model: nn.Module, samples: list[Tensor], staged: Path) -> float:
        worst = max((self.difference(run_traced(staged, each), model(each)) for each in samples), key=_nan_is_largest)
        if not worst <= self.tolerance:
            raise ExportError(f"the artefact differs from the model by {worst:.3g}")
        return worst

    def difference(self, found: Tensor, expected: Tensor) -> float:
        return (found - expected).abs().max().item()

    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        names = (destination.name, f"{destination.name}.txt")
        for name in names:
            shutil.copy(staging / name, unfinished := destination.with_name(f".{name}.unfinished"))
            os.replace(unfinished, destination.with_name(name))
        return tuple(str(destination.with_name(name)) for name in names)

    def report(self, files: tuple[str, ...], samples: list[Tensor], error: float) -> ParityReport:
        return ParityReport(files, tuple(tuple(each.shape) for each in samples), error, self.tolerance)


def run_traced(artefact: Path, inputs: Tensor) -> Tensor:
    """Load an artefact and run it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(artefact))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        outputs: Tensor = loaded(inputs)
    return outputs


def _nan_is_largest(error: float) -> float:
    return float("inf") if error != error else error

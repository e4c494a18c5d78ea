"""The laws of an `Exporter`."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from treenail.contracts.laws._models import (
    BatchSizedNet,
    BranchingNet,
    BrokenNet,
    Net,
    OneBatchNet,
    TwoFacedNet,
    batch,
)
from treenail.contracts.laws._support import accepted, refused
from treenail.kernel import Exporter, ExportError

BATCHES = (1, 2, 3, 4, 7, 16)


class ExporterLaws(ABC):
    """What every exporter obeys: subclass it, define `make` and `run`, and let pytest collect the subclass."""

    @abstractmethod
    def make(self) -> Exporter:
        """Return an exporter."""

    @abstractmethod
    def run(self, artefact: Path, inputs: Tensor) -> Tensor:
        """Load an artefact as its users do and return what it gives for a batch of inputs."""

    def _assert_equal(self, artefact: Path, model: nn.Module, sizes: tuple[int, ...] = BATCHES) -> float:
        """Compare an artefact with a model in eval mode, and return the largest error."""
        reference, largest = copy.deepcopy(model).eval(), 0.0
        for size in sizes:
            for inputs in (batch(size, 11), -batch(size, 11)):
                with torch.no_grad():
                    expected = reference(inputs)
                with accepted(f"a batch of {size} by the artefact"):
                    found = self.run(artefact, inputs)
                what = f"a batch of {size}: the artefact gives {tuple(found.shape)}"
                assert found.shape == expected.shape, f"{what}, the model {tuple(expected.shape)}"
                error = float((found - expected).abs().max())
                assert error < 1e-3, f"a batch of {size}: the artefact is off by {error:.3g}"
                largest = max(largest, error)
        return largest

    def test_an_artefact_equals_its_model(self) -> None:
        """The artefact gives what the model gives in eval mode, at batch sizes that the example had and others."""
        for size in (1, 4):  # an example of one sample must not fix the batch size, either
            with _directory() as directory:
                model = Net().eval()
                self.make().export(model, batch(size), directory / "model")
                self._assert_equal(directory / "model", model)

    def test_a_model_in_train_mode_is_exported_in_eval_mode(self) -> None:
        """Dropout is off and batch norm uses its statistics in the artefact, though the model is training."""
        with _directory() as directory:
            model = Net().train()
            self.make().export(model, batch(4), directory / "model")
            self._assert_equal(directory / "model", model)

    def test_the_model_comes_back_untouched(self) -> None:
        """Each module's mode, the weights, buffers, requires_grad and gradients are as before, also after a refusal."""
        for kind in (Net, BrokenNet):
            model = kind().train()
            model.features[1].eval()  # a frozen batch norm in a model that trains
            model.head.requires_grad_(False)
            model.features(batch(2)).sum().backward()
            before = _everything(model)
            with _directory() as directory:
                try:
                    self.make().export(model, batch(4), directory / "model")
                except ExportError:
                    assert kind is BrokenNet, "an exportable model was refused"
            changed = sorted(name for name, value in _everything(model).items() if not _same(value, before.get(name)))
            assert not changed, f"export of a {kind.__name__} changed {', '.join(changed)}"

    def test_the_inputs_come_back_untouched(self) -> None:
        """The example input and the grad mode are as before."""
        inputs = batch(4)
        with _directory() as directory, torch.enable_grad():
            self.make().export(Net().train(), inputs, directory / "model")
            assert torch.is_grad_enabled(), "export left gradients disabled"
        assert torch.equal(inputs, batch(4)), "export wrote into the example input"
        assert not inputs.requires_grad, "export made the example input require a gradient"

    def test_the_report_names_every_file(self) -> None:
        """The files of the report exist, the artefact first; side files begin with its name; nothing else is left."""
        with _directory() as directory:
            (directory / "neighbour").write_bytes(b"of somebody else")
            destination = directory / "model.bin"
            report = self.make().export(Net().eval(), batch(4), destination)
            assert report.files, "the report names no file"
            assert Path(report.files[0]) == destination, f"the first file is {report.files[0]}, not {destination}"
            for file in report.files:
                assert Path(file).is_file(), f"the report names {file}, which does not exist"
                assert Path(file).name.startswith("model.bin"), f"the side file {file} does not begin with 'model.bin'"
            found = {name for name in _contents(directory) if name != "neighbour"}
            expected = {str(Path(file).relative_to(directory)) for file in report.files}
            assert found == expected, f"the report names {sorted(expected)}, in the directory lie {sorted(found)}"
            assert _contents(directory)["neighbour"] == b"of somebody else", "export changed a file that is not its own"

    def test_the_report_is_true(self) -> None:
        """max_abs_error is what comparing artefact and model gives, and at most the tolerance."""
        with _directory() as directory:
            honest = self.make().export(Net().eval(), batch(4), directory / "model")
            assert math.isfinite(honest.tolerance), f"the tolerance is {honest.tolerance}"
            assert 0 <= honest.max_abs_error <= honest.tolerance, f"{honest.max_abs_error} > {honest.tolerance}"
            # A model that is off while it is exported, by less than the tolerance: the error is known, and not 0.
            model = TwoFacedNet(honest.tolerance / 2).eval()
            report = self.make().export(model, batch(4), directory / "model")
            error = self._assert_equal(directory / "model", model, tuple(shape[0] for shape in report.shapes))
            message = f"the report says {report.max_abs_error:.3g}, comparing gives {error:.3g}"
            assert abs(report.max_abs_error - error) <= honest.tolerance / 8, message
            assert report.max_abs_error <= report.tolerance, f"{report.max_abs_error} > {report.tolerance}"

    def test_several_batch_sizes_were_compared(self) -> None:
        """The report's shapes are those of the example but for two batch sizes or more."""
        with _directory() as directory:
            shapes = self.make().export(Net().eval(), batch(4), directory / "model").shapes
            sizes = {shape[0] for shape in shapes}
            assert len(sizes) >= 2, f"compared were the batch sizes {sorted(sizes)}, must be at least two"
            assert all(shape[1:] == batch(1).shape[1:] for shape in shapes), f"compared were the shapes {shapes}"

    def test_a_disagreeing_artefact_is_not_published(self) -> None:
        """A model that behaves otherwise while it is exported raises ExportError, and nothing is published."""
        with _directory() as directory:
            tolerance = self.make().export(Net().eval(), batch(4), directory / "probe").tolerance
        for offset in (float("nan"), 3 * tolerance):
            with _directory() as directory:
                with refused(f"a model that is off by {offset:.3g} while being exported", ExportError):
                    self.make().export(TwoFacedNet(offset).eval(), batch(4), directory / "model")
                left = sorted(_contents(directory))
                assert not left, f"after a refused export there are {left}"

    def test_a_refused_export_keeps_the_published_artefact(self) -> None:
        """A refusal leaves the files of an earlier export as they were, byte for byte."""
        with _directory() as directory:
            self.make().export(Net().eval(), batch(4), directory / "model")
            before = _contents(directory)
            for bad in (TwoFacedNet(1.0), BrokenNet()):
                with refused(f"the export of a {type(bad).__name__}", ExportError):
                    self.make().export(bad.eval(), batch(4), directory / "model")
                changed = sorted(name for name, _ in before.items() ^ _contents(directory).items())
                assert not changed, f"the refused export of a {type(bad).__name__} changed {changed}"

    def test_an_export_replaces_the_one_before(self) -> None:
        """Exported to the same place again, the artefact is of the new model, and no file of the old one is left."""
        with _directory() as directory:
            self.make().export(Net(seed=1).eval(), batch(4), directory / "model")
            model = Net(seed=2).eval()
            report = self.make().export(model, batch(4), directory / "model")
            self._assert_equal(directory / "model", model)
            found = {str(directory / name) for name in _contents(directory)}
            assert found == set(report.files), f"the report names {report.files}, there are {sorted(found)}"

    def test_a_model_that_cannot_be_exported_is_refused(self) -> None:
        """A model that raises while exported, or works for the example's batch size alone, raises ExportError."""
        for model in (BrokenNet(), OneBatchNet()):
            with _directory() as directory:
                with refused(f"the export of a {type(model).__name__}", ExportError):
                    self.make().export(model.eval(), batch(4), directory / "model")
                left = sorted(_contents(directory))
                assert not left, f"after the refused export of a {type(model).__name__} there are {left}"

    def test_the_batch_size_is_not_recorded(self) -> None:
        """A model that computes with its batch size is exported right, or refused."""
        self._assert_right_or_refused(BatchSizedNet().eval())

    def test_a_branch_is_not_recorded(self) -> None:
        """A model that branches on the values of its inputs is exported right, or refused."""
        self._assert_right_or_refused(BranchingNet().eval())

    def _assert_right_or_refused(self, model: nn.Module) -> None:
        with _directory() as directory:
            try:
                self.make().export(model, batch(4), directory / "model")
            except ExportError:
                assert not _contents(directory), f"after a refused export there are {sorted(_contents(directory))}"
            else:
                self._assert_equal(directory / "model", model)


@contextmanager
def _directory() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


def _contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _everything(model: nn.Module) -> dict[str, object]:
    """Return whatever an export must not change, copied."""
    found: dict[str, object] = {}
    for name, module in model.named_modules():
        found[f"the mode of '{name}'"] = module.training
    for name, tensor in model.state_dict(keep_vars=True).items():
        found[f"'{name}'"] = tensor.detach().clone()
        found[f"requires_grad of '{name}'"] = tensor.requires_grad
        found[f"the identity of '{name}'"] = id(tensor)
        found[f"the gradient of '{name}'"] = None if tensor.grad is None else tensor.grad.clone()
    return found


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second) and first.dtype == second.dtype and first.device == second.device
    return first == second

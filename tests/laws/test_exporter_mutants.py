"""Each law of exporters fails on an exporter that breaks it, and on none of them where the exporter is honest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treenail.contracts.laws import ExporterLaws
from treenail.kernel import Exporter, ExportError, ParityReport

from .mutation import Law, assert_all_proved, assert_kills
from .traced import TracedExporter, run_traced


class ExporterSuite(ExporterLaws):
    exporter: type[TracedExporter] = TracedExporter

    def make(self) -> Exporter:
        return self.exporter()

    def run(self, artefact: Path, inputs: Tensor) -> Tensor:
        return run_traced(artefact, inputs)


class TestTracedExporter(ExporterSuite):
    """The base of the mutants is honest."""


class RecordsTheBatchSize(TracedExporter):
    """Its artefact works for the example's batch size, the only one it looks at."""

    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        class Fixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, x: Tensor) -> Tensor:
                outputs: Tensor = self.model(x)
                return outputs * torch.ones(len(inputs), 1)

        super().write(Fixed().eval(), inputs, staged)

    def samples(self, inputs: Tensor) -> list[Tensor]:
        return [inputs, -inputs]


class ExportsInTheModeItFinds(TracedExporter):
    """Compares in train mode, too: with one seed the dropout of both is the same."""

    @contextmanager
    def eval_mode(self, model: nn.Module) -> Iterator[None]:
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        yield
        model.load_state_dict(kept)

    def difference(self, found: Tensor, expected: Tensor) -> float:
        return 0.0


class LeavesEvalMode(TracedExporter):
    @contextmanager
    def eval_mode(self, model: nn.Module) -> Iterator[None]:
        model.eval()
        yield


class RestoresTheModeOfTheRoot(TracedExporter):
    """What ``model.train(was_training)`` does to a frozen batch norm."""

    @contextmanager
    def eval_mode(self, model: nn.Module) -> Iterator[None]:
        training = model.training
        model.eval()
        try:
            yield
        finally:
            model.train(training)


class RestoresModesOnSuccess(TracedExporter):
    @contextmanager
    def eval_mode(self, model: nn.Module) -> Iterator[None]:
        modes = {module: module.training for module in model.modules()}
        model.eval()
        yield
        for module, training in modes.items():
            module.training = training


class FreezesTheModel(TracedExporter):
    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        super().write(model.requires_grad_(False), inputs, staged)


class UpdatesStatistics(TracedExporter):
    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        super().write(model, inputs, staged)
        model.train()(inputs)
        model.eval()


class DropsGradients(TracedExporter):
    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        model.zero_grad()
        super().write(model, inputs, staged)


class LeavesGradientsDisabled(TracedExporter):
    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        torch.set_grad_enabled(False)
        return super().export(model, inputs, destination)


class WritesIntoTheInputs(TracedExporter):
    def samples(self, inputs: Tensor) -> list[Tensor]:
        return [inputs.mul_(2), inputs[:1], -inputs]


class ForgetsSideFilesInTheReport(TracedExporter):
    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        return super().publish(staging, destination)[:1]


class NamesTheSideFileFirst(TracedExporter):
    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        return super().publish(staging, destination)[::-1]


class ReportsItsStaging(TracedExporter):
    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        return (*super().publish(staging, destination), str(staging / destination.name))


class LeavesItsStaging(TracedExporter):
    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        (destination.parent / "staging").mkdir(exist_ok=True)
        (destination.parent / "staging" / destination.name).write_bytes((staging / destination.name).read_bytes())
        return super().publish(staging, destination)


class ReportsNoError(TracedExporter):
    def report(self, files: tuple[str, ...], samples: list[Tensor], error: float) -> ParityReport:
        return super().report(files, samples, 0.0)


class ReportsASmallerTolerance(TracedExporter):
    def report(self, files: tuple[str, ...], samples: list[Tensor], error: float) -> ParityReport:
        return super().report(files, samples, error)._replace(tolerance=-1.0)


class ComparesTheExampleAlone(TracedExporter):
    def samples(self, inputs: Tensor) -> list[Tensor]:
        return [inputs]


class ComparesOneBatchSize(TracedExporter):
    def samples(self, inputs: Tensor) -> list[Tensor]:
        return [inputs, -inputs]


class ComparesPositiveSums(TracedExporter):
    """Looks at several batch sizes, all of the example's own samples."""

    def samples(self, inputs: Tensor) -> list[Tensor]:
        return [inputs, inputs[:1], torch.cat([inputs, inputs])]


class DoesNotCompare(TracedExporter):
    def compare(self, model: nn.Module, samples: list[Tensor], staged: Path) -> float:
        return 0.0


class TakesNanForSmall(TracedExporter):
    def difference(self, found: Tensor, expected: Tensor) -> float:
        return float((found - expected).abs().nan_to_num(0).max())


class AcceptsMoreThanItSays(TracedExporter):
    def difference(self, found: Tensor, expected: Tensor) -> float:
        return super().difference(found, expected) / 5


class ComparesAfterItPublished(TracedExporter):
    def write(self, model: nn.Module, inputs: Tensor, staged: Path) -> None:
        super().write(model, inputs, staged)
        self.publish(staged.parent, self.destination)

    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        self.destination = destination
        return super().export(model, inputs, destination)


class ClearsItsPlaceFirst(TracedExporter):
    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        destination.unlink(missing_ok=True)
        return super().export(model, inputs, destination)


class KeepsTheFirstArtefact(TracedExporter):
    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        if destination.exists():
            return str(destination), f"{destination}.txt"
        return super().publish(staging, destination)


class NumbersItsSideFiles(TracedExporter):
    """A new side file each time, and the old ones stay."""

    def publish(self, staging: Path, destination: Path) -> tuple[str, ...]:
        files = super().publish(staging, destination)
        side = destination.with_name(f"{destination.name}.{len(list(destination.parent.iterdir()))}.txt")
        Path(files[1]).rename(side)
        return files[0], str(side)


class RaisesWhatTorchRaises(TracedExporter):
    def export(self, model: nn.Module, inputs: Tensor, destination: Path) -> ParityReport:
        try:
            return super().export(model, inputs, destination)
        except ExportError as error:
            raise (error.__cause__ or error) from None


MUTANTS: list[tuple[type[TracedExporter], Law]] = [
    (RecordsTheBatchSize, ExporterLaws.test_an_artefact_equals_its_model),
    (ExportsInTheModeItFinds, ExporterLaws.test_a_model_in_train_mode_is_exported_in_eval_mode),
    (LeavesEvalMode, ExporterLaws.test_the_model_comes_back_untouched),
    (RestoresTheModeOfTheRoot, ExporterLaws.test_the_model_comes_back_untouched),
    (RestoresModesOnSuccess, ExporterLaws.test_the_model_comes_back_untouched),
    (FreezesTheModel, ExporterLaws.test_the_model_comes_back_untouched),
    (UpdatesStatistics, ExporterLaws.test_the_model_comes_back_untouched),
    (DropsGradients, ExporterLaws.test_the_model_comes_back_untouched),
    (LeavesGradientsDisabled, ExporterLaws.test_the_inputs_come_back_untouched),
    (WritesIntoTheInputs, ExporterLaws.test_the_inputs_come_back_untouched),
    (ForgetsSideFilesInTheReport, ExporterLaws.test_the_report_names_every_file),
    (NamesTheSideFileFirst, ExporterLaws.test_the_report_names_every_file),
    (ReportsItsStaging, ExporterLaws.test_the_report_names_every_file),
    (LeavesItsStaging, ExporterLaws.test_the_report_names_every_file),
    (ReportsNoError, ExporterLaws.test_the_report_is_true),
    (ReportsASmallerTolerance, ExporterLaws.test_the_report_is_true),
    (ComparesTheExampleAlone, ExporterLaws.test_several_batch_sizes_were_compared),
    (DoesNotCompare, ExporterLaws.test_a_disagreeing_artefact_is_not_published),
    (TakesNanForSmall, ExporterLaws.test_a_disagreeing_artefact_is_not_published),
    (AcceptsMoreThanItSays, ExporterLaws.test_a_disagreeing_artefact_is_not_published),
    (ComparesAfterItPublished, ExporterLaws.test_a_disagreeing_artefact_is_not_published),
    (ComparesAfterItPublished, ExporterLaws.test_a_refused_export_keeps_the_published_artefact),
    (ClearsItsPlaceFirst, ExporterLaws.test_a_refused_export_keeps_the_published_artefact),
    (KeepsTheFirstArtefact, ExporterLaws.test_an_export_replaces_the_one_before),
    (NumbersItsSideFiles, ExporterLaws.test_an_export_replaces_the_one_before),
    (RaisesWhatTorchRaises, ExporterLaws.test_a_model_that_cannot_be_exported_is_refused),
    (ComparesOneBatchSize, ExporterLaws.test_the_batch_size_is_not_recorded),
    (ComparesPositiveSums, ExporterLaws.test_a_branch_is_not_recorded),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS)
def test_the_law_kills_the_mutant(mutant: type[TracedExporter], law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = ExporterSuite()
    suite.exporter = mutant
    with torch.enable_grad():  # one mutant leaves them disabled
        assert_kills(suite, law, monkeypatch)


def test_every_law_has_a_mutant() -> None:
    assert_all_proved(ExporterLaws, [law for _, law in MUTANTS])

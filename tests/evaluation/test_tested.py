"""What a test takes: checkpoints and files of weights, data of the config, the hooks that have a part in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.evaluation.models import Detector, Net, PerBatch, Rows
from tests.evaluation.test_predict import config
from treenail.adapters.averaging import exponential_average
from treenail.adapters.cli.main import main
from treenail.adapters.comm import run_threads
from treenail.adapters.export import OnnxExporter
from treenail.adapters.hooks import AveragingHook, BestHook, CheckpointHook, EarlyStoppingHook, ProbeHook
from treenail.adapters.hooks.compat import Hook as MmengineHook
from treenail.adapters.hooks.compat import LoggerHook, NaiveVisualizationHook, Runner
from treenail.adapters.hooks.probed import ProbedModule
from treenail.adapters.loops import EpochLoop
from treenail.adapters.models import BaseTTAModel
from treenail.adapters.runtime import export, predict, train
from treenail.adapters.runtime import test as evaluate
from treenail.contracts import Data, Evaluation, LoadFrom, Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Engine,
    Hook,
    HookError,
    Spec,
    TrainingError,
    late,
    spec,
)

ROWS = Evaluation(dataset=spec(Rows)(5), batch_size=2)
FEW = Evaluation(dataset=spec(Rows)(2), batch_size=2)


def trained_run(**changes: object) -> Run:
    hooks = {"progress": None, "checkpoint": spec(CheckpointHook)(published=("last",))}
    averaging = late(exponential_average)(momentum=0.5)
    given: dict[str, Any] = {"val": FEW, "hooks": hooks, "averaging": averaging, **changes}
    return msgspec.structs.replace(config(), **given)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("run")
    train(trained_run(), found)
    return found


@pytest.fixture(scope="module")
def published(work_dir: Path) -> Path:
    return next((work_dir / "checkpoints" / "published").iterdir())


@pytest.fixture(scope="module")
def results(work_dir: Path) -> dict[str, float]:
    return {**_records(work_dir)[-1], **evaluate(trained_run(), work_dir / "checkpoints" / "latest")}


def _records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "jsonlines" / "scalars.jsonl").read_text().splitlines()]


def weights_of(published: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(published)


def test_a_published_file_is_tested_as_its_checkpoint_is(published: Path, results: dict[str, float]) -> None:
    assert evaluate(trained_run(), published) == {"test/loss": results["test/loss"]}
    assert evaluate(trained_run(averaging=None), str(published)) == {"test/loss": results["test/loss"]}


def test_files_of_others_are_tested_predicted_and_exported(
    published: Path, results: dict[str, float], tmp_path: Path
) -> None:
    weights = weights_of(published)
    prefixed = {f"net.{name}": each for name, each in weights.items()}
    torch.save({"state_dict": weights, "meta": {"mmengine_version": "0.10.7"}}, tmp_path / "mm.pth")
    torch.save({"state_dict": prefixed, "pytorch-lightning_version": "2.5.0"}, tmp_path / "epoch=1.ckpt")
    save_file(weights, tmp_path / "plain.safetensors")
    run = trained_run()
    of_lightning = msgspec.structs.replace(run, load_from=LoadFrom(path=str(tmp_path / "epoch=1.ckpt"), prefix="net"))
    named = [(run, "mm.pth"), (run, "plain.safetensors"), (of_lightning, "./epoch=1.ckpt"), (of_lightning, "mm.pth")]
    for number, (each, name) in enumerate(named):
        path = f"{tmp_path}/{name}"
        assert evaluate(each, path) == {"test/loss": results["test/loss"]}
        predict(each, path, str(tmp_path / f"{number}.jsonl"))
    assert len({(tmp_path / f"{number}.jsonl").read_bytes() for number in range(len(named))}) == 1
    with pytest.raises(CheckpointError, match=r"did you mean prefix: net.*say so by load_from=\{path: .*ckpt, …\}"):
        evaluate(run, tmp_path / "epoch=1.ckpt")
    assert export(of_lightning, tmp_path / "epoch=1.ckpt", OnnxExporter(), tmp_path / "net.onnx").max_abs_error < 1e-4


class Scaled(nn.Module):
    """A loss with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) * self.scale


def test_weights_that_are_not_just_those_of_the_model_are_refused(published: Path, tmp_path: Path) -> None:
    weights = weights_of(published)
    save_file({**weights, "head.weight": torch.ones(1)}, tmp_path / "more.safetensors")
    save_file({"layer.weight": weights["layer.weight"]}, tmp_path / "less.safetensors")
    save_file({**weights, "layer.bias": torch.ones(4)}, tmp_path / "other.safetensors")
    partial = LoadFrom(path=str(tmp_path / "less.safetensors"), strict=False)
    for name, message in (("more", "unexpected.*head.weight"), ("less", "layer.bias"), ("other", r"float32\[4\]")):
        with pytest.raises(CheckpointError, match=f"not just the weights of the model; .*{message}"):
            evaluate(trained_run(load_from=partial), tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"a Scaled has weights of its own.* name a checkpoint, or leave out the"):
        evaluate(trained_run(loss=spec(Scaled)()), published)
    predict(trained_run(loss=spec(Scaled)()), published, str(tmp_path / "a.jsonl"))


def test_the_validation_of_a_checkpoint_is_that_of_its_training(
    work_dir: Path, results: dict[str, float], tmp_path: Path
) -> None:
    latest = work_dir / "checkpoints" / "latest"
    output = tmp_path / "results.json"
    trained = next(each for each in _records(work_dir) if "val/loss" in each)
    assert evaluate(trained_run(), latest, data="val", output=str(output)) == {"val/loss": trained["val/loss"]}
    assert json.loads(output.read_text()) == {"val/loss": trained["val/loss"]}
    assert trained["val/loss"] != results["test/loss"]
    several = trained_run(test={"few": FEW, "more": ROWS})
    assert evaluate(several, latest, data="test/more") == {"test/more/loss": results["test/loss"]}
    assert evaluate(several, latest).keys() == {"test/few/loss", "test/more/loss"}
    for data, message in (
        ("predict", "no data 'predict'; choose test or val"),
        ("test/mor", "did you mean 'test/more'"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(several, latest, data=data)
    with pytest.raises(ConfigError, match="the output is a directory"):
        evaluate(several, latest, output=str(tmp_path))


class Tells(Hook):
    """Writes what it is told at points of a test."""

    def __init__(self, path: str) -> None:
        self.path = path

    def before_run(self, engine: Engine) -> None:
        self._say("run")

    def before_train(self, engine: Engine) -> None:
        self._say("train")

    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self._say(f"{batch_index} at {engine.step}")

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self._say(", ".join(metrics))
        engine.request_checkpoint("good")

    def _say(self, text: str) -> None:
        with Path(self.path).open("a") as file:
            file.write(f"{text}\n")


class OfTraining(Hook):
    """Must not be asked."""

    def before_run(self, engine: Engine) -> None:
        raise AssertionError("it has no point of a test")

    after_run = before_run

    def after_train_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        raise AssertionError("nothing trains")


class Sees(MmengineHook):
    """Writes what a hook of mmengine's sees."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        assert metrics is not None
        batches = len(runner.test_dataloader)
        (Path(runner.work_dir) / "seen").write_text(f"{', '.join(metrics)} at {runner.iter}, {batches} batches")


def test_hooks_with_a_point_of_a_test_take_part_where_there_is_a_work_directory(
    work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = {
        "progress": None,
        "tells": spec(Tells)(str(tmp_path / "told")),
        "sees": spec(Sees)(),
        "training": spec(OfTraining)(),
        "averaging": spec(AveragingHook)(),
        "best": spec(BestHook)("val/loss"),
        "early": spec(EarlyStoppingHook)("val/loss", "min"),
    }
    run = trained_run(hooks=hooks, priorities={"training": 3, "tells": 90, "vis": 30})
    latest = work_dir / "checkpoints" / "latest"
    plain = evaluate(run, latest)
    assert "without a work directory these hooks do not run: tells, sees" in capsys.readouterr().err
    assert not (tmp_path / "told").exists()
    place = tmp_path / "test"
    assert evaluate(run, latest, work_dir=place) == plain
    assert (place / "seen").read_text() == "loss at 2, 3 batches"
    assert (tmp_path / "told").read_text().split("\n")[:-1] == ["run", "0 at 2", "1 at 2", "2 at 2"]
    assert _records(place) == [{"step": 2, "epoch": 1, "commit": 1, "attempt": 1, **plain}]
    line = json.loads((place / "log.jsonl").read_text())
    assert (line["event"], line["test/loss"]) == ("test", plain["test/loss"])
    (tmp_path / "told").unlink()
    found = evaluate(run, latest, work_dir=tmp_path / "val", data="val")
    assert (tmp_path / "told").read_text() == "run\nval/loss\n"
    assert _records(tmp_path / "val")[0]["val/loss"] == found["val/loss"]
    with pytest.raises(ConfigError, match="there are files in this directory, and a test writes over nothing"):
        evaluate(run, latest, work_dir=place)
    assert len(_records(place)) == 1


class Stops(Hook):
    def before_test_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        engine.request_stop("enough")


class Misspelt(Hook):
    def after_test_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        """Do nothing."""

    def after_tset(self, engine: Engine) -> None:
        """Never fire."""


def test_a_hook_that_stops_a_test_or_is_misspelt_ends_it(work_dir: Path, tmp_path: Path) -> None:
    latest = work_dir / "checkpoints" / "latest"
    with pytest.raises(TrainingError, match=r"the test was stopped \(enough\), there are no results"):
        evaluate(trained_run(hooks={"stops": spec(Stops)()}), latest, work_dir=tmp_path / "a")
    with pytest.raises(HookError, match="'after_tset' is not a hook point"):
        evaluate(trained_run(hooks={"misspelt": spec(Misspelt)()}), latest, work_dir=tmp_path / "b")


class Rounds(Hook):
    """A point of a loop's own."""

    def before_round(self, engine: Engine, /) -> None:
        """Before a round."""


class InRounds(EpochLoop):
    """Has it."""

    hook_points = Rounds


class OfBoth(Rounds):
    """Has a part in rounds, and in a test."""

    def __init__(self, path: str) -> None:
        self.path = path

    def before_round(self, engine: Engine) -> None:
        """Do nothing."""

    def after_test(self, engine: Engine) -> None:
        Path(self.path).write_text("tested")


def test_a_hook_may_have_points_of_the_training_loop_besides(work_dir: Path, tmp_path: Path) -> None:
    hooks = {"both": spec(OfBoth)(str(tmp_path / "told"))}
    run = trained_run(loop=late(InRounds)(max_epochs=1), hooks=hooks)
    evaluate(run, work_dir / "checkpoints" / "latest", work_dir=tmp_path / "there")
    assert (tmp_path / "told").read_text() == "tested"


class Probed(ProbedModule):
    """The same weights, and what comes in is registered."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        self.register_probe({"first": inputs[0]})
        outputs: Tensor = self.layer(inputs.flatten(1)[:, :3])
        return outputs


class Pictures:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((1, 2, 2), index / 2), torch.tensor(index)


def test_pictures_probes_and_lines_of_mmengine_lie_in_the_work_directory(
    work_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = {
        "logger": spec(LoggerHook)(1),
        "pictures": spec(NaiveVisualizationHook)(),
        "probe": spec(ProbeHook)(),
    }
    pictures = Evaluation(dataset=spec(Pictures)(), batch_size=2)
    run = trained_run(model=spec(Probed)(), hooks=hooks, test=pictures)
    evaluate(run, work_dir / "checkpoints" / "latest", work_dir=tmp_path / "a")
    drawn = sorted(path.parent.name for path in (tmp_path / "a" / "jsonlines").rglob("*.png"))
    assert drawn == ["00000_000", "00000_001"]
    assert (tmp_path / "a" / "test_probe" / "step-00000002" / "meta.json").is_file()
    said = capfd.readouterr().out
    assert "Epoch(test) [1/1]  eta: 0:00:00  time: " in said
    evaluate(run, work_dir / "checkpoints" / "latest", work_dir=tmp_path / "b", data="val")
    assert "Epoch(val) [1][1/1]" in capfd.readouterr().out


def test_ranks_test_as_one_and_rank_0_writes(work_dir: Path, tmp_path: Path) -> None:
    run = trained_run(hooks={"tells": spec(Tells)(str(tmp_path / "told"))})
    latest = work_dir / "checkpoints" / "latest"

    def tested(ranks: Communicator) -> dict[str, float]:
        return evaluate(run, latest, ranks, work_dir=tmp_path / "two", output=str(tmp_path / "two.json"))

    first, second = run_threads(2, tested)
    assert first == second == json.loads((tmp_path / "two.json").read_text())
    assert first["test/loss"] == pytest.approx(evaluate(run, latest)["test/loss"], abs=1e-6)
    assert len(_records(tmp_path / "two")) == 1


class Views(Rows):
    """Two views of each row: as it is, and reversed."""

    def __getitem__(self, index: int) -> Any:
        row, target = super().__getitem__(index)
        return {"inputs": [row, row.flip(0)], "data_samples": [target, target]}


class Joined(BaseTTAModel):
    """Keeps the prediction for the first view."""

    def merge_preds(self, data_samples_list: list[list[Any]]) -> list[Any]:
        return [views[0] for views in data_samples_list]


class Steps(Detector):
    """Predicts for a mapping."""

    def test_step(self, data: Any) -> list[dict[str, object]]:
        return self.val_step((torch.stack(list(data["inputs"])), torch.stack(list(data["data_samples"]))))


class AsLists:
    """Makes views of a batch: for each entry a list with one tensor for each view."""

    def __call__(self, samples: Sequence[Any]) -> dict[str, list[list[Tensor]]]:
        names = ("inputs", "data_samples")
        return {name: [[each[name][view] for each in samples] for view in range(2)] for name in names}


@pytest.mark.parametrize("averaging", [None, late(exponential_average)(momentum=0.5)])
def test_a_model_for_augmentation_tests_the_checkpoint_of_the_model_within_it(averaging: Any, tmp_path: Path) -> None:
    plain = Evaluation(dataset=spec(Rows)(5), batch_size=2, metrics=(spec(PerBatch)(),))
    run = trained_run(averaging=averaging, val=None, test=None, model=spec(Detector)())
    run = msgspec.structs.replace(run, train=Data(dataset=spec(Rows)(8), batch_size=4))
    train(run, tmp_path / "run")
    wanted = evaluate(msgspec.structs.replace(run, loss=None, test=plain), tmp_path / "run/checkpoints/latest")
    views = msgspec.structs.replace(plain, dataset=spec(Views)(5), collate=spec(AsLists)())
    augmented = msgspec.structs.replace(run, loss=None, model=Spec(Joined, (spec(Steps)(),)), test=views)
    published = next((tmp_path / "run/checkpoints/published").iterdir())
    for each in (tmp_path / "run/checkpoints/latest", published):
        assert evaluate(augmented, each) == wanted
    assert wanted.keys() == {"test/batchwise/accuracy"}


CONFIG = """
imports: [tests.evaluation]
model: {type: tests.evaluation.models:Net}
loss: {type: CrossEntropyLoss}
optimizer: {type: SGD, lr: 0.1}
train: {dataset: {type: tests.evaluation.models:Rows, size: 8}, batch_size: 4}
val: {dataset: {type: tests.evaluation.models:Rows, size: 2}, batch_size: 2}
test: {dataset: {type: tests.evaluation.models:Rows, size: 5}, batch_size: 2}
loop: {type: epochs, max_epochs: 1}
hooks: {tells: {type: tests.evaluation.test_tested:Tells, path: told}}
device: cpu
"""


def test_the_command_takes_a_checkpoint_in_its_place_or_by_name(
    published: Path,
    results: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CONFIG)
    Path("a=b.safetensors").write_bytes(published.read_bytes())
    row = f"test/loss  {results['test/loss']:.4f}"
    for words in (
        [str(published)],
        ["seed=1", str(published)],
        [str(published), "seed=1", "--data", "test"],
        ["--checkpoint", str(published), "seed=1"],
        ["seed=1", "--checkpoint", "a=b.safetensors"],
    ):
        assert main(["test", "run.yaml", *words]) == 0
        told = capsys.readouterr()
        assert row in told.out
        assert "these hooks do not run: tells" in told.err
    assert main(["test", "run.yaml", str(published), "--work-dir", "there", "--data=val", "--output=there.json"]) == 0
    told = capsys.readouterr()
    assert "written   there.json" in told.out
    assert json.loads(Path("there.json").read_text()).keys() == {"val/loss"}
    assert Path("told").read_text() == "run\nval/loss\n"
    assert "do not run" not in told.err
    for words, message in (
        ([], "error: there is no checkpoint to test; name one, after the config or by --checkpoint"),
        (["a.pt", "--checkpoint", "b.pt"], "error: there are 2 checkpoints: a.pt, b.pt; name one"),
        (["a.pt", "b.pt"], "error: there are 2 checkpoints: a.pt, b.pt; name one"),
    ):
        assert main(["test", "run.yaml", *words]) == 2
        assert capsys.readouterr().err.startswith(message)


def test_nothing_but_the_model_of_the_config_is_needed(work_dir: Path) -> None:
    found = evaluate(config(model=Net, val=None, predict=None), work_dir / "checkpoints" / "latest")
    assert found.keys() == {"test/loss"}

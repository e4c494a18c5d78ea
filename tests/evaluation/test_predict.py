"""Prediction over the data of a config or over files, in Python and from the command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.evaluation.models import Detector, Net, Rows
from treenail.adapters.cli.main import main
from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches
from treenail.adapters.evaluation import DumpPredictions
from treenail.adapters.loops import EpochLoop, PredictLoop
from treenail.adapters.runtime import predict, train
from treenail.adapters.sampling import RandomSampler
from treenail.contracts import Data, Evaluation, PredictHook, Prediction, Run
from treenail.kernel import (
    CheckpointError,
    Communicator,
    ConfigError,
    Engine,
    EngineError,
    FileError,
    Late,
    TrainingError,
    late,
    spec,
)


class Points(PredictHook):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def before_predict(self, engine: Engine) -> None:
        self.seen.append("before")

    def before_predict_iter(self, engine: Engine, batch_index: int, batch: object) -> None:
        self.seen.append(batch_index)

    def after_predict_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        assert isinstance(outputs, torch.Tensor)
        self.seen.append(len(outputs))

    def after_predict(self, engine: Engine) -> None:
        self.seen.append("after")


def config(model: type[Net] = Net, **changes: object) -> Run:
    given: dict[str, object] = {
        "model": spec(model)(),
        "loss": spec(nn.CrossEntropyLoss)(),
        "optimizer": late(torch.optim.SGD)(lr=0.1),
        "train": Data(dataset=spec(Rows)(8), batch_size=4),
        "test": Evaluation(dataset=spec(Rows)(5), batch_size=2),
        "predict": Prediction(dataset=spec(Rows)(7), batch_size=3),
        "loop": Late(EpochLoop, (), {"max_epochs": 1}, awaited=1),
        "hooks": {"progress": None},
        "device": "cpu",
    }
    return Run(**{**given, **changes})  # type: ignore[arg-type]  # each test changes some


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("run")
    train(config(test=None), work_dir)
    return work_dir / "checkpoints/latest"


def test_ranks_write_what_one_does_and_hooks_are_told(checkpoint: Path, tmp_path: Path) -> None:
    points = Points()
    found = predict(config(), checkpoint, str(tmp_path / "a.npy"), hooks={"points": points})
    assert found == (str(tmp_path / "a.npy"), 7)
    assert points.seen == ["before", 0, 3, 1, 3, 2, 1, "after"]
    records = np.load(tmp_path / "a.npy")
    assert records["index"].tolist() == list(range(7))
    assert records["prediction"].shape == (7, 3)
    for world_size in (2, 3):
        output = str(tmp_path / f"{world_size}.npy")
        counts = run_threads(
            world_size,
            lambda ranks, output=output: (
                predict(  # type: ignore[misc]  # mypy knows no default of a lambda's
                    config(), checkpoint, output, communicator=ranks
                ).samples
            ),
        )
        assert counts == [7] * world_size
        assert Path(output).read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_the_data_may_be_those_of_the_test_in_any_order(checkpoint: Path, tmp_path: Path) -> None:
    shuffled = Evaluation(dataset=spec(Rows)(5), batch_size=2, sampler=late(RandomSampler)())
    run = config(test={"shuffled": shuffled, "plain": Evaluation(dataset=spec(Rows)(5), batch_size=4)})
    outputs = {}
    for name in ("shuffled", "plain"):
        predict(run, checkpoint, str(tmp_path / f"{name}.safetensors"), data=f"test/{name}")
        outputs[name] = load_file(tmp_path / f"{name}.safetensors")
    order = outputs["shuffled"]["index"]
    assert order.tolist() != list(range(5))
    assert sorted(order.tolist()) == list(range(5))
    assert torch.allclose(outputs["shuffled"]["prediction"], outputs["plain"]["prediction"][order])


def test_a_dataset_that_takes_files_predicts_for_those_given(checkpoint: Path, tmp_path: Path) -> None:
    predict(config(), checkpoint, str(tmp_path / "all.safetensors"))
    predict(config(), checkpoint, str(tmp_path / "some.safetensors"), files=["img4.png", "img1.png"])
    whole, some = (load_file(tmp_path / f"{name}.safetensors")["prediction"] for name in ("all", "some"))
    assert torch.allclose(some, whole[[4, 1]])
    run = config(predict=Prediction(dataset=spec(WithoutFiles)(), batch_size=3))
    with pytest.raises(ConfigError, match="does not take files"):
        predict(run, checkpoint, str(tmp_path / "x.npy"), files=["img4.png"])


class WithoutFiles(Rows):
    def __init__(self) -> None:
        super().__init__(3)


def test_a_model_with_a_test_step_predicts_what_it_likes(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    predict(config(Detector), checkpoint, str(output))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(7))
    assert set(lines[0]["prediction"]) == {"pred_score", "gt_label", "boxes"}


def test_mistakes_are_explained_and_write_nothing(checkpoint: Path, tmp_path: Path) -> None:
    run, output = config(predict=None), str(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"no 'predict'; add predict: \{dataset: …, batch_size: …\}, or .* test"):
        predict(run, checkpoint, output)
    with pytest.raises(ConfigError, match="there are no data 'train'"):
        predict(run, checkpoint, output, data="train")
    several = config(test={"a": Evaluation(dataset=spec(Rows)(5), batch_size=4)})
    with pytest.raises(ConfigError, match=r"'test' is no set of data; .*test/a"):
        predict(several, checkpoint, output, data="test")
    with pytest.raises(ConfigError, match="must end in"):
        predict(config(), checkpoint, "a.csv")
    with pytest.raises(ConfigError, match="there is nothing to predict for"):
        predict(config(predict=Prediction(dataset=spec(Rows)(0), batch_size=3)), checkpoint, output)
    with pytest.raises(CheckpointError):
        predict(config(), tmp_path / "none", output)
    assert not list(tmp_path.iterdir())


class Stops(PredictHook):
    def after_predict_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        engine.request_stop("enough")


def test_a_loop_that_is_stopped_writes_nothing(tmp_path: Path) -> None:
    dump = DumpPredictions(str(tmp_path / "a.npy"))
    loop = PredictLoop(Net(), Batches([torch.zeros(2, 3), torch.ones(2, 3)]), dump)
    engine = Engine(points=PredictHook)
    engine.attach(Stops())
    engine.run(loop)
    stopped = not loop.done
    assert stopped
    assert not (tmp_path / "a.npy").exists()
    with pytest.raises(EngineError, match="before_predict"):
        Engine().run(loop)  # its hooks have no such points
    Engine(points=PredictHook).run(loop)
    assert loop.done
    assert np.load(tmp_path / "a.npy")["prediction"].shape == (4, 3)


class Killed(Rows):
    """Ends its process in the midst of the data."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.parametrize("before", [b"of an earlier one", None])
def test_a_prediction_that_is_killed_leaves_what_was_there_and_is_begun_again(
    checkpoint: Path, tmp_path: Path, before: bytes | None
) -> None:
    output = tmp_path / "a.jsonl"
    if before is not None:
        output.write_bytes(before)
    killed = config(predict=Prediction(dataset=spec(Killed)(7), batch_size=3))
    process = os.fork()
    if not process:
        predict(killed, checkpoint, str(output))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if before is None else [before])
    assert predict(config(), checkpoint, str(output)).samples == 7
    assert len(output.read_text().splitlines()) == 7


class Slow(DumpPredictions):
    """Writes to a slow store."""

    def compute(self) -> dict[str, float]:
        sleep(0.3)
        return super().compute()


class Looks(PredictHook):
    """Looks for the file at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = False

    def after_predict(self, engine: Engine) -> None:
        self.found = self.path.exists()


def test_no_rank_is_told_of_the_end_before_the_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def find(ranks: Communicator) -> bool:
        loop = PredictLoop(Net(), Batches([torch.zeros(2, 3)]), Slow(str(path)), communicator=ranks)
        engine, hook = Engine(points=PredictHook), Looks(path)
        engine.attach(hook)
        engine.run(loop)
        return hook.found

    assert run_threads(2, find) == [True, True]


def test_the_command_writes_predictions(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "imports: [tests.evaluation]\n"
        "device: cpu\n"
        "model: {type: tests.evaluation.models:Net}\n"
        "loss: {type: cross_entropy}\n"
        "optimizer: {type: SGD, lr: 0.1}\n"
        "train: {dataset: {type: tests.evaluation.models:Rows}, batch_size: 4}\n"
        "predict: {dataset: {type: tests.evaluation.models:Rows}, batch_size: 4}\n"
        "loop: {type: epochs, max_epochs: 1}\n"
    )
    output = tmp_path / "a.jsonl"
    assert main(["predict", str(file), str(checkpoint), "--output", str(output), "predict.batch_size=2"]) == 0
    assert capsys.readouterr().out == f"written  {output}\nsamples  7\n"
    assert len(output.read_text().splitlines()) == 7
    assert main(["predict", str(file), str(checkpoint), "--data", "test", "--output", str(output)]) == 2
    assert "the config has no 'test'; add test:" in capsys.readouterr().err


class Forbidden(Net):
    """Must not be asked."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the output cannot be written, which is known before")


class Silent(Net):
    """Returns nothing."""

    def test_step(self, data: object) -> None:
        return None


def test_an_output_that_cannot_be_written_is_refused_before_hours_of_inference(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken.jsonl").mkdir()
    (tmp_path / "file").touch()
    for output, kind, message in (
        (tmp_path / "taken.jsonl", ConfigError, "the output is a directory; name a file"),
        (tmp_path / "file/a.jsonl", FileError, "file"),
        ("nosuch://place/a.jsonl", FileError, "nothing serves the scheme 'nosuch'"),
    ):
        with pytest.raises(kind, match=message):
            predict(config(Forbidden), checkpoint, str(output))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "taken.jsonl"]


def test_of_several_sets_all_are_named_and_none_is_a_typo(checkpoint: Path, tmp_path: Path) -> None:
    run = config(test={name: Evaluation(dataset=spec(Rows)(5), batch_size=4) for name in ("one", "two")})
    with pytest.raises(ConfigError, match="choose test/one or test/two"):
        predict(run, checkpoint, str(tmp_path / "a.jsonl"), data="test")
    with pytest.raises(ConfigError, match="did you mean 'test/two'"):
        predict(run, checkpoint, str(tmp_path / "a.jsonl"), data="test/tow")


def test_a_model_that_predicts_nothing_is_told_so(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the model predicts None for batch 0; does its test_step return"):
        predict(config(Silent), checkpoint, str(tmp_path / "a.jsonl"))

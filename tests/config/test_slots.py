"""A run made in Python that describes nothing where something is to be described is refused before anything is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ConstantLR

from treenail.adapters.cli.main import main
from treenail.adapters.config import check_slots
from treenail.adapters.data import Digits
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.files import LocalFiles
from treenail.adapters.hooks import LoggerHook
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import fast_dev_run, train
from treenail.adapters.vis import JsonLines
from treenail.contracts import Data, Evaluation, Files, Limits, LoadFrom, Prediction, Run, Schedule
from treenail.kernel import ConfigError, late, partial, spec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x.flatten(1))
        return out


def collate(samples: list[object]) -> object:
    return samples


DATA = Data(dataset=spec(Digits)(split="train"), batch_size=64)
VAL = Evaluation(dataset=spec(Digits)(split="val"), batch_size=64)
RUN = Run(
    model=spec(Net)(),
    loss=partial(cross_entropy)(),
    optimizer=late(torch.optim.SGD)(lr=0.1),
    train=DATA,
    loop=late(EpochLoop)(max_epochs=1),
    limits=Limits(max_steps=1),
    hooks={"progress": None, "logger": None},
    device="cpu",
    threads=1,
)


def changed(struct: msgspec.Struct, **fields: object) -> Any:
    return msgspec.structs.replace(struct, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": Net()}, r"model: expected a Spec of a module, got a Net; write spec\(Net\)\(…\): the run makes it"),
        ({"model": Net}, r"model: expected a Spec of a module, got the class Net; write spec\(Net\)\(…\)"),
        ({"model": Net.__init__}, r"model: expected a Spec of a module, got a function; write spec\(__init__\)"),
        ({"model": None}, "model: expected a Spec of a module, got a NoneType"),
        (
            {"loss": nn.CrossEntropyLoss()},
            r"loss: expected a Spec of a loss, got a CrossEntropyLoss; write spec\(Cross",
        ),
        (
            {"loss": cross_entropy},
            r"loss: expected a Spec of a loss, got a function; write partial\(cross_entropy\)\(\)$",
        ),
        ({"optimizer": torch.optim.SGD}, r"optimizer: expected a Late .*, got the class SGD; write late\(SGD\)\(…\)"),
        ({"optimizer": spec(Net)()}, r"optimizer: expected a Late of an optimizer, got a Spec; write late\(Net\)"),
        ({"optimizer": {"a": Net()}}, r"optimizer\.a: expected a Late of an optimizer, got a Net"),
        ({"train": changed(DATA, dataset=[1, 2])}, r"train\.dataset: expected a Spec of a dataset, got a list"),
        ({"train": {"batch_size": 3}}, r"train: expected a Data, got a dict; write Data\(…\)"),
        ({"train": changed(DATA, collate=collate)}, r"train\.collate: .*write spec\(functools\.partial\)\(collate\)$"),
        ({"val": changed(VAL, metrics=(Accuracy(),))}, r"val\.metrics\[0\]: expected a Spec of .*, got an Accuracy"),
        ({"test": {"a": VAL, "b": DATA}}, r"test\.b: expected an Evaluation, got a Data; write Evaluation\(…\)"),
        ({"schedules": (Schedule(scheduler=late(ConstantLR)()), 3)}, r"schedules\[1\]: expected a Schedule"),
        ({"hooks": {"a": LoggerHook}}, r"hooks\.a: expected a Spec of a hook, got the class LoggerHook; write spec\("),
        ({"vis": {"a": JsonLines}}, r"vis\.a: expected a Late of a vis, got the class JsonLines; write late\("),
        ({"files": changed(Files(), mounts={"a": LocalFiles("b")})}, r"files\.mounts\.a: expected a Spec of a files"),
        ({"predict": changed(VAL, metrics=())}, "predict: expected a Prediction, got an Evaluation"),
    ],
)
def test_what_is_not_described_is_named_with_what_to_write(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(changed(RUN, **fields), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_whatever_a_run_may_hold_is_right(tmp_path: Path) -> None:
    check_slots(
        changed(
            RUN,
            loss=spec(nn.CrossEntropyLoss)(),
            optimizer={"a": late(torch.optim.SGD)(lr=0.1)},
            train=changed(DATA, collate="list"),
            val={"a": changed(VAL, metrics=(spec(Accuracy)(),))},
            predict=Prediction(dataset=spec(Digits)(split="val"), batch_size=1),
            priorities={"logger": 3},
            files=Files(mounts={"a": "b", "c": spec(LocalFiles)(tmp_path)}),
            deterministic="warn",
        )
    )


@pytest.mark.parametrize("start", [fast_dev_run, lambda run: train(run, "work")], ids=["trial", "train"])
def test_both_ways_to_train_look(
    start: Callable[[Run], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"model: expected a Spec of a module, got a Net"):
        start(changed(RUN, model=Net()))
    start(RUN)


def test_a_work_directory_may_be_given_as_text(tmp_path: Path) -> None:
    summary = train(RUN, str(tmp_path / "work"))
    assert summary.work_dir == tmp_path / "work"
    assert (tmp_path / "work" / "checkpoints").is_dir()


def test_the_summary_tells_of_curves_where_there_are_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
model: {type: Sequential, args: [{type: Flatten}, {type: Linear, in_features: 64, out_features: 10}]}
loss: {type: cross_entropy}
optimizer: {type: SGD, lr: 0.1}
train: {dataset: {type: digits, split: train}, batch_size: 64}
loop: {type: epochs, max_epochs: 1}
limits: {train_batches: 2}
hooks: {logger: {type: LoggerHook}, progress: null}
device: cpu
threads: 1
""")
    work_dir = tmp_path / "work"
    assert main(["train", str(path), "--work-dir", str(work_dir)]) == 0
    assert len([each for each in work_dir.iterdir() if each.is_dir()]) > 2  # the hook keeps logs in one of its own
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in told if line and line[0] == "curves"] == [str(work_dir / "jsonlines")]
    assert main(["train", str(path), "vis={jsonlines: null}", "--work-dir", str(tmp_path / "none")]) == 0
    assert "curves" not in capsys.readouterr().out


def test_pairs_of_texts_are_no_mistake() -> None:
    check_slots(LoadFrom(path="weights.pt", revise_keys=((r"^net\.", ""), ("a", "b"))))
    with pytest.raises(ConfigError, match=r"revise_keys\[0\]: expected list of 2"):
        check_slots(LoadFrom(path="weights.pt", revise_keys=(("a",),)))  # type: ignore[arg-type]  # what is refused

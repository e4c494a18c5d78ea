"""Several sets of evaluation data, precisions, and mistakes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from tests.evaluation.models import Net, Rows
from treenail.adapters.config import load_run
from treenail.adapters.data import Batches
from treenail.adapters.evaluation import Accuracy, DumpPredictions
from treenail.adapters.hooks import BestHook
from treenail.adapters.loops import EpochLoop, EvalLoop, EvalSets
from treenail.adapters.runtime import test as run_test
from treenail.adapters.runtime import train
from treenail.contracts import Data, Evaluation, Run
from treenail.kernel import ConfigError, Engine, Hook, Late, late, spec


def batches(count: int, seed: int = 1) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    return Batches([(torch.randn(4, 3, generator=generator), torch.arange(4) % 3) for _ in range(count)])


def one(name: str | None, count: int = 2, mode: Literal["val", "test"] = "val") -> EvalLoop:
    return EvalLoop(mode, Net(), nn.CrossEntropyLoss(), batches(count, count), [Accuracy()], name=name)


class Points(Hook):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def before_val(self, engine: Engine) -> None:
        self.seen.append("before_val")

    def before_val_epoch(self, engine: Engine) -> None:
        self.seen.append("before_val_epoch")

    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        self.seen.append(batch_index)

    def after_val_epoch(self, engine: Engine, metrics: dict[str, float]) -> None:
        self.seen.append(list(metrics))

    def after_val(self, engine: Engine) -> None:
        self.seen.append("after_val")


def test_sets_are_one_validation_with_the_results_of_each() -> None:
    engine, points = Engine(), Points()
    engine.attach(points)
    sets = EvalSets([one("clean", 2), one("noisy", 3)])
    engine.run(sets)
    names = ["val/clean/loss", "val/clean/accuracy", "val/noisy/loss", "val/noisy/accuracy"]
    assert points.seen == ["before_val", "before_val_epoch", 0, 1, 2, 3, 4, names, "after_val"]
    assert sets.metrics is not None
    for name, count in (("clean", 2), ("noisy", 3)):
        alone = one(None, count)
        Engine().run(alone)
        assert alone.metrics is not None
        assert sets.metrics[f"val/{name}/loss"] == alone.metrics["val/loss"]


class StopsInTheSecondSet(Hook):
    def after_val_iter(self, engine: Engine, batch_index: int, batch: object, outputs: object) -> None:
        if batch_index == 2:
            engine.request_stop("enough")


def test_sets_that_are_interrupted_begin_anew() -> None:
    engine, sets = Engine(), EvalSets([one("clean"), one("noisy")])
    engine.attach(StopsInTheSecondSet())
    engine.run(sets)
    interrupted = sets.metrics
    assert interrupted is None
    Engine().run(sets)
    assert sets.metrics is not None
    assert len(sets.metrics) == 4


def config(work_dir: Path, **changes: object) -> Run:
    rows = Evaluation(dataset=spec(Rows)(7), batch_size=3, metrics=(spec(Accuracy)(),))
    given: dict[str, object] = {
        "model": spec(Net)(),
        "loss": spec(nn.CrossEntropyLoss)(),
        "optimizer": late(torch.optim.SGD)(lr=0.1),
        "train": Data(dataset=spec(Rows)(8), batch_size=4),
        "val": {"seen": rows, "fresh": Evaluation(dataset=spec(Rows)(5), batch_size=2, metrics=rows.metrics)},
        "test": {"small": rows},
        "loop": Late(EpochLoop, (), {"max_epochs": 2}, awaited=1),
        "hooks": {"best": spec(BestHook)("val/fresh/accuracy"), "progress": None},
        "device": "cpu",
    }
    return Run(**{**given, **changes})  # type: ignore[arg-type]  # each test changes some


def test_a_run_has_sets_that_the_best_checkpoint_can_name(tmp_path: Path) -> None:
    run = config(tmp_path)
    summary = train(run, tmp_path / "run")
    kinds = ("loss", "accuracy")
    sets = ("val/seen", "val/fresh", "test/small")
    assert list(summary.metrics) == [f"{each}/{kind}" for each in sets for kind in kinds]
    assert summary.best is not None
    assert summary.best[0] == "val/fresh/accuracy"
    tested = run_test(run, tmp_path / "run/checkpoints/latest")
    assert tested == {name: value for name, value in summary.metrics.items() if name.startswith("test/")}


def test_mistakes_in_sets_are_explained(tmp_path: Path) -> None:
    wrong = {"best": spec(BestHook)("val/frish/accuracy"), "progress": None}
    with pytest.raises(ConfigError, match=r"'val/frish/accuracy', .* did you mean 'val/fresh/accuracy'"):
        train(config(tmp_path, hooks=wrong), tmp_path / "a")
    with pytest.raises(ConfigError, match="val: there are no data by name"):
        train(config(tmp_path, val={}, hooks={}), tmp_path / "b")
    empty = Evaluation(dataset=spec(Rows)(0), batch_size=3)
    with pytest.raises(ConfigError, match=r"there is no batch to evaluate on \(val.nothing\)"):
        train(config(tmp_path, val={"nothing": empty}, hooks={}), tmp_path / "c")
    with pytest.raises(ConfigError, match="a name is not empty and has no slash"):
        train(config(tmp_path, val={"a/b": Evaluation(dataset=spec(Rows)(2), batch_size=3)}), tmp_path / "d")
    with pytest.raises(ValueError, match="sets share a name: val/a, val/a"):
        EvalSets([one("a"), one("a")])
    with pytest.raises(ValueError, match="all for val or all for test"):
        EvalSets([one("a"), one("b", mode="test")])


class TellsDtype(Net):
    seen: torch.dtype | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        self.seen = outputs.dtype
        return outputs


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_an_evaluation_computes_in_its_precision(precision: Literal["bfloat16", "float16"]) -> None:
    model = TellsDtype()
    whole, half = (
        EvalLoop("val", model, nn.CrossEntropyLoss(), batches(3), [Accuracy()], precision=each)
        for each in ("float32", precision)
    )
    Engine().run(whole)
    assert model.seen is torch.float32
    Engine().run(half)
    assert model.seen is getattr(torch, precision)
    assert whole.metrics is not None
    assert half.metrics is not None
    assert half.metrics["val/loss"] != whole.metrics["val/loss"]
    assert half.metrics["val/loss"] == pytest.approx(whole.metrics["val/loss"], rel=0.02)
    assert model.layer.weight.dtype is torch.float32
    with pytest.raises(ValueError, match="precision is 'float8', must be float32, bfloat16 or float16"):
        EvalLoop("val", model, None, batches(1), precision="float8")  # type: ignore[arg-type]  # the mistake


def test_sets_do_not_overwrite_each_others_predictions(tmp_path: Path) -> None:
    output = str(tmp_path / "a.jsonl")
    loops = [EvalLoop("val", Net(), None, batches(1), [DumpPredictions(output)], name=name) for name in ("near", "far")]
    with pytest.raises(ValueError, match=r"predictions of several sets go to .*a\.jsonl: give each set a file"):
        EvalSets(loops)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("metrics: [{type: accuracy, topk: 3}]", r"val\.metrics\[0\]\.topk: .* takes no 'topk'; did you mean 'top_k'"),
        ("metrics: [{type: acuracy}]", r"val\.metrics\[0\]\.type: unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("metrics: [{type: accuracy, top_k: 0}]", r"val\.metrics\[0\]\.top_k: expected 'int' >= 1, got 0"),
        ("metrics: [{type: SGD}]", "'SGD' is an optimizer, here a metric is needed"),
        ("batchsize: 3", r"val\.batchsize: Evaluation takes no 'batchsize'; did you mean 'batch_size'"),
    ],
)
def test_mistakes_in_a_config_are_told_as_those_of_what_was_meant(written: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    rows = "{type: tests.evaluation.models:Rows}"
    path.write_text(
        f"imports: [tests.evaluation.models]\nmodel: {{type: tests.evaluation.models:Net}}\n"
        "loss: {type: cross_entropy}\noptimizer: {type: SGD, lr: 0.1}\nloop: {type: epochs, max_epochs: 1}\n"
        f"train: {{dataset: {rows}, batch_size: 4}}\n"
        f"val:\n  dataset: {rows}\n  batch_size: 4\n  {written}\n"
    )
    with pytest.raises(ConfigError, match=message):
        load_run(str(path))

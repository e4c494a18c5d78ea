"""What hooks written for mmengine find at a run besides its state: its loops, its logs, its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.hooks.small_runs import small_run
from tests.hooks.test_compat_runs import BATCHES, build, lines_of, records_of, run
from treenail.adapters.data import Batches
from treenail.adapters.evaluation import Accuracy
from treenail.adapters.evaluation.compat import BaseMetric
from treenail.adapters.hooks import ScheduleHook, compat
from treenail.adapters.hooks.compat import (
    CheckpointHook,
    EarlyStoppingHook,
    Hook,
    LineFormat,
    LoggerHook,
    Runner,
    bind_runner,
)
from treenail.adapters.logging.compat import ConflictError, LogProcessor, MessageHub
from treenail.adapters.loops import EvalLoop, EvalSets, StepLoop
from treenail.adapters.optim import OptimWrapper, SupervisedStep
from treenail.adapters.runtime import train
from treenail.adapters.trees import ConfigTree
from treenail.adapters.vis import JsonLines
from treenail.contracts import TrainWork
from treenail.kernel import Engine, spec


def test_loops_are_seen_as_mmengines() -> None:
    seen: list[object] = []

    class Looks(Hook):
        def before_train_epoch(self, runner: Any) -> None:
            loop = runner.train_loop
            seen.extend([loop.epoch, loop.iter, loop.max_epochs, loop.max_iters, loop.val_interval])
            assert runner.val_loop.dataloader is runner.val_dataloader
            assert runner.val_loop.mode == "val"
            assert [type(each) for each in runner.val_evaluator.metrics] == [Accuracy]
            assert runner.val_evaluator.dataset_meta is None

    engine = build(validated=True)
    engine.attach(Looks())
    run(engine)
    assert seen == [0, 0, 1, BATCHES, 1]


class Count(BaseMetric):
    """Counts samples."""

    def process(self, data_batch: object, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        return {"count": sum(results)}


def test_several_sets_of_data_are_one_after_the_other() -> None:
    network, data = nn.Linear(1, 1), Batches([(torch.ones(2, 1), torch.ones(2, 1))])
    accuracy, count = Accuracy(), Count()
    count.dataset_meta = {"classes": ("a",)}
    sets = EvalSets([EvalLoop("val", network, nn.MSELoss(), data, [accuracy, count], name=name) for name in ("a", "b")])
    view = compat.EvaluationView(sets)
    assert view.mode == "val"
    assert len(view.dataloader) == 2
    assert view.evaluator.metrics == [accuracy, count] * 2
    assert view.evaluator.dataset_meta == {"classes": ("a",)}
    with pytest.raises(AttributeError, match="the data of this evaluation have no length"):
        _ = compat.EvaluationView(object()).dataloader


def test_by_step_a_training_has_one_epoch_as_mmengine_has_it() -> None:
    last: list[tuple[bool, bool]] = []

    class Looks(Hook):
        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            last.append((self.is_last_train_epoch(runner), self.is_last_train_iter(runner)))

    network = nn.Linear(4, 3)
    updater = OptimWrapper(torch.optim.SGD(network.parameters(), lr=0.1))
    source = Batches([(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(4)])
    loop = StepLoop(TrainWork(SupervisedStep(network, nn.CrossEntropyLoss(), updater), source), max_steps=3)
    engine = Engine({"loop": loop, "batches": source})
    engine.attach(Looks())
    engine.run(loop)
    assert last == [(True, False), (True, False), (True, True)]


def test_a_config_has_attributes_and_logs_have_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    class Looks(Hook):
        priority = "LOW"

        def before_train(self, runner: Any) -> None:
            seen.update(rate=runner.cfg.optimizer.lr, logs=Path(runner.log_dir), stamp=runner.timestamp)
            seen.update(processor=runner.log_processor, same=runner._log_dir, deterministic=runner.deterministic)
            runner.cfg.mine = 1
            runner.logger.debug("a detail")

        def after_train(self, runner: Any) -> None:
            seen["mine"] = runner.cfg.mine

    engine = build()
    hooks: list[Any] = [Looks(), LoggerHook(log_file=tmp_path / "log.jsonl", log_level="DEBUG")]
    for hook in hooks:
        engine.attach(hook)
    config = {"optimizer": {"lr": 0.5}}
    bind_runner(hooks, work_dir=tmp_path, config=config)
    run(engine)
    assert seen == {
        "rate": 0.5,
        "logs": tmp_path / seen["stamp"],
        "same": str(tmp_path / seen["stamp"]),
        "stamp": seen["stamp"],
        "processor": hooks[1].processor,
        "deterministic": False,
        "mine": 1,
    }
    assert "mine" not in config
    assert "a detail" in lines_of(capsys.readouterr().out)
    assert "DEBUG - a detail" in (seen["logs"] / f"{seen['stamp']}.log").read_text()


def test_the_least_level_of_the_logger_counts_without_files_too(capsys: pytest.CaptureFixture[str]) -> None:
    engine = build()
    engine.attach(LoggerHook(log_level="ERROR"))
    run(engine)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="log_level is 'LOUD', must be one of DEBUG, INFO"):
        LoggerHook(log_level="LOUD")  # type: ignore[arg-type]  # the mistake


def test_what_code_tells_the_hub_is_in_the_records_too(tmp_path: Path) -> None:
    class Tells(Hook):
        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            if batch_idx < 15:
                MessageHub.get_current_instance().update_scalar("train/mine", batch_idx)
            runner.message_hub.update_scalar("elsewhere", 1)

    engine = build()
    engine.attach(Tells())
    engine.attach(ScheduleHook())
    engine.attach(LoggerHook(5, log_file=tmp_path / "log.jsonl"))
    run(engine)
    records = records_of(tmp_path / "log.jsonl")
    assert [each.get("train/mine") for each in records] == [4, 9, 14, None, None], "nothing new is no point of a curve"
    assert {name for each in records for name in each} & {
        "train/lr",
        "train/epoch",
        "train/elsewhere",
        "elsewhere",
    } == set()
    assert all({"lr", "train/loss", "step"} <= each.keys() for each in records)


def test_without_a_hook_that_schedules_the_learning_rate_is_in_the_records(tmp_path: Path) -> None:
    engine = build()
    engine.attach(LoggerHook(25, log_file=tmp_path / "log.jsonl"))
    run(engine)
    assert [each["lr"] for each in records_of(tmp_path / "log.jsonl")] == [0.1]


class Short(LogProcessor):
    """Says less.

    Args:
        sign: What lines end with.
    """

    def __init__(self, sign: str = "!") -> None:
        super().__init__(window_size=3)
        self.sign = sign

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: Any) -> tuple[dict[str, Any], str]:
        tag, _ = super().get_log_after_iter(runner, batch_idx, mode)
        return {**tag, "seven": 7}, f"{mode} {batch_idx + 1}{self.sign}"


def test_lines_may_come_from_a_processor_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = spec(LoggerHook)(2, log_processor=Short("?"))
    train(small_run(logger=logger), tmp_path)
    said = [line for line in lines_of(capsys.readouterr().out) if not line.startswith("Exp name")]
    assert said[:3] == ["train 2?", "train 4?", "val 2?"]
    assert said[3].startswith("Epoch(val) [1][2/2]  loss: ")
    assert [each["train/seven"] for each in records_of(tmp_path / "log.jsonl")] == [7, 7, 7, 7]


def test_rules_and_keys_of_the_best_may_be_given_once() -> None:
    CheckpointHook(save_best=("a", "b"), rule=("greater",))  # whose names do not say what is better
    CheckpointHook(save_best="speed", greater_keys="spee")
    with pytest.raises(ValueError, match="does not say whether a larger value is better"):
        CheckpointHook(save_best="speed", greater_keys="s-p")
    with pytest.raises(ValueError, match=r"rule has 2 entries for 3 metrics of save_best: give one, or one for each"):
        CheckpointHook(save_best=("a", "b", "c"), rule=("greater", "less"))


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        ({"method_name": "median"}, "no statistic is called 'median'; there are mean, max, min, current"),
        ({"method_name": "mean", "size": 3}, "the statistic 'mean': got an unexpected keyword .* it takes window_size"),
    ],
)
def test_a_statistic_that_cannot_be_asked_for_is_refused_before_the_first_step(
    statistic: dict[str, object], message: str
) -> None:
    engine = build()
    engine.attach(LoggerHook(log_processor=LineFormat(custom_cfg=({"data_src": "loss", **statistic},))))
    with pytest.raises(ConflictError, match=rf"custom_cfg\[0\]: {message}"):
        run(engine)
    assert engine.step == 0


def test_early_stopping_takes_mmengines_arguments(tmp_path: Path) -> None:
    hook = EarlyStoppingHook("accuracy", min_delta=0.5, patience=1)
    assert (hook.metric, hook.mode) == ("val/accuracy", "max")
    assert EarlyStoppingHook("val/speed", "less").mode == "min"
    engine = build(3, validated=True)
    engine.attach(hook)
    run(engine)
    assert (engine.epoch, hook.waited) == (2, 1)
    assert engine.stop_reason is not None
    assert engine.stop_reason.startswith("early stopping: val/accuracy has not improved in 1 validations")
    summary = train(small_run(stop=spec(EarlyStoppingHook)("loss", stopping_threshold=1e9)), tmp_path)
    assert summary.step == 4
    for arguments, message in (
        (("speed",), "'speed' does not say whether a greater value is better"),
        (("a", "more"), "rule is 'more'"),
    ):
        with pytest.raises(ValueError, match=message):
            EarlyStoppingHook(*arguments)


def test_a_hook_adds_configs_and_graphs_to_the_curves(tmp_path: Path) -> None:
    class Adds(Hook):
        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            if batch_idx == 0:
                runner.visualizer.add_config(ConfigTree({"lr": {"begin": 0.5}}))
                runner.visualizer.add_graph(runner.model, data_batch)

    engine = build()
    hook = Adds()
    engine.attach(hook)
    bind_runner([hook], backends=[JsonLines(tmp_path)])
    run(engine)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert any('"begin": 0.5' in text for text in texts.values())
    assert any("Linear" in text for text in texts.values())
    with pytest.raises(AttributeError, match="cannot tell where graphs go"):
        compat.Visualizer(engine, None).add_graph(nn.Linear(1, 1), torch.ones(1, 1))

"""Log lines: the formats and statistics of the seed, beside the real mmengine in its own Runner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from treenail.adapters.logging.compat import ConflictError, KindError, LogProcessor, MessageHub


class Run:
    """A run that stands somewhere."""

    def __init__(self, hub: MessageHub | None = None, *, epoch: int = 0, iter: int = 0) -> None:  # noqa: A002  # its name
        self.message_hub = hub or MessageHub("run")
        self.epoch, self.iter = epoch, iter
        self.max_epochs, self.max_iters = 12, 300
        self.train_dataloader: Sequence[int] = range(25)
        self.val_dataloader: Sequence[int] = range(4)
        self.test_dataloader: Sequence[int] = range(100)


def training(losses: Sequence[float] = (0.8381,)) -> Run:
    """Return a run after some iterations of its first epoch."""
    run = Run(iter=len(losses) - 1)
    for loss in losses:
        run.message_hub.update_scalars(
            {
                "train/lr": 0.01,
                "train/data_time": 0.0004,
                "train/time": 0.0019,
                "train/loss1": loss,
                "train/loss2": 0.9007,
                "train/loss": loss + 0.9007,
            }
        )
    run.message_hub.update_info("eta", 12 * 3600 + 61.9)
    return run


def test_a_line_of_the_training_is_that_of_the_tutorial() -> None:
    run = training()
    run.max_epochs = 1
    run.message_hub.update_info("eta", 0.4)
    tag, line = LogProcessor().get_log_after_iter(run, 9, "train")
    assert line == (
        "Epoch(train) [1][10/25]  lr: 1.0000e-02  eta: 0:00:00  time: 0.0019  data_time: 0.0004  "
        "loss1: 0.8381  loss2: 0.9007  loss: 1.7388"
    )
    values = {"lr": 0.01, "data_time": 0.0004, "time": 0.0019, "loss1": 0.8381, "loss2": 0.9007, "loss": 1.7388}
    assert tag == pytest.approx({**values, "epoch": 1, "iter": 1})


def test_epochs_and_iterations_stand_below_each_other() -> None:
    run = training()
    lines = [LogProcessor().get_log_after_iter(run, batch, "train")[1] for batch in (0, 24)]
    run.epoch = 11
    lines.append(LogProcessor().get_log_after_iter(run, 9, "train")[1])
    assert [line.partition("  lr")[0] for line in lines] == [
        "Epoch(train)  [1][ 1/25]",
        "Epoch(train)  [1][25/25]",
        "Epoch(train) [12][10/25]",
    ]


def test_by_iteration_the_training_counts_through() -> None:
    run = training([1.0] * 7)
    tag, line = LogProcessor(by_epoch=False).get_log_after_iter(run, 6, "train")
    assert line.startswith("Iter(train) [  7/300]  lr: 1.0000e-02  eta: 12:01:01  time: ")
    assert "epoch" not in tag
    run.message_hub.update_scalar("val/loss", 1.0)
    assert LogProcessor(by_epoch=False).get_log_after_iter(run, 0, "val")[1] == "Iter(val) [1/4]  loss: 1.0000"


def test_means_are_over_the_window_and_the_rest_is_the_latest() -> None:
    run = training([float(each) for each in range(20)])
    run.message_hub.update_scalars({"train/a": 99})
    run.message_hub.update_scalars({"train/a": 100, "train/grad_norm": 2.0, "other/b": 1, "training": 2})
    tag, line = LogProcessor().get_log_after_iter(run, 19, "train")
    assert tag["loss1"] == sum(range(10, 20)) / 10
    assert line.endswith("a: 100  grad_norm: 2.0000")  # only names with the prefix; an integer is shown as one
    tag, line = LogProcessor(4, num_digits=2).get_log_after_iter(run, 19, "train")
    assert tag["loss1"] == 17.5
    assert "lr: 1.00e-02" in line
    assert "loss1: 17.50" in line


def test_a_statistic_takes_the_place_of_a_scalar_or_stands_beside_it() -> None:
    run = training([float(each) for each in range(20)])
    run.message_hub.update_scalar("train/loss1", 0.0)  # the 21st
    custom: list[dict[str, Any]] = [
        {"data_src": "loss1", "method_name": "mean", "window_size": "global"},
        {"data_src": "loss1", "log_name": "loss1_local_max", "method_name": "max", "window_size": 3},
        {"data_src": "loss1", "log_name": "loss1_global_max", "method_name": "max", "window_size": "global"},
        {"data_src": "loss1", "log_name": "loss1_epoch", "method_name": "min", "window_size": "epoch"},
        {"data_src": "lr", "log_name": "first_lr", "method_name": "current"},
        {"data_src": "accuracy", "method_name": "max"},  # of the validation
    ]
    tag, line = LogProcessor(custom_cfg=custom).get_log_after_iter(run, 4, "train")
    assert tag["loss1"] == sum(range(20)) / 21
    assert (tag["loss1_local_max"], tag["loss1_global_max"], tag["loss1_epoch"]) == (19, 19, 0)
    assert line.endswith("loss1_local_max: 19.0000  loss1_global_max: 19.0000  loss1_epoch: 0.0000")
    assert "first_lr: 1.0000e-02" in line
    assert "accuracy" not in tag


def test_names_keep_their_prefix_where_they_shall() -> None:
    run = training()
    tag, line = LogProcessor(
        log_with_hierarchy=True, custom_cfg=[{"data_src": "loss1", "method_name": "max", "log_name": "top"}]
    ).get_log_after_iter(run, 0, "train")
    names = [
        *(f"train/{name}" for name in ("lr", "data_time", "time", "loss1", "loss2", "loss", "top")),
        "epoch",
        "iter",
    ]
    assert list(tag) == names
    assert "train/" not in line


def test_in_the_middle_of_a_validation_its_losses_are_shown_and_no_stale_metrics() -> None:
    run = Run(epoch=3, iter=75)
    run.message_hub.update_scalars({"val/time": 0.5, "val/data_time": 0.1, "val/loss": 0.25, "val/accuracy": 0.9})
    tag, line = LogProcessor().get_log_after_iter(run, 1, "val")
    # mmengine 0.10.7 looks for names that begin with val/loss after it took the val/ away, and so shows none.
    assert line == "Epoch(val)  [3][2/4]  time: 0.5000  data_time: 0.1000  loss: 0.2500"
    assert (tag["epoch"], tag["iter"]) == (3, 75)  # as many as were done, with no one under way
    run.message_hub.update_scalar("test/time", 1.0)
    assert LogProcessor().get_log_after_iter(run, 4, "test")[1] == "Epoch(test) [  5/100]"


def test_after_a_validation_metrics_come_first_and_times_are_means_over_all_of_it() -> None:
    run = Run(epoch=3)
    for time in (9.0, 1.0, 2.0, 3.0, 6.0):  # the first is of the validation before
        run.message_hub.update_scalars({"val/time": time, "val/data_time": 0.1})
    run.message_hub.update_scalars({"val/accuracy": 0.9, "value": 1})
    run.message_hub.update_info_dict({"val/matrix": torch.eye(2), "val/name": "x", "valve": 1})
    tag, line = LogProcessor(window_size=2).get_log_after_epoch(run, 3, "val")
    assert line == (
        "Epoch(val)  [3][4/4]  accuracy: 0.9000  matrix: \ntensor([[1., 0.],\n        [0., 1.]])\n"
        "  name: x  time: 3.0000  data_time: 0.1000"
    )
    assert tag == {"accuracy": 0.9, "time": 3.0, "data_time": 0.1}
    tag, _ = LogProcessor().get_log_after_epoch(run, 3, "val", with_non_scalar=True)
    assert list(tag) == ["accuracy", "matrix", "name", "time", "data_time"]
    run.message_hub.update_scalar("test/accuracy", 0.75)
    assert LogProcessor().get_log_after_epoch(run, 99, "test")[1] == "Epoch(test) [100/100]  accuracy: 0.7500"
    assert LogProcessor(by_epoch=False).get_log_after_epoch(run, 99, "test")[1].startswith("Iter(test) [100/100]")


def test_a_time_that_is_not_known_is_no_error() -> None:
    run = training()
    run.message_hub.update_info("eta", float("inf"))
    assert "eta: unknown  time" in LogProcessor().get_log_after_iter(run, 0, "train")[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"custom_cfg": [{"data_src": "loss", "method_name": "mean"}, {"data_src": "loss", "method_name": "max"}]},
            AssertionError,
            r"custom_cfg\[1\] logs 'loss', which another entry logs, too",
        ),
        (
            {"custom_cfg": [{"data_src": "loss", "method_name": "mean", "window_size": "epoch"}], "by_epoch": False},
            AssertionError,
            "window_size 'epoch', but by_epoch is false",
        ),
        ({"custom_cfg": [{"method_name": "mean"}]}, ConflictError, "needs a name as data_src"),
        ({"custom_cfg": [{"data_src": "loss"}]}, ConflictError, "needs a name as method_name"),
        (
            {"custom_cfg": [{"data_src": "loss", "method_name": "mean", "window_size": "all"}]},
            KindError,
            "window_size 'all'",
        ),
        ({"custom_cfg": [{"data_src": "loss", "method_name": "mean", "window_size": 0}]}, ValueError, "window_size 0"),
        ({"window_size": 0}, ValueError, "window_size is 0"),
        ({"num_digits": -1}, ValueError, "num_digits is -1"),
        ({"mean_pattern": "("}, ValueError, "no regular expression"),
    ],
)
def test_mistakes_are_named_when_it_is_made(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LogProcessor(**arguments)


def test_without_epochs_a_statistic_needs_no_window() -> None:
    """mmengine 0.10.7 raises a KeyError for a statistic without window_size where by_epoch is false."""
    run = training()
    processor = LogProcessor(by_epoch=False, custom_cfg=[{"data_src": "lr", "method_name": "max"}])
    assert processor.get_log_after_iter(run, 0, "train")[0]["lr"] == 0.01


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode is 'fit', must be one of train, val, test"):
        LogProcessor().get_log_after_iter(Run(), 0, "fit")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="mode is 'train', must be one of val, test"):
        LogProcessor().get_log_after_epoch(Run(), 0, "train")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("by_epoch", [True, False])
def test_lines_and_values_are_those_of_mmengine_in_its_runner(tmp_path: Path, by_epoch: bool) -> None:
    """At every iteration, and after every validation and the test; but for what 0.10.7 gets wrong (above)."""
    pytest.importorskip("mmengine")
    from mmengine.evaluator import BaseMetric, Evaluator
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import LogProcessor as Theirs
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    custom: list[dict[str, Any]] = [
        {"data_src": "loss1", "log_name": "top", "method_name": "max", "window_size": 7},
        {"data_src": "loss1", "method_name": "mean", "window_size": "global"},
        {"data_src": "loss2", "method_name": "min", "log_name": "low", "window_size": 4},
    ]
    if by_epoch:
        custom.append({"data_src": "loss2", "log_name": "epoch2", "method_name": "mean", "window_size": "epoch"})
    settings: list[dict[str, Any]] = [
        {"window_size": 5, "custom_cfg": custom},
        {"window_size": 3, "num_digits": 2, "log_with_hierarchy": True},
    ]
    pairs = [(Theirs(by_epoch=by_epoch, **each), LogProcessor(by_epoch=by_epoch, **each)) for each in settings]
    compared: list[str] = []

    def compare(runner: Runner, batch_idx: int, mode: str, method: str) -> None:
        for theirs, ours in pairs:
            expected_tag, expected = getattr(theirs, method)(runner, batch_idx, mode)
            tag, line = getattr(ours, method)(runner, batch_idx, mode)
            if mode != "train":
                expected_tag.pop("iter", None)
                tag.pop("iter", None)
            assert list(tag) == list(expected_tag)
            assert tag == pytest.approx(dict(expected_tag))
            assert " ".join(line.split()) == " ".join(expected.split())
        compared.append(f"{mode} {method}")

    class Compare(Hook):  # type: ignore[misc]  # mmengine is not typed
        priority = "VERY_LOW"

        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            compare(runner, batch_idx, "train", "get_log_after_iter")

        def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            compare(runner, batch_idx, "val", "get_log_after_iter")

        def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
            compare(runner, len(runner.val_dataloader) - 1, "val", "get_log_after_epoch")

        def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
            compare(runner, len(runner.test_dataloader) - 1, "test", "get_log_after_epoch")

    class Model(BaseModel):  # type: ignore[misc]  # mmengine is not typed
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def forward(self, inputs: Tensor, label: Tensor, mode: str) -> Any:
            found = self.linear(inputs)
            return (
                {"loss1": (found - label).pow(2), "loss2": (found - label).abs()} if mode == "loss" else [found, label]
            )

    class Metric(BaseMetric):  # type: ignore[misc]  # mmengine is not typed
        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results.append(1)

        def compute_metrics(self, results: list[Any]) -> dict[str, float]:
            return {"accuracy": 0.5, "count": len(results)}

    loader: DataLoader[Any] = DataLoader([(torch.ones(1), torch.ones(1))] * 20, batch_size=2)  # type: ignore[arg-type]  # a list will do
    runner = Runner(
        model=Model(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": 2}
        if by_epoch
        else {"by_epoch": False, "max_iters": 20, "val_interval": 10},
        val_cfg={},
        test_cfg={},
        val_evaluator=Evaluator(Metric()),
        test_evaluator=Evaluator(Metric()),
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        log_processor={"by_epoch": by_epoch},
        custom_hooks=[Compare()],
        experiment_name=re.sub(r"\W", "_", str(tmp_path)),
    )
    runner.train()
    runner.test()
    assert {name: compared.count(name) for name in compared} == {
        "train get_log_after_iter": 20,
        "val get_log_after_iter": 20,
        "val get_log_after_epoch": 2,
        "test get_log_after_epoch": 1,
    }

"""The evaluator and metrics of mmengine: orders of arguments, prefixes, chunks, dumps, and the same on any number of ranks."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.comm.worlds import on_ranks, same
from tests.evaluation.batches import refusal, scores
from treenail.adapters import files
from treenail.adapters.comm import run_threads
from treenail.adapters.evaluation import Accuracy, PrecisionRecallF1
from treenail.adapters.evaluation.compat import BaseMetric, DumpResults, Evaluator, SampleMetric, get_metric_value
from treenail.adapters.registries import mmengine
from treenail.kernel import CommunicationError, Communicator, FileError, TrainingError


class ToyAccuracy(BaseMetric):
    """The seeds' example: labels are in the batch, predictions are the model's; names of arguments are free."""

    default_prefix = "ACC"

    def process(self, label: Any, pred: Sequence[Tensor]) -> None:
        self.results.append({"batch_size": len(pred), "correct": (torch.stack(list(pred)) == label[1]).sum()})

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, Tensor]:
        assert len(self.results) > 0  # seed metrics read it here, so it is emptied only afterwards
        correct = sum(result["correct"] for result in results)
        return {"Accuracy": 100 * torch.as_tensor(correct) / sum(result["batch_size"] for result in results)}


class Items(BaseMetric):
    """Keeps samples; the result is what it was given, so that order and padding are seen."""

    def process(self, data_batch: object, data_samples: Sequence[object]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[object]) -> dict[str, object]:
        return {"items": list(results)}


class Seen(BaseMetric):
    """Keeps what it is called with."""

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append((data_batch, data_samples))

    def compute_metrics(self, results: list[object]) -> dict[str, object]:
        return {"seen": list(results)}


class Element:
    """A data element, as far as the evaluator looks at it."""

    def __init__(self, label: int) -> None:
        self.label = label

    def to_dict(self) -> dict[str, int]:
        return {"label": self.label}

    def to(self, device: str) -> Element:
        return Element(self.label) if device == "cpu" else self


def test_the_example_of_the_seeds() -> None:
    evaluator = Evaluator(ToyAccuracy())
    images = torch.zeros(3)
    evaluator.process([torch.tensor(1), torch.tensor(2), torch.tensor(0)], (images, torch.tensor([1, 2, 3])))
    evaluator.process([torch.tensor(4)], (images[:1], torch.tensor([4])))
    assert evaluator.evaluate(4) == {"ACC/Accuracy": torch.tensor(75.0)}
    evaluator.process([torch.tensor(4)], (images[:1], torch.tensor([5])))
    assert evaluator.evaluate(1) == {"ACC/Accuracy": torch.tensor(0.0)}  # begun anew


def test_only_data_elements_become_dicts() -> None:
    tensor, pair = torch.zeros(3, 2), (torch.ones(2), 0.5)
    evaluator = Evaluator(Seen())
    for samples in (tensor, pair, [Element(1), 7], {"scores": tensor}):
        evaluator.process(samples, "batch")
    batches, found = zip(*evaluator.evaluate(9)["seen"], strict=True)
    assert set(batches) == {"batch"}
    assert same(list(found), [tensor, pair, [{"label": 1}, 7], {"scores": tensor}])


def test_prefixes_keep_names_apart_and_a_collision_is_an_error() -> None:
    evaluator = Evaluator([Items(prefix="a"), Items(prefix="b"), ToyAccuracy(prefix="")])
    evaluator.process([torch.tensor(1)], (None, torch.tensor([1])))
    assert list(evaluator.evaluate(1)) == ["a/items", "b/items", "Accuracy"]
    evaluator = Evaluator([Items(), Items()])
    evaluator.process([1])
    assert "two metrics give 'items'" in refusal(lambda: evaluator.evaluate(1), ValueError)
    assert [metric.results for metric in evaluator.metrics] == [[], []]


def test_what_the_dataset_tells_reaches_every_metric() -> None:
    evaluator = Evaluator([Items(prefix="a"), Items(prefix="b")])
    assert evaluator.dataset_meta is None
    evaluator.dataset_meta = {"classes": ("cat", "dog")}
    assert [metric.dataset_meta for metric in evaluator.metrics] == [{"classes": ("cat", "dog")}] * 2
    assert evaluator.dataset_meta == {"classes": ("cat", "dog")}


Pair = namedtuple("Pair", ["image", "label"])  # as datasets return them


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 9])
@pytest.mark.parametrize("as_iterator", [False, True])
def test_offline_evaluation_goes_in_chunks(chunk_size: int, as_iterator: bool) -> None:
    samples = [{"pred": number} for number in range(5)]
    data = [Pair({"pixels": number}, (number, "x")) for number in range(5)]
    evaluator = Evaluator([Items(prefix="items"), Seen()])

    def given(values: Sequence[Any]) -> Any:
        return iter(values) if as_iterator else values

    found = evaluator.offline_evaluate(given(samples), given(data), chunk_size=chunk_size)
    assert found["items/items"] == samples
    expected = [range(begin, min(begin + chunk_size, 5)) for begin in range(0, 5, chunk_size)]
    for (batch, seen), numbers in zip(found["seen"], expected, strict=True):
        assert seen == [samples[number] for number in numbers]
        assert batch == Pair({"pixels": list(numbers)}, [tuple(numbers), ("x",) * len(numbers)])
    without = evaluator.offline_evaluate(given(samples), chunk_size=chunk_size)
    assert without["items/items"] == samples
    assert {batch for batch, _ in without["seen"]} == {None}


def test_offline_data_must_be_as_many() -> None:
    evaluator = Evaluator(Items())
    assert "3 data_samples and 2 data" in refusal(lambda: evaluator.offline_evaluate([1, 2, 3], [1, 2]), ValueError)
    short = refusal(lambda: evaluator.offline_evaluate([1, 2, 3], iter([1, 2]), chunk_size=2), ValueError)
    assert "data ended after 2, before data_samples" in short
    long = refusal(lambda: Evaluator(Items()).offline_evaluate(iter([1]), [1, 2]), ValueError)
    assert "data_samples ended after 1, before data" in long
    assert "chunk_size is 0" in refusal(lambda: evaluator.offline_evaluate([1], chunk_size=0), ValueError)


def test_a_dump_is_evaluated_offline(tmp_path: Path) -> None:
    outputs, targets = scores(7, 3, 1), torch.arange(7) % 3
    path = tmp_path / "predictions.pkl"
    online = Evaluator([DumpResults(str(path)), Accuracy((1, 2)), PrecisionRecallF1()])
    for begin in (0, 4):
        rows = range(begin, min(begin + 4, 7))
        online.process([{"pred_score": outputs[row], "gt_label": targets[row].view(1)} for row in rows])
    found = online.evaluate(7)
    written = files.load(path, allow_pickle=True)
    assert isinstance(written, list)
    assert len(written) == 7
    offline = Evaluator(metrics=[{"type": "Accuracy", "top_k": (1, 2)}, PrecisionRecallF1()])
    assert offline.offline_evaluate(written, chunk_size=3) == found
    whole = Accuracy((1, 2))
    whole.update(outputs, targets)
    assert found == {**whole.compute(), **{name: found[name] for name in found if "macro" in name}}


def test_predictions_are_dumped_on_the_cpu_and_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "here" / "predictions.pickle"
    metric = DumpResults(path)
    nested = {"boxes": [torch.ones(2, requires_grad=True)], "pair": Pair(torch.zeros(1), "x")}
    metric.process(None, [nested])
    assert metric.evaluate(1) == {}
    assert same(files.load(path, allow_pickle=True), [{"boxes": [torch.ones(2)], "pair": Pair(torch.zeros(1), "x")}])
    metric.process(None, [lambda: None])
    refusal(lambda: metric.evaluate(1), FileError)
    assert len(files.load(path, allow_pickle=True)) == 1  # type: ignore[arg-type]  # a list, as above
    mapping: Any = {"boxes": torch.ones(2)}
    assert "predictions are a dict of boxes" in refusal(lambda: metric.process(None, mapping), TrainingError)
    assert "must end in .pkl" in refusal(lambda: DumpResults("predictions.json"), ValueError)


def test_configs_build_metrics_and_are_left_alone() -> None:
    config = {"type": "DumpResults", "out_file_path": "x.pkl"}
    evaluator = Evaluator([config, {"type": ToyAccuracy, "prefix": "mine"}])
    assert [type(metric) for metric in evaluator.metrics] == [DumpResults, ToyAccuracy]
    assert config == {"type": "DumpResults", "out_file_path": "x.pkl"}
    registry: mmengine.Registry[Any] = mmengine.Registry("metric", scope="mine")
    registry.register_module(module=ToyAccuracy)
    assert isinstance(Evaluator({"type": "ToyAccuracy"}, registry).metrics[0], ToyAccuracy)
    assert "ToyAccuracy" not in mmengine.RootRegistries().METRICS
    assert "is no metric" in refusal(lambda: Evaluator([3]), TypeError)
    assert "is no metric" in refusal(lambda: Evaluator("Accuracy"), TypeError)


def test_arguments_that_cannot_be_meant_are_refused() -> None:
    assert "collect_device is 'tpu'" in refusal(lambda: Items("tpu"), ValueError)  # type: ignore[arg-type]  # wrong on purpose
    assert "leave collect_dir out" in refusal(lambda: Items("gpu", collect_dir="x"), ValueError)
    assert "batch_size is 0" in refusal(lambda: SampleMetric(Accuracy(), batch_size=0), ValueError)
    with pytest.raises(TypeError, match="abstract"):
        BaseMetric()  # type: ignore[abstract]  # wrong on purpose


def test_samples_that_say_nothing_are_named() -> None:
    metric = SampleMetric(Accuracy())
    message = refusal(lambda: metric.process(None, [{"pred_score": 1, "label": 2}]), TrainingError)
    assert "has no 'gt_label', but pred_score, label" in message
    assert "a data sample is a int" in refusal(lambda: metric.process(None, [3]), TrainingError)
    metric.process(None, [(torch.zeros(2), 0), (torch.zeros(3), 0)])
    assert "the samples' 'pred_score' cannot be put together" in refusal(lambda: metric.evaluate(2), TrainingError)
    assert metric.results == []
    assert "of no samples" in refusal(lambda: metric.evaluate(2), TrainingError)


def test_no_results_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmengine"):
        assert Items().evaluate(0) == {"items": []}
    assert "Items has no results" in caplog.text


def dealt(samples: Sequence[int], world_size: int, rank: int) -> Iterator[int]:
    """Yield a rank's share as mmengine's sampler deals it: padded with the first samples, so that all have equally many."""
    longest = -(-len(samples) // world_size)
    padded = [*samples, *(list(samples) * world_size)[: longest * world_size - len(samples)]]
    yield from padded[rank::world_size]


@given(
    rows=st.integers(1, 13),
    world_size=st.integers(1, 4),
    batch=st.integers(1, 5),
    padded=st.booleans(),
    shared=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_many_ranks_measure_what_one_does(
    tmp_path_factory: pytest.TempPathFactory, rows: int, world_size: int, batch: int, padded: bool, shared: bool
) -> None:
    outputs, targets = scores(rows, 3, rows), torch.arange(rows) % 3
    directory = str(tmp_path_factory.mktemp("shared")) if shared else None

    def program(communicator: Communicator) -> dict[str, Any]:
        evaluator = Evaluator(
            [
                Items(prefix="x", collect_dir=directory),
                SampleMetric(Accuracy((1, 2))),
                SampleMetric(PrecisionRecallF1()),
            ]
        )
        rank = communicator.rank
        mine = list(dealt(range(rows), world_size, rank) if padded else range(rows)[rank::world_size])
        for begin in range(0, len(mine), batch):
            evaluator.process([(outputs[row], targets[row]) for row in mine[begin : begin + batch]])
        return evaluator.evaluate(rows)

    accuracy, others = Accuracy((1, 2)), PrecisionRecallF1()
    for metric in (accuracy, others):
        metric.update(outputs, targets)
    expected = {"x/items": list(zip(outputs, targets, strict=True)), **accuracy.compute(), **others.compute()}
    for found in on_ranks(world_size, program):
        assert same(found, expected)


class Fails(Items):
    """Divides by zero where there is nothing."""

    def compute_metrics(self, results: list[object]) -> dict[str, object]:
        return {"share": 1 / len(results)}


def test_after_a_failure_every_metric_begins_anew() -> None:
    evaluator = Evaluator([Fails(prefix="a"), Items(prefix="b")])
    evaluator.metrics[1].process(None, [1])
    refusal(lambda: evaluator.evaluate(1), ZeroDivisionError)
    evaluator.process([2])
    assert evaluator.evaluate(1) == {"a/share": 1.0, "b/items": [2]}


def test_a_failure_on_rank_0_reaches_every_rank_and_they_can_go_on() -> None:
    def program(communicator: Communicator) -> str:
        metric = Fails()
        kind: type[Exception] = ZeroDivisionError if communicator.rank == 0 else TrainingError
        message = refusal(lambda: metric.evaluate(0), kind)
        metric.process(None, [communicator.rank])
        assert metric.evaluate(2) == {"share": 0.5}
        return message

    first, *others = on_ranks(3, program)
    assert first == "division by zero"
    assert set(others) == {"Fails failed on rank 0: ZeroDivisionError: division by zero"}


def test_a_size_that_is_none_is_refused() -> None:
    metric = Items()
    metric.process(None, [1, 2])
    assert "size is -1" in refusal(lambda: metric.evaluate(-1), ValueError)


def test_disagreement_about_the_size_is_an_error_on_every_rank() -> None:
    def program(communicator: Communicator) -> str:
        return refusal(lambda: Items().evaluate(communicator.rank), CommunicationError)

    assert all("size is 1 on rank 1" in message for message in run_threads(2, program, timeout=60.0))


def test_it_does_what_mmengine_does(tmp_path: Path) -> None:
    theirs = pytest.importorskip("mmengine.evaluator")

    class Both(theirs.BaseMetric):  # type: ignore[misc, name-defined]  # it is of type Any here, where the package may be missing
        default_prefix = "both"

        def process(self, data_batch: object, data_samples: Sequence[object]) -> None:
            self.results.append((data_batch, data_samples))

        def compute_metrics(self, results: list[object]) -> dict[str, object]:
            return {"seen": list(results)}

    samples = [{"pred": torch.tensor(number)} for number in range(5)]
    data = [{"inputs": torch.tensor(number), "label": (number, "x"), "size": [1, 2]} for number in range(5)]
    ours, other = tmp_path / "ours.pkl", tmp_path / "theirs.pkl"
    found = Evaluator([Seen(prefix="both"), DumpResults(str(ours))]).offline_evaluate(samples, data, chunk_size=2)
    expected = theirs.Evaluator([Both(), theirs.DumpResults(str(other))]).offline_evaluate(samples, data, chunk_size=2)
    assert same(found, expected)
    assert same(files.load(ours, allow_pickle=True), files.load(other, allow_pickle=True))


def test_values_are_found_by_name() -> None:
    metrics = {"COCO/AP": 0.5, "VOC/AP": 0.25, "COCO/AR": 0.75, "loss": 1.0}
    assert get_metric_value("COCO/AP", metrics) == 0.5
    assert get_metric_value("AR", metrics) == 0.75
    assert get_metric_value("loss", metrics) == 1.0
    assert "several metrics; say which: COCO/AP, VOC/AP" in refusal(lambda: get_metric_value("AP", metrics), ValueError)
    assert "no metric is called 'F1'" in refusal(lambda: get_metric_value("F1", metrics), ValueError)
    assert "no metric is called 'VOC/AR'" in refusal(lambda: get_metric_value("VOC/AR", metrics), ValueError)

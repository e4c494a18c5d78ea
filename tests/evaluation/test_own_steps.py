"""Models that say themselves what they predict, and metrics that process samples, on one rank and on many."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.evaluation.models import Detector, Fingerprint, Net, PerBatch, Rows
from treenail.adapters.comm import SingleProcess, run_threads
from treenail.adapters.data import Batches, Indexed, Loader
from treenail.adapters.evaluation import Accuracy, DumpPredictions
from treenail.adapters.loops import EvalLoop
from treenail.adapters.sampling import RandomSampler, SequentialSampler, Shard
from treenail.adapters.sampling.compat import EvalDistributedSampler
from treenail.contracts import MeasuresSamples, TakesPredictions
from treenail.kernel import Communicator, Engine, Metric, Sampler, TrainingError

Measure = Metric | MeasuresSamples | TakesPredictions


def evaluated(
    ranks: Communicator, model: nn.Module, size: int, output: Path | None = None, *, shuffled: bool = False
) -> dict[str, float]:
    dataset = Indexed(Rows(size))
    sampler: Sampler = RandomSampler(dataset, 5) if shuffled else SequentialSampler(dataset)
    batches = Loader(
        dataset, sampler, batch_size=3, collate=dataset.collate, rank=ranks.rank, world_size=ranks.world_size
    )
    dumps = [] if output is None else [DumpPredictions(str(output))]
    metrics: list[Measure] = [Accuracy(), Fingerprint(prefix="x"), PerBatch(), *dumps]
    loss = None if isinstance(model, Detector) else nn.CrossEntropyLoss()
    loop = EvalLoop("val", model, loss, batches, metrics, communicator=ranks)
    Engine().run(loop)
    assert loop.metrics is not None
    return loop.metrics


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("kind", "size"), [(Net, 7), (Detector, 7), (Detector, 1), (Net, 4)])
def test_ranks_measure_what_one_does(kind: type[Net], size: int, shuffled: bool, tmp_path: Path) -> None:
    """Shares are uneven in each case; with one sample, or a last batch of one, ranks have none."""
    alone = evaluated(SingleProcess(), kind(), size, tmp_path / "alone.jsonl", shuffled=shuffled)

    def on_rank(ranks: Communicator) -> dict[str, float]:
        return evaluated(ranks, kind(), size, tmp_path / f"of{ranks.world_size}.jsonl", shuffled=shuffled)

    for world_size in (2, 3):
        assert run_threads(world_size, on_rank) == [alone] * world_size
        lines = (tmp_path / f"of{world_size}.jsonl").read_text()
        assert lines == (tmp_path / "alone.jsonl").read_text()
        assert sorted(json.loads(line)["index"] for line in lines.splitlines()) == list(range(size))
    assert alone["val/x/count"] == size


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("size", [7, 2])
def test_blocks_of_ranks_are_measured_without_their_padding(size: int, padding: bool, tmp_path: Path) -> None:
    """The last rank has fewer samples than the first, or none at all, or those of the first once more."""

    def on_rank(ranks: Communicator) -> dict[str, float]:
        dataset = Indexed(Rows(size))
        block = EvalDistributedSampler(len(dataset), ranks.world_size, ranks.rank, padding=padding)
        batches = Loader(dataset, block, batch_size=2, collate=dataset.collate)
        metrics: list[Measure] = [Accuracy(), Fingerprint(prefix="x"), DumpPredictions(str(tmp_path / "all.jsonl"))]
        loop = EvalLoop("val", Detector(), None, batches, metrics, communicator=ranks)
        Engine().run(loop)
        assert loop.metrics is not None
        return loop.metrics

    alone = evaluated(SingleProcess(), Detector(), size)
    alone.pop("val/batchwise/accuracy")
    assert run_threads(3, on_rank) == [alone] * 3
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(range(size))


class Pairs(Net):
    def val_step(self, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self(data[0]), data[1]


class Scores(Net):
    def val_step(self, data: tuple[Tensor, Tensor]) -> Tensor:
        scores: Tensor = self(data[0])
        return scores


class Words(Net):
    def val_step(self, data: tuple[Tensor, Tensor]) -> str:
        return "cat"


def batches() -> Batches:
    rows = [Rows()[index] for index in range(7)]
    inputs, targets = (torch.stack(part) for part in zip(*rows, strict=True))
    return Batches([(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])


def test_what_a_step_may_return_for_metrics_of_scores() -> None:
    expected = EvalLoop("val", Net(), nn.CrossEntropyLoss(), batches(), [Accuracy()])
    Engine().run(expected)
    assert expected.metrics is not None
    for kind in (Pairs, Scores, Detector):
        loop = EvalLoop("val", kind(), None, batches(), [Accuracy()])
        Engine().run(loop)
        assert loop.metrics == {"val/accuracy": expected.metrics["val/accuracy"]}
    with pytest.raises(TrainingError, match="the model predicts a str, in which there are no scores"):
        Engine().run(EvalLoop("val", Words(), None, batches(), [Accuracy()]))


def test_a_test_asks_for_its_own_step_and_a_loss_for_the_outputs() -> None:
    loop = EvalLoop("test", Words(), None, batches(), [Accuracy()])  # it has a val_step only
    Engine().run(loop)
    assert loop.metrics is not None
    assert "test/accuracy" in loop.metrics
    Engine().run(EvalLoop("val", Words(), nn.CrossEntropyLoss(), batches(), [Accuracy()]))


def test_ranks_whose_batches_tell_no_samples_take_turns(tmp_path: Path) -> None:
    def on_rank(ranks: Communicator) -> dict[str, float] | None:
        own = [
            (torch.full((2, 3), float(number + ranks.rank)), torch.zeros(2, dtype=torch.int64)) for number in (0, 10)
        ]
        source = Batches(own[: 2 - ranks.rank])  # the last rank has one batch less
        metrics: list[Measure] = [Accuracy(), DumpPredictions(str(tmp_path / "a.jsonl"))]
        loop = EvalLoop("val", nn.Identity(), nn.CrossEntropyLoss(), source, metrics, communicator=ranks)
        Engine().run(loop)
        return loop.metrics

    first, second = run_threads(2, on_rank)
    assert first == second
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(6))
    assert [line["prediction"][0] for line in lines] == [0.0, 1.0, 0.0, 1.0, 10.0, 10.0]


class Unnamed(Fingerprint):
    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"per_class": [1.0, 2.0]}  # type: ignore[dict-item]  # the mistake


def test_wrong_results_and_names_are_explained() -> None:
    with pytest.raises(TrainingError, match="Unnamed gives a list for 'per_class', no number"):
        Engine().run(EvalLoop("val", Detector(), None, batches(), [Unnamed()]))
    metrics: list[Measure] = [Accuracy(), Fingerprint(), Fingerprint()]
    both = r"two metrics give 'val/count': Fingerprint \(metrics.1\) and Fingerprint \(metrics.2\)"
    with pytest.raises(TrainingError, match=both):
        Engine().run(EvalLoop("val", Detector(), None, batches(), metrics))
    with pytest.raises(TypeError, match="is no metric"):
        EvalLoop("val", Net(), None, batches(), ["accuracy"])  # type: ignore[list-item]  # the mistake


class Unlike(Net):
    """Predicts what ranks cannot put together."""

    def __init__(self, predicts: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.predicts = predicts

    def val_step(self, data: tuple[Tensor, Tensor]) -> object:
        return self.predicts(data[0])


@pytest.mark.parametrize(
    ("predicts", "message"),
    [
        (lambda inputs: {"loss": inputs.sum()}, r"the ranks computed a tensor \[\], a tensor \[\]"),
        (lambda inputs: {"padded": inputs[:, : len(inputs)]}, r"computed a tensor \[2, 2\], a tensor \[1, 1\]"),
        (lambda inputs: {str(len(inputs)): inputs}, r"computed \{2\}, \{1\}"),
        (lambda inputs: "ab", "computed a str, a str"),
    ],
)
def test_what_is_not_one_a_sample_is_named(predicts: Callable[[Tensor], object], message: str, tmp_path: Path) -> None:
    def on_rank(ranks: Communicator) -> None:
        dataset = Indexed(Rows(3))
        batches = Loader(
            dataset,
            SequentialSampler(dataset),
            batch_size=3,
            collate=dataset.collate,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        loop = EvalLoop(
            "val", Unlike(predicts), None, batches, [DumpPredictions(str(tmp_path / "a.jsonl"))], communicator=ranks
        )
        Engine().run(loop)

    with pytest.raises(TrainingError, match=message):
        run_threads(2, on_rank)


def test_repeated_samples_that_nothing_marks_are_refused() -> None:
    def on_rank(ranks: Communicator, size: int, marked: bool) -> float:
        dataset = Indexed(Rows(size))
        shard = Shard(SequentialSampler(dataset), ranks.rank, ranks.world_size, marked=marked)
        batches = Loader(dataset, shard, batch_size=2, collate=dataset.collate)
        loop = EvalLoop("val", Detector(), None, batches, [Fingerprint()], communicator=ranks)
        Engine().run(loop)
        return (loop.metrics or {})["val/count"]

    for size, marked in ((7, True), (6, False)):
        assert run_threads(3, partial(on_rank, size=size, marked=marked)) == [size] * 3
    with pytest.raises(TrainingError, match=r"Shard repeats samples of the val data.*; give it marked=True"):
        run_threads(3, partial(on_rank, size=7, marked=False))


class Named(nn.Module):
    """Takes its inputs by name."""

    def val_step(self, data: dict[str, Tensor]) -> Tensor:
        return data["inputs"]


def test_targets_may_be_the_data_samples_of_a_batch() -> None:
    batch = {"inputs": torch.eye(3), "data_samples": torch.tensor([0, 1, 0])}
    loop = EvalLoop("val", Named(), None, Batches([batch]), [Accuracy()])
    Engine().run(loop)
    assert loop.metrics == {"val/accuracy": 2 / 3}


@pytest.mark.parametrize("sample", [{"pred_score": None, "gt_label": 0}, (object(), 1)])
def test_samples_without_tensors_are_named(sample: object) -> None:
    loop = EvalLoop("val", Unlike(lambda data: [sample]), None, Batches([(torch.ones(1, 3),)]), [Accuracy()])
    with pytest.raises(TrainingError, match=r"a data sample has .* for its scores and its target"):
        Engine().run(loop)

"""Metrics of classes say of any batches what scikit-learn says of the whole."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.evaluation.batches import measured, refusal, scores, splits
from treenail.adapters.evaluation import Accuracy, ConfusionMatrix, PrecisionRecallF1
from treenail.kernel import Metric, TrainingError

sklearn = pytest.importorskip("sklearn.metrics")

Averages = tuple[Literal["micro", "macro", "weighted", "per_class"], ...]
EVERY: Averages = ("micro", "macro", "weighted", "per_class")


@st.composite
def data(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[list[int]]]:
    rows, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    found = scores(rows, classes, draw(st.integers(0, 2**31)))
    return found, torch.tensor(targets), draw(splits(rows))


@given(data=data(), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
@settings(deadline=None, max_examples=80)
def test_accuracy_is_that_of_a_stable_order(data: tuple[Tensor, Tensor, list[list[int]]], dtype: torch.dtype) -> None:
    outputs, targets, split = data
    order = outputs.sort(dim=1, descending=True, stable=True).indices  # equal scores: the lower class first
    numbers = tuple(range(1, outputs.shape[1] + 1))
    found = measured(Accuracy(numbers), outputs.to(dtype), targets, split)
    expected = {k: float((order[:, :k] == targets[:, None]).any(1).double().mean()) for k in numbers}
    assert found == {"accuracy" if k == 1 else f"accuracy_top{k}": value for k, value in expected.items()}
    assert found["accuracy"] == sklearn.accuracy_score(targets, outputs.argmax(1))
    distinct = outputs + torch.arange(outputs.shape[1]) * 1e-3  # scikit-learn breaks ties in another way
    for k in numbers[:-1]:
        if k == 1 or outputs.shape[1] == 2:
            continue
        theirs = sklearn.top_k_accuracy_score(targets, distinct.numpy(), k=k, labels=range(outputs.shape[1]))
        assert measured(Accuracy(k), distinct, targets, split) == {f"accuracy_top{k}": pytest.approx(theirs, rel=1e-12)}


@given(data=data(), zero=st.sampled_from([0, 1]), predicted=st.booleans())
@settings(deadline=None, max_examples=120)
def test_precision_recall_and_f1_are_those_of_scikit_learn(
    data: tuple[Tensor, Tensor, list[list[int]]], zero: Literal[0, 1], predicted: bool
) -> None:
    outputs, targets, split = data
    classes = outputs.shape[1]
    metric = PrecisionRecallF1(EVERY, zero_division=zero, num_classes=classes if predicted else None)
    found = measured(metric, outputs.argmax(1) if predicted else outputs, targets, split)
    names = ("precision", "recall", "f1")
    expected: dict[str, float] = {}
    for average in EVERY:
        theirs = sklearn.precision_recall_fscore_support(
            targets,
            outputs.argmax(1),
            average=None if average == "per_class" else average,
            labels=range(classes) if average == "per_class" else None,
            zero_division=zero,
        )
        for name, value in zip(names, theirs[:3], strict=True):
            if average == "per_class":
                expected |= {f"{name}/{number}": each for number, each in enumerate(value)}
            else:
                expected[f"{name}_{average}"] = value
    assert found == pytest.approx(expected, rel=1e-12)
    assert list(found)[:3] == ["precision_micro", "recall_micro", "f1_micro"]


@given(data=data(), how=st.sampled_from([("none", None), ("target", "true"), ("prediction", "pred"), ("all", "all")]))
@settings(deadline=None, max_examples=80)
def test_the_confusion_matrix_is_that_of_scikit_learn(
    data: tuple[Tensor, Tensor, list[list[int]]],
    how: tuple[Literal["none", "target", "prediction", "all"], str | None],
) -> None:
    outputs, targets, split = data
    classes = range(outputs.shape[1])
    metric = ConfusionMatrix(how[0])
    found = measured(metric, outputs, targets, split)
    theirs = sklearn.confusion_matrix(targets, outputs.argmax(1), labels=classes, normalize=how[1])
    assert np.allclose(metric.matrix().numpy(), theirs, rtol=1e-12, atol=0)
    assert list(found) == [f"confusion/{target}/{prediction}" for target in classes for prediction in classes]
    assert list(found.values()) == pytest.approx(theirs.reshape(-1).tolist(), rel=1e-12)


def test_a_worked_example() -> None:
    targets, predictions = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 2, 1, 0, 0, 1])  # scikit-learn's own
    names = ("ant", "bee", "cat")
    metric = PrecisionRecallF1(("macro", "per_class"), class_names=names)
    metric.update(predictions, targets)
    found = metric.compute()
    assert found["precision_macro"] == pytest.approx(2 / 9)
    assert found["recall_macro"] == pytest.approx(1 / 3)
    assert found["f1_macro"] == pytest.approx(0.8 / 3)
    assert [found["precision/ant"], found["recall/ant"], found["f1/cat"]] == pytest.approx([2 / 3, 1.0, 0.0])
    matrix = ConfusionMatrix(class_names=names)
    matrix.update(predictions, targets)
    assert matrix.matrix().tolist() == [[2, 0, 0], [1, 0, 1], [0, 2, 0]]
    assert matrix.compute()["confusion/bee/cat"] == 1.0


def test_zero_division_says_what_a_class_without_predictions_has() -> None:
    targets, predictions = torch.tensor([0, 1]), torch.tensor([0, 0])
    for zero, expected in ((0, 0.0), (1, 1.0)):
        metric = PrecisionRecallF1(("per_class", "macro"), zero_division=zero, num_classes=3)  # type: ignore[arg-type]  # a loop's int
        metric.update(predictions, targets)
        found = metric.compute()
        assert (found["precision/1"], found["recall/1"], found["f1/1"]) == (expected, 0.0, 0.0)
        assert (found["precision/2"], found["recall/2"], found["f1/2"]) == (expected,) * 3
        assert found["precision_macro"] == (0.5 + expected) / 2  # class 2 does not occur, and is no part of the mean


@pytest.mark.parametrize(
    "metric",
    [Accuracy((1, 2), ignore_index=-1), PrecisionRecallF1(EVERY, ignore_index=-1), ConfusionMatrix("all", None, -1)],
)
def test_ignored_targets_do_not_count_and_pixels_and_tokens_do(metric: Metric) -> None:
    outputs, targets = scores(24, 4, 3).view(2, 3, 4, 4), torch.arange(24).remainder(5).view(2, 3, 4) - 1
    metric.update(outputs, targets)
    found = metric.compute()
    metric.reset()
    kept = targets != -1
    metric.update(outputs[kept], targets[kept])
    assert found == metric.compute()
    metric.reset()
    metric.update(outputs, torch.full_like(targets, -1))
    assert "of no samples" in refusal(metric.compute, TrainingError)


METRICS: list[Metric] = [Accuracy(), PrecisionRecallF1(), ConfusionMatrix()]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_mistakes_are_named(metric: Metric) -> None:
    metric.reset()
    assert "of no samples" in refusal(metric.compute, TrainingError)
    for outputs, targets in (
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 0), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2), torch.tensor(1)),
        (torch.tensor(1.0), torch.tensor(1)),
        (torch.zeros(3, 2, dtype=torch.complex64), torch.zeros(3, dtype=torch.int64)),
    ):
        assert "of " in refusal(lambda o=outputs, t=targets: metric.update(o, t), TrainingError)  # type: ignore[misc]  # bound now
    for target in (2, 99, -1, -100):
        metric.reset()
        metric.update(torch.zeros(3, 2), torch.tensor([0, 1, target]))
        assert "1 samples have a target, or a predicted class, that is not 0 … 1" in refusal(
            metric.compute, TrainingError
        )


def test_shapes_are_in_the_message() -> None:
    message = refusal(lambda: PrecisionRecallF1().update(torch.zeros(3, 2), torch.zeros(4)), TrainingError)
    assert "outputs float32[3, 2] and targets float32[4]" in message
    message = refusal(lambda: Accuracy(3).update(torch.zeros(3, 2), torch.zeros(3).long()), TrainingError)
    assert "outputs [3, 2]" in message
    assert "classes >= 3" in message


def test_predicted_classes_need_their_number_and_must_be_within() -> None:
    assert "say num_classes" in refusal(
        lambda: PrecisionRecallF1().update(torch.zeros(2).long(), torch.zeros(2).long()), TrainingError
    )
    metric = PrecisionRecallF1(num_classes=2)
    metric.update(torch.tensor([0, 2]), torch.tensor([0, 1]))
    assert "1 samples" in refusal(metric.compute, TrainingError)
    assert "num_classes is 2" in refusal(lambda: metric.update(torch.zeros(1, 3), torch.zeros(1).long()), TrainingError)
    other = ConfusionMatrix()
    other.update(torch.zeros(1, 3), torch.zeros(1).long())
    assert "of 4 classes, after a batch with 3" in refusal(
        lambda: other.update(torch.zeros(1, 4), torch.zeros(1).long()), TrainingError
    )


def test_scores_that_are_nan_predict_no_class() -> None:
    outputs = torch.tensor([[1.0, 0.0, 0.0], [float("nan"), 0.0, 2.0], [float("nan")] * 3])
    targets = torch.tensor([0, 2, 1])
    accuracy = Accuracy((1, 3))
    accuracy.update(outputs, targets)
    assert accuracy.compute() == {"accuracy": 1 / 3, "accuracy_top3": 1 / 3}
    metric = PrecisionRecallF1(("micro", "per_class"))
    metric.update(outputs, targets)
    found = metric.compute()
    assert [found["precision_micro"], found["recall_micro"]] == pytest.approx([1.0, 1 / 3])
    assert found["recall/2"] == 0.0
    confusion = ConfusionMatrix()
    confusion.update(outputs, targets)
    assert "no place for 2 samples, whose scores are NaN" in refusal(confusion.compute, TrainingError)


def test_arguments_that_say_nothing_are_refused() -> None:
    for call in (
        lambda: Accuracy(0),
        lambda: Accuracy(()),
        lambda: Accuracy((1, 1)),
        lambda: PrecisionRecallF1(()),
        lambda: PrecisionRecallF1(("macro", "macro")),
        lambda: PrecisionRecallF1(("makro",)),  # type: ignore[arg-type]  # wrong on purpose
        lambda: PrecisionRecallF1(num_classes=0),
        lambda: PrecisionRecallF1(class_names=("a", "a")),
        lambda: ConfusionMatrix(num_classes=3, class_names=("a", "b")),
        lambda: ConfusionMatrix("rows"),  # type: ignore[arg-type]  # wrong on purpose
    ):
        refusal(call, ValueError)


def test_memory_does_not_grow_and_no_graph_is_kept() -> None:
    outputs = scores(8, 3, 0).requires_grad_()
    targets = torch.arange(8) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in METRICS:
            metric.reset()
            sizes = set()
            for _ in range(3):
                metric.update(outputs, targets)
                held = [value for value in vars(metric).values() if isinstance(value, Tensor)]
                assert not any(value.requires_grad for value in held)
                sizes.add(sum(value.numel() for value in held))
                assert not any(isinstance(value, list) for value in vars(metric).values())
            assert len(sizes) == 1

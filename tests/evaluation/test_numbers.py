"""Errors of numbers and perplexity say of any batches what scikit-learn and torch say of the whole."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.evaluation.batches import measured, refusal, splits
from treenail.adapters.evaluation import Perplexity, RegressionErrors
from treenail.kernel import TrainingError

sklearn = pytest.importorskip("sklearn.metrics")


@st.composite
def numbers(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[list[int]]]:
    rows, columns = draw(st.integers(2, 30)), draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (rows, columns) if columns else (rows,)
    targets = torch.randn(shape, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        targets = targets.round()
    outputs = targets + torch.randn(shape, generator=generator) * draw(st.sampled_from([0.0, 0.1, 3.0]))
    offset = draw(st.sampled_from([0.0, 1e3, 1e7]))
    return outputs + offset, targets + offset, draw(splits(rows))


@given(data=numbers())
@settings(deadline=None, max_examples=150)
def test_errors_are_those_of_scikit_learn(data: tuple[Tensor, Tensor, list[list[int]]]) -> None:
    outputs, targets, split = data
    found = measured(RegressionErrors(), outputs, targets, split)
    assert found == pytest.approx(
        {
            "mae": sklearn.mean_absolute_error(targets, outputs),
            "mse": sklearn.mean_squared_error(targets, outputs),
            "rmse": sklearn.root_mean_squared_error(targets, outputs),
            "r2": sklearn.r2_score(targets, outputs),
        },
        rel=1e-7,  # at an offset of 1e7 the targets themselves have 9 digits behind their mean
        abs=1e-9,
    )


def test_a_worked_example() -> None:
    metric = RegressionErrors()
    metric.update(torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3, -0.5, 2, 7]))  # scikit-learn's own
    assert metric.compute() == pytest.approx({"mae": 0.5, "mse": 0.375, "rmse": 0.375**0.5, "r2": 0.9486081370449679})
    several = RegressionErrors(("r2", "mae"))
    several.update(torch.tensor([[0.0, 2.0], [-1, 2], [8, -5]]), torch.tensor([[0.5, 1], [-1, 1], [7, -6]]))
    assert several.compute() == pytest.approx({"r2": 0.9368005266622779, "mae": 0.75})


def test_a_large_mean_does_not_cost_r2_its_digits() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 7, (4096,), generator=generator).double()
    outputs = targets + torch.randint(-1, 2, (4096,), generator=generator)
    exact, shifted = RegressionErrors(("r2",)), RegressionErrors(("r2",))
    exact.update(outputs, targets)
    for begin in range(0, 4096, 5):
        shifted.update(outputs[begin : begin + 5] + 2.0**40, targets[begin : begin + 5] + 2.0**40)
    assert shifted.compute() == pytest.approx(exact.compute(), rel=1e-4)  # of squares of 2**80 nothing would be left


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_without_loss(dtype: torch.dtype) -> None:
    outputs, targets = torch.full((5000,), 60000.0, dtype=dtype), torch.full((5000,), -60000.0, dtype=dtype)
    metric = RegressionErrors(("mae", "mse"))
    for _ in range(3):
        metric.update(outputs, targets)
    error = 2 * float(outputs[0])  # more than float16 holds
    assert metric.compute() == {"mae": error, "mse": error**2}


def test_r2_where_it_is_not_defined() -> None:
    def r2(outputs: list[float], targets: list[float]) -> float:
        metric = RegressionErrors(("r2",))
        metric.update(torch.tensor(outputs), torch.tensor(targets))
        return metric.compute()["r2"]

    assert r2([1.0, 1.0], [1.0, 1.0]) == 1.0 == sklearn.r2_score([1.0, 1.0], [1.0, 1.0])
    assert r2([1.0, 2.0], [1.0, 1.0]) == 0.0 == sklearn.r2_score([1.0, 1.0], [1.0, 2.0])
    assert math.isnan(r2([1.0], [1.0]))
    assert math.isnan(r2([1.0, math.nan], [1.0, 1.0]))
    assert math.isnan(r2([1.0, 1.0], [1.0, math.nan]))


def test_shapes_that_would_broadcast_are_refused() -> None:
    metric = RegressionErrors()
    message = refusal(lambda: metric.update(torch.zeros(3, 1), torch.zeros(3)), TrainingError)
    assert "outputs [3, 1] and targets [3]" in message
    assert "squeeze" in message
    assert "of no samples" in refusal(metric.compute, TrainingError)
    metric.update(torch.zeros(3), torch.zeros(3))
    assert "after samples []" in refusal(lambda: metric.update(torch.zeros(3, 2), torch.zeros(3, 2)), TrainingError)
    refusal(lambda: metric.update(torch.tensor(1.0), torch.tensor(1.0)), TrainingError)
    refusal(lambda: metric.update(torch.zeros(1, dtype=torch.complex64), torch.zeros(1)), TrainingError)
    refusal(lambda: RegressionErrors(()), ValueError)
    refusal(lambda: RegressionErrors(("mae", "mae")), ValueError)


@given(
    seed=st.integers(0, 2**31),
    split=splits(12),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
@settings(deadline=None, max_examples=80)
def test_perplexity_weighs_tokens(seed: int, split: list[list[int]], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = (4 * torch.randn(12, 5, 9, generator=generator)).to(dtype)
    targets = torch.randint(0, 9, (12, 5), generator=generator)
    targets[torch.rand(12, 5, generator=generator) < 0.4] = -100
    targets[0, 0] = 3
    found = measured(Perplexity(), outputs, targets, split)
    nll = float(functional.cross_entropy(outputs.double().view(-1, 9), targets.view(-1)))  # ignores -100
    assert found == pytest.approx({"perplexity": math.exp(nll), "nll": nll}, rel=1e-6)


def test_a_large_vocabulary_is_widened_part_by_part() -> None:
    classes, tokens = 2**20, 20  # more scores than are widened at a time
    targets = torch.arange(tokens) * 7919
    outputs = torch.zeros(tokens, classes)
    outputs[torch.arange(tokens), targets] = torch.arange(tokens, dtype=torch.float32)
    metric = Perplexity(ignore_index=int(targets[2]))
    metric.update(outputs, targets)
    nlls = [math.log(math.exp(score) + classes - 1) - score for score in range(tokens) if score != 2]
    assert metric.compute()["nll"] == pytest.approx(math.fsum(nlls) / len(nlls), rel=1e-6)


def test_a_uniform_model_is_as_perplexed_as_it_has_classes() -> None:
    metric = Perplexity(ignore_index=0)
    metric.update(torch.zeros(2, 3, 50), torch.tensor([[1, 2, 0], [0, 0, 49]]))
    assert metric.compute() == pytest.approx({"perplexity": 50.0, "nll": math.log(50)})


def test_perplexity_names_mistakes() -> None:
    metric = Perplexity()
    assert "of no samples" in refusal(metric.compute, TrainingError)
    metric.update(torch.zeros(1, 2, 5), torch.full((1, 2), -100))
    assert "of no samples" in refusal(metric.compute, TrainingError)
    metric.update(torch.zeros(1, 2, 5), torch.tensor([[1, 5]]))
    assert "1 samples have a target" in refusal(metric.compute, TrainingError)
    refusal(lambda: metric.update(torch.zeros(1, 5, 2), torch.zeros(1, 2).long()), TrainingError)
    refusal(lambda: metric.update(torch.zeros(2).long(), torch.zeros(2).long()), TrainingError)
    metric.reset()
    impossible = torch.tensor([[[0.0, -math.inf]]])
    metric.update(impossible, torch.tensor([[1]]))
    assert metric.compute() == {"perplexity": math.inf, "nll": math.inf}
    metric.reset()
    metric.update(impossible.repeat(1, 2, 1), torch.tensor([[0, -100]]))
    assert metric.compute() == {"perplexity": 1.0, "nll": 0.0}

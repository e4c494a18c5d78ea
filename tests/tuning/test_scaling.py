"""Learning rates for another batch size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treenail.adapters.cli.main import main
from treenail.adapters.tuning import scale_lr

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


def optimizer(*rates: float | torch.Tensor) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def test_the_base_of_the_seeds_example() -> None:
    """A base of 16 is 8 GPUs of 2 samples; on 2 GPUs of 2 a quarter of the rate is right, and on 16 the double."""
    small, large = optimizer(0.02), optimizer(0.02)
    assert scale_lr(small, 4, 16) == 0.25
    assert scale_lr(large, 32, 16) == 2.0
    assert small.param_groups[0]["lr"] == 0.005
    assert large.param_groups[0]["lr"] == 0.04


@settings(deadline=None)
@given(
    size=st.integers(1, 10**6),
    base=st.integers(1, 10**6),
    rates=st.lists(st.floats(1e-9, 10.0), min_size=1, max_size=4),
)
def test_every_group_is_scaled_by_the_rule(size: int, base: int, rates: list[float]) -> None:
    linear, root = optimizer(*rates), optimizer(*rates)
    factor = scale_lr(linear, size, base)
    assert factor == size / base
    assert scale_lr(root, size, base, "sqrt") ** 2 == pytest.approx(size / base)
    assert [group["lr"] for group in linear.param_groups] == [rate * factor for rate in rates]
    assert [group["lr"] for group in root.param_groups] == pytest.approx([rate * factor**0.5 for rate in rates])
    assert all(group["momentum"] == 0.9 for group in linear.param_groups)


def test_the_table_of_parameters_shows_the_rates_that_are_trained_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", CONFIG, "--params", "optimizer.lr=0.002", "+scale_lr={base_batch_size: 16, rule: sqrt}"]) == 0
    name, number, rate, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, number, rate) == ("group", "0", "0.004")


def test_a_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    parameters = [nn.Parameter(torch.ones(1))]
    adam = torch.optim.Adam(parameters, lr=rate, capturable=False, foreach=False)
    held = adam.param_groups[0]["lr"]
    scale_lr(adam, 20, 10)
    assert adam.param_groups[0]["lr"] is held
    assert float(held) == pytest.approx(0.2)


def test_a_schedule_that_would_not_know_is_refused() -> None:
    scheduled = optimizer(0.1)
    torch.optim.lr_scheduler.StepLR(scheduled, 2)
    with pytest.raises(ValueError, match="has a schedule already"):
        scale_lr(scheduled, 20, 10)
    assert scheduled.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("size", "base", "rule", "message"),
    [
        (0, 1, "linear", "batch_size=0 and base_batch_size=1 must be at least 1"),
        (1, 0, "linear", "batch_size=1 and base_batch_size=0 must be at least 1"),
        (1, 1, "cubic", "rule is 'cubic', must be linear or sqrt"),
    ],
)
def test_wrong_arguments_are_refused(size: int, base: int, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scale_lr(optimizer(0.1), size, base, rule)  # type: ignore[arg-type]  # that is the point

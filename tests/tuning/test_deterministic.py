"""Operators that give the same bits every time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from treenail.adapters.seeding.deterministic import deterministic_algorithms

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(VARIABLE),
    )


def scatter() -> None:
    """Call an operator that has no deterministic form."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), accumulate=False)


@pytest.mark.parametrize("benchmark", [True, False])
def test_everything_is_as_before_afterwards(benchmark: bool) -> None:
    torch.backends.cudnn.benchmark = benchmark
    before = settings()
    try:
        with deterministic_algorithms():
            assert settings()[:3] == (True, False, False)
            with deterministic_algorithms("warn"):
                assert settings()[:3] == (True, True, False)
            assert settings()[:3] == (True, False, False)
        assert settings() == before
        with pytest.raises(ArithmeticError), deterministic_algorithms():
            raise ArithmeticError
        assert settings() == before
        with deterministic_algorithms(False):
            assert settings() == before
    finally:
        torch.backends.cudnn.benchmark = False


def test_an_operator_without_a_deterministic_form_is_refused_or_warned_of() -> None:
    scatter()
    with deterministic_algorithms(), pytest.raises(RuntimeError, match="deterministic"):
        scatter()
    with deterministic_algorithms("warn"), pytest.warns(UserWarning, match="deterministic"):
        scatter()


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no CUDA, so that cuBLAS is not asked")
def test_cublas_is_told_before_cuda_starts() -> None:
    code = (
        "import os, torch\n"
        "from treenail.adapters.seeding.deterministic import deterministic_algorithms\n"
        "with deterministic_algorithms():\n"
        f"    print(os.environ['{VARIABLE}'])\n"
        f"print('{VARIABLE}' in os.environ)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [":4096:8", "False"]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {VARIABLE: ":1:1"}, capture_output=True, text=True, check=False
    )
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8 before the process starts" in done.stderr

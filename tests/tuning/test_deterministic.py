"""Operators that give the same bits every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tests.adapters.test_run_data import run as small
from treenail.adapters.loops import EpochLoop
from treenail.adapters.runtime import train
from treenail.adapters.seeding.deterministic import cudnn_benchmark, deterministic_algorithms
from treenail.contracts import Data, Run
from treenail.kernel import ConfigError, Spec, late, spec

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(VARIABLE),
    )


class Ones:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.ones(1), torch.ones(1)


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


def test_cudnn_tries_algorithms_while_it_is_told_to_unless_they_must_be_deterministic() -> None:
    before = torch.backends.cudnn.benchmark
    with cudnn_benchmark(enabled=True):
        assert torch.backends.cudnn.benchmark
    with pytest.raises(ArithmeticError), cudnn_benchmark(enabled=True):
        raise ArithmeticError
    assert torch.backends.cudnn.benchmark is before
    with cudnn_benchmark(enabled=False):
        assert torch.backends.cudnn.benchmark is before
    with (
        deterministic_algorithms("warn"),
        pytest.raises(ConfigError, match=r"cudnn_benchmark: .* leave out one of them"),
        cudnn_benchmark(enabled=True),
    ):
        pytest.fail("it began")


@pytest.mark.parametrize("chosen", [True, False])
def test_a_run_lets_cudnn_try_algorithms_if_its_config_says_so(tmp_path: Path, chosen: bool) -> None:
    seen: list[bool] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return nn.functional.mse_loss(outputs, targets)

    def settings(*, enabled: bool) -> Run:
        return msgspec.structs.replace(small(), loss=spec(lambda: loss)(), cudnn_benchmark=enabled)

    train(settings(enabled=chosen), tmp_path)
    assert set(seen) == {chosen}
    assert not torch.backends.cudnn.benchmark
    train(settings(enabled=not chosen), tmp_path, resume="latest")


def test_an_operator_without_a_deterministic_form_is_refused_or_warned_of() -> None:
    scatter()
    with deterministic_algorithms(), pytest.raises(RuntimeError, match="deterministic"):
        scatter()
    with deterministic_algorithms("warn"), pytest.warns(UserWarning, match="deterministic"):
        scatter()


def test_it_may_be_entered_again_once_cuda_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.delenv(VARIABLE, raising=False)
    began = False
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: began)
    with deterministic_algorithms():
        began = True
    with deterministic_algorithms():
        assert os.environ[VARIABLE] == ":4096:8"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match="CUDA was used before"), deterministic_algorithms():
        pass


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="'wran' is no mode"), deterministic_algorithms("wran"):  # type: ignore[arg-type]  # that is the point
        pass


class Scatters(nn.Module):
    """Calls an operator that has no deterministic form."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        scatter()
        outputs: Tensor = self.layer(inputs)
        return outputs


class SquareRoot(nn.Module):
    """Has a gradient of NaN at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.weight * 0).sqrt() * inputs


@pytest.mark.filterwarnings("ignore:Error detected in")
@pytest.mark.parametrize(
    ("model", "field", "note"),
    [
        (spec(Scatters)(), "deterministic", "by deterministic: true; deterministic: warn goes on"),
        (spec(SquareRoot)(), "detect_anomaly", "by detect_anomaly: true"),
    ],
)
def test_what_torch_refuses_names_the_setting_and_the_steps_before(
    tmp_path: Path, model: Spec[nn.Module], field: str, note: str
) -> None:
    run = Run(
        model=model,
        loss=spec(nn.MSELoss)(),
        optimizer=late(torch.optim.SGD)(lr=0.1),
        train=Data(dataset=spec(Ones)(), batch_size=2),
        loop=late(EpochLoop)(max_epochs=1),
        hooks={"progress": None},
        device="cpu",
        **{field: True},  # type: ignore[arg-type]  # both are booleans
    )
    with pytest.raises(RuntimeError) as caught:
        train(run, tmp_path)
    assert any(note in each for each in caught.value.__notes__)


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

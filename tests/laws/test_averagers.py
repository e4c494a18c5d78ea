"""The averages of Treenail obey the laws of averagers; those of torch do but for some."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from treenail.adapters.averaging import annealed_average, exponential_average, uniform_average
from treenail.contracts.averaging import Averager
from treenail.contracts.laws.averaging import AveragerLaws
from treenail.kernel import StateError, TrainingError

from .mutation import Law, assert_kills


class TestExponentialAverage(AveragerLaws):
    def make(self, model: nn.Module) -> Averager:
        return exponential_average(model, momentum=0.25)

    def weight(self, updates: int, averaged: int) -> float:
        return 0.25


class TestExponentialAverageOfBuffersToo(TestExponentialAverage):
    interval = 3
    begin_step = 2

    def make(self, model: nn.Module) -> Averager:
        return exponential_average(model, momentum=0.25, interval=3, begin_step=2, buffers="average")


class TestAnnealedAverage(AveragerLaws):
    begin_epoch = 2

    def make(self, model: nn.Module) -> Averager:
        return annealed_average(model, momentum=0.1, gamma=2, power=0.5, begin_epoch=2, device=torch.device("cpu"))

    def weight(self, updates: int, averaged: int) -> float:
        return max(0.1, 1 / math.sqrt(1 + updates / 2))  # as timm's ModelEmaV3 writes it


class TestExponentiallyAnnealedAverage(AveragerLaws):
    interval = 2

    def make(self, model: nn.Module) -> Averager:
        return annealed_average(model, momentum=0.125, gamma=4, curve="exponential", interval=2)

    def weight(self, updates: int, averaged: int) -> float:
        return 0.875 * math.exp(-(1 + updates) / 4) + 0.125


class TestUniformAverage(AveragerLaws):
    interval = 2
    begin_epoch = 2

    def make(self, model: nn.Module) -> Averager:
        return uniform_average(model, interval=2, begin_epoch=2, buffers="ignore")

    def weight(self, updates: int, averaged: int) -> float:
        return 1 / (averaged + 1)


class TorchAverages:
    """torch's AveragedModel as an averager."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75))  # type: ignore[no-untyped-call]  # torch leaves it so

    def update(self, step: int, epoch: int = 1) -> None:
        self._averaged.update_parameters(self._model)

    def view(self, into: nn.Module | None = None) -> nn.Module:
        source = self._averaged.module if int(self._averaged.n_averaged) else self._model
        try:
            if into is None:
                return copy.deepcopy(source).eval()
            into.load_state_dict(source.state_dict())
        except (TypeError, RuntimeError) as error:
            raise TrainingError(str(error)) from error
        return into.eval()

    def state_dict(self) -> dict[str, object]:
        return dict(self._averaged.state_dict())

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        try:
            self._averaged.load_state_dict(state_dict)
        except RuntimeError as error:
            raise StateError(str(error)) from error


class TestTorchAverages(AveragerLaws):
    def make(self, model: nn.Module) -> Averager:
        return TorchAverages(model)

    def weight(self, updates: int, averaged: int) -> float:
        return 0.25

    # Integers among the parameters are averaged, and rounded towards 0.
    test_buffers_are_the_models_or_averages = None  # type: ignore[assignment]  # so that it is not collected
    # Weights of 16 bits are averaged in 16 bits.
    test_small_steps_of_16_bit_weights_add_up = None  # type: ignore[assignment]
    # load_state_dict takes what fits before it raises, of a state as of averages for a second module; and torch does not
    # notice that this is the model itself.
    test_a_wrong_state_is_refused = None  # type: ignore[assignment]
    test_a_wrong_second_module_is_refused = None  # type: ignore[assignment]


class WholeTorchSuite(AveragerLaws):
    make = TestTorchAverages.make
    weight = TestTorchAverages.weight


@pytest.mark.parametrize(
    "name", sorted(name for name, law in vars(TestTorchAverages).items() if law is None and name.startswith("test_"))
)
def test_torch_does_not_obey(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law: Law = getattr(AveragerLaws, name)
    assert_kills(WholeTorchSuite(), law, monkeypatch)

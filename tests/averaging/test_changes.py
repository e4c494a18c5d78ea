"""Averages of models that change meanwhile: tensors that are replaced, added, unfrozen, converted and gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.averaging.models import PARAMETERS, Net, WeightsOverTime, assert_same, copies, net
from treenail.adapters.averaging import Buffers, exponential_average, uniform_average
from treenail.adapters.averaging.compat import ExponentialMovingAverage
from treenail.kernel import StateError, TrainingError


def test_a_parameter_that_is_unfrozen_joins_and_one_that_is_frozen_stays() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    first, second = (model.get_parameter(f"{index}.weight") for index in range(2))
    second.requires_grad_(False)
    averages = uniform_average(model)
    for step, values in enumerate([(0.0, 8.0), (1.0, 6.0), (5.0, 3.0)]):
        for parameter, value in zip((first, second), values, strict=True):
            nn.init.constant_(parameter, value)
        if step == 1:
            second.requires_grad_()
            first.requires_grad_(False)
        averages.update(step + 1)
    view = averages.view()
    assert float(view.get_parameter("0.weight")) == 2.0
    assert float(view.get_parameter("1.weight")) == pytest.approx(6 + (6 - 6) / 2 + (3 - 6) / 3)


def _assigned(model: Net) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    model.tied.weight = model.second.weight


def _data_replaced(model: Net) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _module_replaced(model: Net) -> None:
    replaced = nn.Linear(4, 5)
    replaced.load_state_dict(model.first.state_dict())
    model.first = replaced


def _doubled_and_back(model: Net) -> None:
    model.double().float()


@pytest.mark.parametrize("replace", [_assigned, _data_replaced, _module_replaced, _doubled_and_back])
@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_replaced_tensors_are_followed(replace: Callable[[Net], None], buffers: Buffers) -> None:
    models = [net(), net()]
    both = [exponential_average(model, momentum=0.3, buffers=buffers) for model in models]
    for step in range(4):
        for index, model in enumerate(models):
            WeightsOverTime(net(), 4)(step, model)
            if index and step == 1:
                replace(model)
            both[index].update(step + 1)
    assert_same(copies(both[1].view()), copies(both[0].view()))


def _untied(model: Net) -> None:
    model.tied.weight = nn.Parameter(model.second.weight.detach().clone())


def _extended(model: Net) -> None:
    model.second.bias = nn.Parameter(torch.zeros(4))


def _grown(model: Net) -> None:
    model.extra = nn.Linear(1, 1)


def _scaled(model: Net) -> None:
    model.factor = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("change", "name"),
    [(_untied, "tied.weight"), (_extended, "second.bias"), (_grown, "extra.weight"), (_scaled, "factor")],
)
def test_parameters_that_are_added_join(change: Callable[[Net], None], name: str) -> None:
    model = net()
    averages = exponential_average(model, momentum=0.5)
    averages.update(1)
    change(model)
    for step, value in enumerate((1.0, 2.0, 4.0), start=2):
        nn.init.constant_(model.get_parameter(name), value)
        averages.update(step)
    assert (averages.view().get_parameter(name) == 2.75).all()
    names = averages.state_dict()["weights"]
    assert isinstance(names, dict)
    assert set(names) == {*PARAMETERS, name, *({"extra.bias"} if name == "extra.weight" else ())}


def test_a_buffer_that_is_none_at_first_joins() -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("center", None)
    averages = exponential_average(model, momentum=0.5, buffers="average")
    averages.update(1)
    for step, value in enumerate((1.0, 2.0), start=2):
        model.center = torch.full((1,), value)
        averages.update(step)
    assert float(averages.view().get_buffer("center")) == 1.5


def test_a_model_may_become_another_until_averaging_begins() -> None:
    model = net()
    averages = exponential_average(model, momentum=0.5, begin_step=2)
    averages.update(1)
    model.first = nn.Linear(4, 6)
    del model.tied
    averages.update(2)
    assert averages.view().get_parameter("first.weight").shape == (6, 4)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 4), (8,), (1, 4, 2)])
def test_memory_of_another_shape_is_not_averaged_silently(shape: tuple[int, ...]) -> None:
    model = nn.Linear(2, 4, bias=False)
    averages, by_hand = exponential_average(model), ExponentialMovingAverage(model)
    averages.update(1)
    by_hand.update_parameters(model)
    model.weight.data = torch.ones(shape)  # torch would broadcast some of them
    found = ", ".join(map(str, shape))
    with pytest.raises(TrainingError, match=rf"averaged in the shape \[4, 2\], and has become \[{found}\]"):
        averages.update(2)
    with pytest.raises(StateError, match="the averaged model and this one differ in 'weight'"):
        by_hand.update_parameters(model)


def test_weights_that_become_doubles_are_averaged_as_such() -> None:
    model = nn.Linear(2, 2)
    averages = exponential_average(model, momentum=0.5)
    averages.update(1)
    model.double()
    averages.update(2)
    assert averages.view().get_parameter("weight").dtype == torch.float64


def test_a_model_that_becomes_another_is_an_error() -> None:
    model = net()
    averages = exponential_average(model)
    averages.update(1)
    model.first = nn.Linear(4, 6)
    with pytest.raises(
        TrainingError, match=r"'first.weight' is averaged in the shape \[5, 4\], and has become \[6, 4\]"
    ):
        averages.update(2)
    del model.first
    with pytest.raises(TrainingError, match=r"'first.weight' is averaged, and the model has it no more"):
        averages.update(2)
    with pytest.raises(ValueError, match=r"'weight' has no shape yet; run the model once"):
        exponential_average(nn.LazyLinear(3))

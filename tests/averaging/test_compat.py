"""Averaged models under mmengine's names: step for step those of mmengine itself, but for its errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.averaging.models import Net, WeightsOverTime, assert_same, copies, net
from treenail.adapters.averaging import compat
from treenail.kernel import StateError

mmengine = pytest.importorskip("mmengine.model.averaged_model")

KINDS = ("ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage")
TRACKED = "module.norm.num_batches_tracked"
TIED = ("module.second.weight", "module.tied.weight")


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 8),
    st.integers(1, 4),
    st.floats(1e-4, 0.5),
    st.integers(1, 200),
    st.booleans(),
)
def test_every_step_is_mmengines(
    kind: str, steps: int, interval: int, momentum: float, gamma: int, update_buffers: bool
) -> None:
    model = net()
    options = {
        "ExponentialMovingAverage": {"momentum": momentum},
        "MomentumAnnealingEMA": {"momentum": momentum, "gamma": gamma},
        "StochasticWeightAverage": {},
    }[kind]
    make = {"interval": interval, "update_buffers": update_buffers, **options}
    ours, theirs = getattr(compat, kind)(model, **make), getattr(mmengine, kind)(model, **make)
    without_buffers = getattr(mmengine, kind)(model, interval=interval, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    set_to = WeightsOverTime(model, steps)
    for step in range(steps):
        set_to(step)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        without_buffers.update_parameters(model)
        found, expected = copies(ours), copies(theirs)
        expected |= {name: without_buffers.state_dict()[name] for name in TIED}
        assert int(found["steps"]) == int(expected["steps"]) == step + 1
        for name in found:
            if name in ("module.codes", TRACKED):  # integers follow the model; there they may stay as they first were
                assert torch.equal(found[name], model.state_dict()[name.removeprefix("module.")])
            elif kind == "StochasticWeightAverage":  # computed in another order
                torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(found[name], expected[name]), name


def test_integers_follow_the_model_where_mmengine_leaves_them() -> None:
    model = net()
    ours, theirs = (
        module.ExponentialMovingAverage(model, momentum=0.1, update_buffers=True) for module in (compat, mmengine)
    )
    for _ in range(5):
        model(torch.randn(3, 4))
        for averaged in (ours, theirs):
            averaged.update_parameters(model)
    assert int(theirs.state_dict()[TRACKED]) == 1
    assert int(ours.state_dict()[TRACKED]) == 5


def test_tied_weights_are_averaged_once_where_mmengine_averages_them_twice() -> None:
    model = net()
    ours, theirs = (
        module.ExponentialMovingAverage(model, momentum=0.1, update_buffers=True) for module in (compat, mmengine)
    )
    for value in (1.0, 2.0):
        nn.init.constant_(model.second.weight, value)
        for averaged in (ours, theirs):
            averaged.update_parameters(model)
    assert float(ours.module.tied.weight[0, 0]) == pytest.approx(1.1)
    assert float(theirs.module.tied.weight[0, 0]) == pytest.approx(1.19)


def test_weights_of_16_bits_move_where_mmengines_stay() -> None:
    model = nn.Linear(2, 2).bfloat16()
    nn.init.constant_(model.weight, 1.0)
    ours, theirs = (module.ExponentialMovingAverage(model, momentum=2e-4) for module in (compat, mmengine))
    for _ in range(2000):
        for averaged in (ours, theirs):
            averaged.update_parameters(model)
        nn.init.constant_(model.weight, 2.0)
    assert float(theirs.module.weight[0, 0]) == 1.0
    expected = 2 - (1 - 2e-4) ** 1999
    assert float(ours.module.weight[0, 0]) == pytest.approx(expected, rel=4e-3)
    assert ours.module.weight.dtype == torch.bfloat16
    again = compat.ExponentialMovingAverage(model, momentum=2e-4)
    again.load_state_dict(ours.state_dict())
    for averaged in (ours, again):
        averaged.update_parameters(model)
    assert_same(copies(again), copies(ours))
    again.load_state_dict(theirs.state_dict())  # which has no averages in float32
    assert float(again.get_buffer("float32_0")[0, 0]) == 1.0


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_complex_weights_of_half_precision_are_averaged_in_complex64() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.full((2,), 1 + 1j).to(torch.complex32))
    averaged = compat.ExponentialMovingAverage(model, momentum=0.5)
    averaged.update_parameters(model)
    model.weight.data = torch.full((2,), 2 + 3j).to(torch.complex32)
    averaged.update_parameters(model)
    assert averaged.get_buffer("float32_0").tolist() == [1.5 + 2j, 1.5 + 2j]
    assert averaged.get_parameter("module.weight").to(torch.complex64).tolist() == [1.5 + 2j, 1.5 + 2j]


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_mmengine_go_on_here_and_ours_there(kind: str) -> None:
    model = net()
    ours, theirs = getattr(compat, kind)(model), getattr(mmengine, kind)(model)
    set_to = WeightsOverTime(model, 4)
    for step in range(2):
        set_to(step)
        theirs.update_parameters(model)
    ours.load_state_dict(theirs.state_dict())
    back = getattr(mmengine, kind)(model)
    back.load_state_dict(ours.state_dict())
    for step in range(2, 4):
        set_to(step)
        for averaged in (ours, theirs, back):
            averaged.update_parameters(model)
    assert_same(copies(back), copies(theirs))
    for name in ("module.first.weight", "module.tied.bias", "steps"):
        torch.testing.assert_close(ours.state_dict()[name], theirs.state_dict()[name])


class Halving(compat.ExponentialMovingAverage):
    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        averaged_param.add_(source_param).div_(2)


class MmengineHalving(mmengine.ExponentialMovingAverage):  # type: ignore[name-defined, misc]  # mmengine has no types
    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        averaged_param.add_(source_param).div_(2)


def test_a_subclass_averages_in_its_own_way() -> None:
    model = net()
    both = Halving(model), MmengineHalving(model)
    set_to = WeightsOverTime(model, 3)
    for step in range(3):
        set_to(step)
        for averaged in both:
            averaged.update_parameters(model)
    expected = copies(both[1])
    names = [name for name in expected if name not in ("module.codes", TRACKED)]
    assert_same(copies(both[0]), expected, names)
    base = compat.BaseAveragedModel(model)  # type: ignore[abstract]  # no module is abstract where it runs
    base.update_parameters(model)
    with pytest.raises(NotImplementedError, match="define avg_func"):
        base.update_parameters(model)


def test_the_exponential_momentum_is_mmdetections() -> None:
    model = nn.Linear(1, 1, bias=False)
    averaged = compat.ExpMomentumEMA(model, momentum=0.1, gamma=5)
    expected = 0.0
    for step in range(6):
        nn.init.constant_(model.weight, step)
        averaged.update_parameters(model)
        expected += ((1 - 0.1) * math.exp(-(1 + step) / 5) + 0.1) * (step - expected) if step else 0.0
    assert float(averaged.get_parameter("module.weight")) == pytest.approx(expected)
    assert compat.ExpMomentumEMA(model).gamma == 2000


def _assigned(model: Net) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    model.tied.weight = model.second.weight


def _other(model: Net) -> None:
    model.double().float()


@pytest.mark.parametrize("replace", [_assigned, _other])
def test_replaced_tensors_on_both_sides_are_followed(replace: Callable[[Net], None]) -> None:
    models = [net(), net()]
    both = [compat.ExponentialMovingAverage(model, momentum=0.3) for model in models]
    for step in range(4):
        for index, model in enumerate(models):
            WeightsOverTime(net(), 4)(step, model)
            if index and step == 1:
                replace(model)
            if index and step == 2:
                copied = both[1].module
                assert isinstance(copied, Net)
                replace(copied)
            both[index].update_parameters(model)
    assert_same(copies(both[1]), copies(both[0]))


def test_it_is_a_teacher_module() -> None:
    student = net()
    teacher = compat.ExponentialMovingAverage(student).eval()
    for _ in range(2):
        teacher.update_parameters(student)
    x = torch.randn(3, 4)
    assert torch.equal(teacher(x), teacher.module(x))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    twin = copy.deepcopy(teacher)
    twin.update_parameters(student)
    assert int(twin.steps) == 3
    assert int(teacher.steps) == 2
    with pytest.raises(StateError, match=r"differ in 'bias'"):
        teacher.update_parameters(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"momentum": 0.0}, "momentum is 0.0"), ({"gamma": 0}, "gamma is 0"), ({"interval": 0}, "interval is 0")],
)
def test_wrong_arguments_are_explained(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compat.MomentumAnnealingEMA(net(), **options)  # type: ignore[arg-type]  # wrong on purpose

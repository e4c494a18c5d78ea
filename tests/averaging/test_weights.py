"""Averages of weights: equal to torch's, whatever becomes of the parameters meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from tests.averaging.models import PARAMETERS, Net, WeightsOverTime, assert_same, copies, net
from treenail.adapters.averaging import (
    Buffers,
    WeightAverages,
    annealed_average,
    exponential_average,
    load_averages,
    uniform_average,
)
from treenail.contracts.averaging import Averager
from treenail.kernel import StateError


def net_of_floats() -> Net:
    model = net()
    del model.codes  # torch averages integers, where it does not fail on them
    return model


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 4), st.floats(1e-4, 0.9))
def test_exponential_averages_are_torchs(steps: int, interval: int, momentum: float) -> None:
    model = net_of_floats()
    averages = exponential_average(model, momentum=momentum, interval=interval)
    peer = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - momentum))  # type: ignore[no-untyped-call]  # torch leaves it so
    set_to = WeightsOverTime(model, steps)
    for step in range(steps):
        set_to(step)
        averages.update(step + 1)
        if step % interval == 0:
            peer.update_parameters(model)
    found, expected = copies(averages.view()), copies(peer.module)
    for name in PARAMETERS:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-7)  # 1 - (1 - momentum) is rounded


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 3))
def test_uniform_averages_are_torchs_and_the_mean(steps: int, interval: int) -> None:
    model = net_of_floats()
    averages = uniform_average(model, interval=interval)
    peer = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())  # type: ignore[no-untyped-call]  # torch leaves it so
    set_to, seen = WeightsOverTime(model, steps), []
    for step in range(steps):
        set_to(step)
        averages.update(step + 1)
        if step % interval == 0:
            peer.update_parameters(model)
            seen.append(model.first.weight.detach().double().clone())
    found = copies(averages.view())
    assert_same(found, copies(peer.module), PARAMETERS)
    torch.testing.assert_close(found["first.weight"].double(), torch.stack(seen).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("curve", "gamma", "momenta"),
    [
        ("hyperbolic", None, [100 / 101, 100 / 102]),
        ("hyperbolic", 1.0, [1 / 2, 1 / 3, 1 / 4, 1 / 4]),
        ("exponential", 2.0, [0.75 * 0.36787944 + 0.25, 0.75 * 0.22313016 + 0.25]),
    ],
)
def test_a_momentum_anneals(
    curve: Literal["hyperbolic", "exponential"], gamma: float | None, momenta: list[float]
) -> None:
    model = nn.Linear(1, 1, bias=False)
    averages = annealed_average(model, momentum=0.25, gamma=gamma, curve=curve)
    expected = 0.0
    for step, momentum in enumerate([1.0, *momenta]):
        nn.init.constant_(model.weight, step)
        averages.update(step + 1)
        expected += momentum * (step - expected)
    assert float(weight_of(averages)) == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(0, 4),
    st.floats(0.5, 0.9999),
    st.floats(0.5, 50.0),
    st.floats(0.25, 1.0),
)
def test_a_momentum_anneals_as_timms(steps: int, after: int, decay: float, gamma: float, power: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    averages = annealed_average(model, momentum=1 - decay, gamma=gamma, power=power, begin_step=after + 1)
    timms = 0.0
    for step in range(1, steps + 1):
        nn.init.constant_(model.weight, float(step * step % 7))
        averages.update(step)
        # As the documentation of timm's ModelEmaV3 has it, with use_warmup, update_after_step and its get_decay(step).
        late = max(0, step - after - 1)
        kept = min(1 - (1 + late / gamma) ** -power, decay) if late else 0.0
        timms = kept * timms + (1 - kept) * float(model.weight.detach())
    assert float(weight_of(averages)) == pytest.approx(timms, rel=1e-5, abs=1e-6)


def weight_of(averages: WeightAverages) -> Tensor:
    return averages.view().get_parameter("weight")


@pytest.mark.parametrize(("begin", "first"), [({"begin_step": 3}, 2), ({"begin_epoch": 2}, 2), ({}, 0)])
def test_averaging_begins_when_it_shall_and_the_view_is_of_the_model_until_then(
    begin: dict[str, int], first: int
) -> None:
    model = nn.Linear(1, 1, bias=False)
    averages = exponential_average(model, momentum=0.5, **begin)  # type: ignore[arg-type]  # begins are ints
    expected = 0.0
    for step in range(5):
        nn.init.constant_(model.weight, float(step))
        averages.update(step + 1, step // 2 + 1)
        expected = float(step) if step <= first else (expected + step) / 2
        assert float(weight_of(averages)) == expected
    assert averages.updates == averages.averaged == 5 - first


def test_it_is_an_averager_that_only_reads_the_model() -> None:
    model = net()
    before, ids = copies(model), [tensor.data_ptr() for tensor in model.state_dict().values()]
    averages: Averager = exponential_average(model)
    assert isinstance(averages, Averager)
    for step in range(3):
        averages.update(step + 1)
        averages.view()
    assert_same(copies(model), before)
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == ids
    assert all(module.training for module in model.modules())


def test_shared_and_frozen_parameters_are_averaged_once_and_never() -> None:
    model = net()
    averages = uniform_average(model)
    weights = averages.state_dict()["weights"]
    assert isinstance(weights, dict)
    assert sorted(weights) == sorted(PARAMETERS)
    averages.update(1)
    view = averages.view()
    assert view.get_parameter("tied.weight") is view.get_parameter("second.weight")
    assert view.get_parameter("frozen.weight").data_ptr() == model.frozen.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in view.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_averaged_in_float32(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(600, 600, bias=False), nn.Linear(3, 2)).to(dtype)  # more than a chunk, and less
    model[1].float()
    averages = exponential_average(model, momentum=1e-3)
    nn.init.constant_(model.get_parameter("0.weight"), 1.0)
    averages.update(1)
    nn.init.constant_(model.get_parameter("0.weight"), 2.0)
    in_16_bits = torch.ones((), dtype=dtype)
    for step in range(500):
        averages.update(step + 2)
        in_16_bits.lerp_(torch.full((), 2.0, dtype=dtype), 1e-3)
    expected = 2 - 0.999**500
    kept = averages.state_dict()["weights"]
    assert isinstance(kept, dict)
    torch.testing.assert_close(kept["0.weight"], torch.full((600, 600), expected))
    view = averages.view()
    assert view.get_parameter("0.weight").dtype == dtype
    assert view.get_parameter("1.weight").dtype == torch.float32
    torch.testing.assert_close(view.get_parameter("0.weight")[0, 0].detach(), torch.tensor(expected, dtype=dtype))
    assert abs(float(in_16_bits) - expected) > 0.05  # small steps are rounded away


def test_weights_of_16_bits_run_in_16_bits() -> None:
    model = nn.Linear(3, 2).bfloat16()
    averages = exponential_average(model)
    averages.update(1)
    assert averages.view()(torch.ones(1, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.complex32, torch.complex64),
        (torch.complex128, torch.complex128),
        (torch.float8_e4m3fn, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_averages_have_32_bits_at_least(dtype: torch.dtype, wide: torch.dtype) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2).to(dtype))
    averages = exponential_average(model, momentum=0.5)
    averages.update(1)
    model.weight.data = torch.full((2,), 2.0).to(dtype)
    averages.update(2)
    kept = averages.state_dict()["weights"]
    assert isinstance(kept, dict)
    assert kept["weight"].dtype == wide
    assert kept["weight"].tolist() == [1.5, 1.5]
    assert weight_of(averages).dtype == dtype


def test_complex_weights_and_a_device_to_keep_averages_on() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([1 + 1j]))
    averages = uniform_average(model, device=torch.device("cpu"))
    averages.update(1)
    nn.init.constant_(model.weight, 3)
    averages.update(2)
    assert complex(weight_of(averages)) == 2 + 0.5j


@pytest.mark.parametrize("policy", ["copy", "average", "ignore"])
def test_buffers_follow_their_policy_and_integers_are_never_averaged(policy: Buffers) -> None:
    model = net()
    averages = exponential_average(model, momentum=0.25, buffers=policy)
    set_to, expected = WeightsOverTime(model, 3), {}
    for step in range(3):
        set_to(step)
        averages.update(step + 1)
        now = copies(model)
        for name in ("norm.running_mean", "norm.running_var", "scale"):
            if policy == "copy" or step == 0:
                expected[name] = now[name]
            elif policy == "average":
                expected[name] = expected[name].lerp(now[name], 0.25)
    view = averages.view()
    found = copies(view)
    assert_same(found, expected, list(expected))
    assert int(found["norm.num_batches_tracked"]) == (1 if policy == "ignore" else 3)
    assert torch.equal(view.get_buffer("mask"), model.mask)
    assert_same(copies(averages.view()), found)
    with torch.no_grad():
        view.get_buffer("scale").fill_(7)
    assert (averages.view().get_buffer("scale")[0] == 7) == (policy == "ignore")
    assert model.scale[0] != 7


def test_an_infinite_buffer_is_not_averaged_silently() -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    with pytest.raises(ValueError, match=r"the buffer 'mask' is infinite somewhere.*persistent=False"):
        exponential_average(model, buffers="average")
    exponential_average(model, buffers="copy")


@pytest.mark.parametrize("policy", ["copy", "average", "ignore"])
@pytest.mark.parametrize("kind", [exponential_average, annealed_average, uniform_average])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_goes_on_bit_for_bit(
    kind: Callable[..., WeightAverages], policy: Buffers, stop: int, dtype: torch.dtype
) -> None:
    whole, resumed = net().to(dtype), net(1).to(dtype)
    options = {"interval": 2, "begin_step": 2, "buffers": policy}
    averages = kind(whole, **options)
    set_to = WeightsOverTime(net(), 6)
    for step in range(6):
        if step == stop:
            resumed.load_state_dict(whole.state_dict())
            others = kind(resumed, **options)
            state = averages.state_dict()
            others.load_state_dict({name: _copied(value) for name, value in state.items()})
        if step >= stop:
            set_to(step, resumed)
            others.update(step + 1)
        set_to(step, whole)
        averages.update(step + 1)
    assert_same(copies(others.view()), copies(averages.view()))
    assert {name: others.state_dict()[name] for name in ("updates", "averaged")} == {"updates": 5, "averaged": 3}
    for name in ("weights", "buffers"):
        one, other = others.state_dict()[name], averages.state_dict()[name]
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        assert_same(one, other)


def _copied(value: object) -> object:
    return {name: tensor.clone() for name, tensor in value.items()} if isinstance(value, dict) else value


def test_a_state_may_know_other_frozen_parameters() -> None:
    model, other = net(), net()
    other.frozen.requires_grad_()
    averages = uniform_average(other)
    averages.update(1)
    mine = uniform_average(model)
    mine.load_state_dict(averages.state_dict())
    assert "frozen.weight" in mine.state_dict()["weights"]  # type: ignore[operator]  # it is a dict
    averages.load_state_dict(uniform_average(model).state_dict())
    averages.update(1)
    assert "frozen.weight" in averages.state_dict()["weights"]  # type: ignore[operator]


def _state(weights: dict[str, Tensor], buffers: dict[str, Tensor] | None = None) -> dict[str, object]:
    buffers = buffers or {}
    return {
        "updates": 1,
        "averaged": 1,
        "measured": None,
        "names": [*weights, *buffers],
        "weights": weights,
        "buffers": buffers,
    }


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no counts of averages"),
        ({"updates": 1, "averaged": 2}, "no counts of averages"),
        ({"updates": 1, "averaged": 1, "measured": None, "weights": {"weight": 1}}, "no tensors 'weights'"),
        ({"updates": 1, "averaged": 1, "measured": None, "weights": {}, "buffers": {}}, "no list of 'names'"),
        (_state({"wieght": torch.ones(1)}), "did you mean 'weight'"),
        (_state({"weight": torch.ones(1)}), r"\[1\], in the model"),
        (_state({}, {"b": torch.ones(1)}), "the model has no 'b'"),
        (
            _state({"weight": torch.ones(2, 2)}) | {"names": ["bias", "weight"]},
            "'bias' is among the names or the tensors",
        ),
        (_state({"weight": torch.ones(2, 2)}) | {"names": []}, "'weight' is among the names or the tensors"),
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(state: dict[str, object], message: str) -> None:
    model = nn.Linear(2, 2)
    averages = exponential_average(model)
    averages.update(1)
    before = copies(averages.view())
    with pytest.raises(StateError, match=message):
        averages.load_state_dict(state)
    with pytest.raises(StateError, match=message):
        load_averages(model, state)
    assert_same(copies(averages.view()), before)


@pytest.mark.parametrize(("kind", "name"), [("weights", "second.weight"), ("buffers", "scale")])
def test_a_state_that_lost_an_average_is_refused(kind: str, name: str) -> None:
    averages, model = exponential_average(net(), buffers="average"), net()
    averages.update(1)
    state = averages.state_dict()
    tensors = state[kind]
    assert isinstance(tensors, dict)
    del tensors[name]
    with pytest.raises(StateError, match=f"'{name}' is among the names or the tensors of the averages"):
        exponential_average(model, buffers="average").load_state_dict(state)
    untouched = copies(model)
    with pytest.raises(StateError, match=f"'{name}' is among the names or the tensors of the averages"):
        load_averages(model, state)
    assert_same(copies(model), untouched)


def test_a_state_of_another_policy_is_refused() -> None:
    state = exponential_average(net(), buffers="average").state_dict()
    with pytest.raises(StateError, match=r"3 buffers, these averages have 0 of their own.*begun with buffers: copy"):
        exponential_average(net(), buffers="copy").load_state_dict(state)


def test_averages_can_be_given_to_a_model_to_test_it() -> None:
    model = net()
    averages = uniform_average(model, buffers="average")
    fresh = net(5)
    untouched = copies(fresh)
    assert not load_averages(fresh, averages.state_dict())
    assert_same(copies(fresh), untouched)
    set_to = WeightsOverTime(model, 3)
    for step in range(3):
        set_to(step)
        averages.update(step + 1)
    fresh.load_state_dict(model.state_dict())
    assert load_averages(fresh, averages.state_dict())
    assert_same(copies(fresh), copies(averages.view()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.0}, "momentum is 0.0, must be between 0 and 1"),
        ({"momentum": 1.0}, "a decay of 0.999 is a momentum of 0.001"),
        ({"interval": 0}, "interval=0 must be a whole number from 1"),
        ({"interval": 1.5}, "interval=1.5 must be a whole number from 1"),
        ({"begin_step": 2.5}, "begin_step=2.5 and begin_epoch=0 from 0"),
        ({"begin_step": 1, "begin_epoch": 1}, "begin_step=1 and begin_epoch=1 exclude each other"),
        ({"begin_epoch": -1}, "begin_epoch=-1 from 0"),
        ({"buffers": "swap"}, "must be 'copy', 'average' or 'ignore'"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"power": 0.0}, "power is 0.0"),
        ({"curve": "exponential", "power": 2.0}, "power is 2.0, which an exponential curve does not have"),
        ({"curve": "linear"}, "must be 'hyperbolic' or 'exponential'"),
    ],
)
def test_wrong_arguments_are_explained(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        annealed_average(net(), **options)  # type: ignore[arg-type]  # wrong on purpose

"""mmengine's OptimWrapper and AmpOptimWrapper: the examples of its guide, states, and methods that subclasses override."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.optim.test_wrapper import assert_equal, gradients, network, samples, sgd
from treenail.adapters.optim import OptimWrapper as Own
from treenail.adapters.optim import OptimWrapperDict
from treenail.adapters.optim.compat import AmpOptimWrapper, OptimWrapper, amp_optim_wrapper, optim_wrapper
from treenail.adapters.optim.compat.wrappers import ClipGrad
from treenail.adapters.parallel.clipping import clip_grad_value
from treenail.kernel import TrainingError


def plain(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def test_rates_and_momenta_of_the_guide() -> None:
    optim = OptimWrapper(plain(nn.Linear(1, 1)))
    assert optim.get_lr() == {"lr": [0.01]}
    assert optim.get_momentum() == {"momentum": [0]}


def test_the_state_is_the_optimizers_and_with_amp_the_scaler_besides() -> None:
    model = nn.Linear(1, 1)
    assert OptimWrapper(plain(model)).state_dict() == plain(model).state_dict()
    state = AmpOptimWrapper(optimizer=plain(model)).state_dict()
    assert set(state) == {"state", "param_groups", "loss_scaler"}
    assert state["loss_scaler"] == {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 0,
    }


def test_a_state_goes_round_and_one_without_a_scaler_loads_too() -> None:
    model = network()
    amp = AmpOptimWrapper(optimizer=sgd(model), loss_scale=128.0)
    x, y = samples(4)
    with amp.optim_context(model):
        loss = nn.functional.cross_entropy(model(x), y)
    amp.update_params(loss)
    state = amp.state_dict()
    kept = copy.deepcopy(state)
    other = AmpOptimWrapper(optimizer=sgd(copy.deepcopy(model)))
    other.load_state_dict(state)
    assert state.keys() == kept.keys(), "the caller's dict is as it was"
    assert other.loss_scaler is not None
    assert other.loss_scaler.get_scale() == 128.0
    momenta = other.optimizer.state_dict()["state"]
    assert torch.equal(momenta[0]["momentum_buffer"], amp.optimizer.state_dict()["state"][0]["momentum_buffer"])
    fresh = AmpOptimWrapper(optimizer=sgd(network()))
    fresh.load_state_dict(OptimWrapper(sgd(model)).state_dict())
    assert fresh.loss_scaler is not None
    assert fresh.loss_scaler.get_scale() == 65536.0


def test_losses_of_the_guide_train_in_groups_of_four_with_a_tail_of_one() -> None:
    model = nn.Linear(1, 1)
    optim = OptimWrapper(plain(model), accumulative_counts=4)
    optim.initialize_count_status(model, 0, 25)
    made = 0
    for _ in range(25):
        with optim.optim_context(model):
            feat = model(torch.ones(2, 1))
            losses = {"loss1": (feat - 1).pow(2), "loss2": (feat - 1).abs()}
        total = torch.stack([value.mean() for value in losses.values()]).sum()
        made += optim.update_params(total) is not None
    assert made == 7
    assert optim.inner_count == 25


def test_each_act_may_be_called_by_itself() -> None:
    ours, theirs = network(), network()
    optim, optimizer = OptimWrapper(sgd(ours)), sgd(theirs)
    x, y = samples(8)
    with optim.optim_context(ours):
        optim.backward(nn.functional.cross_entropy(ours(x), y))
        optim.step()
        optim.zero_grad()
    torch.autograd.backward(nn.functional.cross_entropy(theirs(x), y))
    optimizer.step()
    assert_equal(ours, theirs)
    assert not gradients(ours)


def test_a_subclass_overrides_each_act() -> None:
    acts: list[str] = []

    class Mine(OptimWrapper):
        def scale_loss(self, loss: Tensor) -> Tensor:
            acts.append("scale_loss")
            return super().scale_loss(loss)

        def backward(self, loss: Tensor, **kwargs: object) -> None:
            acts.append("backward")
            super().backward(loss, **kwargs)

        def zero_grad(self, **kwargs: bool) -> None:
            acts.append("zero_grad")
            super().zero_grad(**kwargs)

    model = network()
    Mine(sgd(model)).update_params(model(torch.ones(1, 6)).sum())
    assert acts == ["scale_loss", "backward", "zero_grad"]
    assert OptimWrapperDict(mine=Mine(sgd(model)))["mine"].get_lr() == {"lr": [0.1]}


def test_clip_grad_is_by_norm_or_by_value() -> None:
    cases: list[tuple[ClipGrad, float | None, float | None]] = [
        ({"max_norm": 0.2}, 0.2, None),
        ({"type": "norm", "max_norm": 35, "norm_type": 1}, 35.0, None),
        ({"type": "value", "clip_value": 0.5}, None, 0.5),
    ]
    for settings, norm, value in cases:
        optim = OptimWrapper(sgd(network()), clip_grad=settings)
        assert (optim.clip_norm, optim.clip_value, optim.clip_grad_kwargs) == (norm, value, settings)
    strict = OptimWrapper(sgd(model := network()), clip_grad={"max_norm": 1.0, "error_if_nonfinite": True})
    with pytest.raises(RuntimeError, match=r"norm of the gradients is (inf|nan)"):
        strict.update_params((model(torch.ones(1, 6)) * torch.inf).sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "clip_grad of the type 'norm' lacks 'max_norm'"),
        ({"maxnorm": 1.0}, "clip_grad has 'maxnorm', which means nothing: did you mean 'max_norm'"),
        ({"type": "l2", "max_norm": 1.0}, "type 'l2', must be norm or value"),
        ({"type": "value", "max_norm": 1.0}, "lacks 'clip_value'"),
    ],
)
def test_settings_of_no_meaning_are_named(settings: ClipGrad, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimWrapper(sgd(network()), clip_grad=settings)


@pytest.mark.parametrize("scale", ["static", None, []])
def test_a_loss_scale_of_another_kind_is_named(scale: object) -> None:
    with pytest.raises((TypeError, ValueError), match="loss_scale is"):
        AmpOptimWrapper(scale, optimizer=sgd(network()))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, r"loss_scale is 0\.0, must be a positive number"),
        (-1.0, r"loss_scale is -1\.0, must be a positive number"),
        (float("inf"), "loss_scale is inf, must be a positive number"),
        (True, "loss_scale is True, must be a positive number"),
        ({"init_scale": -1}, "loss_scale's init_scale is -1, must be a positive number"),
        ({"growth_factor": 0.5}, r"loss_scale's growth_factor is 0\.5, must be a number above 1"),
        ({"backoff_factor": 1.0}, r"loss_scale's backoff_factor is 1\.0, must be a number between 0 and 1"),
        ({"growth_interval": 0.5}, r"loss_scale's growth_interval is 0\.5, must be a whole number"),
        ({"growth_interval": "2"}, "loss_scale's growth_interval is '2', must be a whole number"),
    ],
)
def test_a_loss_scale_out_of_its_range_is_named(scale: Any, message: str) -> None:
    for make in (AmpOptimWrapper, amp_optim_wrapper):
        with pytest.raises(ValueError, match=message):
            make(optimizer=sgd(network()), loss_scale=scale)
    exact = AmpOptimWrapper({"growth_interval": 3.0}, optimizer=sgd(network()))  # as a config's schema makes it
    assert exact.loss_scaler is not None
    assert exact.loss_scaler.get_growth_interval() == 3


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", "float16"),
        (torch.float16, "float16"),
        (torch.bfloat16, "bfloat16"),
        (None, "bfloat16"),  # torch's for the CPU
    ],
)
def test_the_type_is_a_name_torchs_or_what_torch_chooses(dtype: Any, expected: str) -> None:
    optim = AmpOptimWrapper(dtype=dtype, optimizer=sgd(model := network()))
    assert optim.precision == expected
    with optim.optim_context(model):
        assert str(model(torch.ones(1, 6)).dtype) == f"torch.{expected}"


@pytest.mark.parametrize("dtype", ["fp16", "float32", torch.float64])
def test_another_type_is_refused(dtype: Any) -> None:
    for make in (AmpOptimWrapper, amp_optim_wrapper):
        with pytest.raises(ValueError, match=r"dtype is .*, must be float16 or bfloat16"):
            make(optimizer=sgd(network()), dtype=dtype)


def test_a_loss_scale_beside_bfloat16_is_refused_by_both() -> None:
    for make in (AmpOptimWrapper, amp_optim_wrapper):
        with pytest.raises(ValueError, match="loss_scale is for the precision float16"):
            make(optimizer=sgd(network()), dtype="bfloat16", loss_scale=512.0)


@pytest.mark.parametrize("norm_type", [2.0, float("inf")])
def test_sparse_gradients_have_no_norm(norm_type: float) -> None:
    model = nn.Embedding(5, 2, sparse=True)
    optim = OptimWrapper(sgd(model), clip_grad={"max_norm": 1.0, "norm_type": norm_type})
    with pytest.raises(
        TrainingError, match=r"shape \[5, 2\] has a sparse gradient.*; make its embedding with sparse=False"
    ):
        optim.update_params(model(torch.tensor([1, 2])).sum())
    with pytest.raises(TrainingError, match=r"shape \[5, 2\] has a sparse gradient"):
        clip_grad_value(model.parameters(), 1.0)


def test_values_are_clipped_as_by_torch() -> None:
    ours, theirs = network(), network()
    for module in (ours, theirs):
        (module(torch.linspace(-3, 3, 6).expand(2, 6)).square().sum()).backward()
    clip_grad_value([*ours.parameters(), nn.Parameter(torch.ones(1))], 0.25)
    nn.utils.clip_grad_value_(theirs.parameters(), 0.25)
    found, expected = gradients(ours), gradients(theirs)
    assert max(float(each.abs().max()) for each in found) == 0.25
    assert all(map(torch.equal, found, expected))


def test_what_a_config_means_by_the_names_saves_no_optimizer() -> None:
    one = optim_wrapper(sgd(network()), accumulative_counts=3, clip_grad={"max_norm": 1.0})
    assert (type(one), one.accumulative_counts, one.clip_norm) == (Own, 3, 1.0)
    assert one.state_dict() == {"skipped": 0}
    two = amp_optim_wrapper(sgd(network()), loss_scale=4.0)
    assert two.loss_scaler is not None
    assert two.loss_scaler.get_scale() == 4.0
    assert amp_optim_wrapper(sgd(network()), dtype="bfloat16").loss_scaler is None

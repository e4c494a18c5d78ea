"""mmengine's OptimWrapper and AmpOptimWrapper: the examples of its guide, states, and methods that subclasses override."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.optim.test_wrapper import assert_equal, gradients, network, samples, sgd
from treenail.adapters.optim import OptimWrapper as Own
from treenail.adapters.optim import OptimWrapperDict
from treenail.adapters.optim.compat import AmpOptimWrapper, OptimWrapper, amp_optim_wrapper, optim_wrapper
from treenail.adapters.optim.compat.wrappers import ClipGrad


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


def test_what_a_config_means_by_the_names_saves_no_optimizer() -> None:
    one = optim_wrapper(sgd(network()), accumulative_counts=3, clip_grad={"max_norm": 1.0})
    assert (type(one), one.accumulative_counts, one.clip_norm) == (Own, 3, 1.0)
    assert one.state_dict() == {"skipped": 0}
    two = amp_optim_wrapper(sgd(network()), loss_scale=4.0)
    assert two.loss_scaler is not None
    assert two.loss_scaler.get_scale() == 4.0
    assert amp_optim_wrapper(sgd(network()), dtype="bfloat16").loss_scaler is None

"""OptimWrapper in a loop of one's own: accumulation, precision, clipping, skipped steps, states."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from treenail.adapters.optim import OptimWrapper, Precision
from treenail.contracts import LossSum, Skipped, Stepped, Updater
from treenail.kernel import StateError, TrainingError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


def samples(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-6) -> None:
    """Compare gradients as a whole: the norm of what they differ by, relative to their norm."""
    assert [one.shape for one in found] == [other.shape for other in expected]
    differences = [one - other for one, other in zip(found, expected, strict=True)]
    assert float(nn.utils.get_total_norm(differences)) <= tolerance * float(nn.utils.get_total_norm(expected))


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), (_, theirs) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), name


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


class Seen(OptimWrapper):
    """Keeps the gradients that an update used."""

    def __init__(self, model: nn.Module, counts: int = 1) -> None:
        super().__init__(sgd(model), counts)
        self.model = model
        self.seen: list[list[Tensor]] = []

    def zero_grad(self, **kwargs: bool) -> None:
        self.seen.append(gradients(self.model))
        super().zero_grad(**kwargs)


def test_it_is_an_updater() -> None:
    assert isinstance(OptimWrapper(sgd(network())), Updater)


# Accumulation


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any),
    spare=st.integers(0, 3),
    as_sum=st.booleans(),
    tensors=st.booleans(),
)
def test_any_split_with_weights_has_the_gradient_of_the_whole_batch(
    sizes: list[int], spare: int, as_sum: bool, tensors: bool
) -> None:
    inputs, targets = samples(sum(sizes))
    model = network()
    torch.autograd.backward(nn.functional.cross_entropy(model(inputs), targets))
    whole = gradients(model)
    model.zero_grad()
    optim = Seen(model, len(sizes) + spare)
    begin = 0
    for size in sizes:
        rows = slice(begin, begin := begin + size)
        weight = torch.tensor(float(size)) if tensors else float(size)
        x, y = (inputs[rows], targets[rows]) if size else (inputs[:1], torch.full((1,), -100))
        with optim.optim_context(model):
            total = nn.functional.cross_entropy(model(x), y, reduction="sum")
            loss = total if as_sum else total / max(size, 1)
        optim.update_params(LossSum(loss, weight) if as_sum else loss, None if as_sum else weight)
    if spare:
        assert not optim.seen
        assert isinstance(optim.flush(), Stepped)
    assert_near(optim.seen[0], whole)
    assert optim.flush() is None, "nothing is left"


@given(total=st.integers(1, 25), counts=st.integers(1, 6))
def test_updates_come_after_each_group_and_after_the_last_loss(total: int, counts: int) -> None:
    model = network()
    optim = Seen(model, counts)
    optim.initialize_count_status(model, 0, total)
    inputs, targets = samples(total)
    updated = []
    for index in range(total):
        loss = nn.functional.cross_entropy(model(inputs[index : index + 1]), targets[index : index + 1])
        if optim.update_params(loss) is not None:
            updated.append(index + 1)
    assert updated == [*range(counts, total + 1, counts), *([total] if total % counts else [])]
    assert optim.inner_count == total
    assert len(optim.seen) == math.ceil(total / counts)


def test_ten_losses_in_threes_update_after_3_6_9_and_10_and_the_last_counts_whole() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optim = Seen(model, 3)
    optim.initialize_count_status(model, 0, 10)
    updated = [step for step in range(1, 11) if optim.update_params(model(torch.ones(1, 1)).sum()) is not None]
    assert updated == [3, 6, 9, 10]
    assert_near([each[0] for each in optim.seen], [torch.ones(1, 1)] * 4)


def test_without_a_count_the_tail_waits_for_flush() -> None:
    model = nn.Linear(1, 1, bias=False)
    optim = Seen(model, 4)
    for _ in range(6):
        optim.update_params(model(torch.ones(1, 1)).sum())
    assert len(optim.seen) == 1
    assert isinstance(optim.flush(), Stepped)
    assert_near([each[0] for each in optim.seen], [torch.ones(1, 1)] * 2)
    done = [optim.update_params(model(torch.ones(1, 1)).sum()) is not None for _ in range(4)]
    assert done == [False, False, False, True], "the next accumulation begins behind the flush"


def test_communication_is_left_to_the_last_pass_of_an_update() -> None:
    optim = OptimWrapper(sgd(network()), 3)
    model = network()
    wanted = []
    for _ in range(6):
        wanted.append(optim.should_sync())
        optim.update_params(model(torch.ones(1, 6)).sum() + sum(p.sum() for p in _own(optim)))
    assert wanted == [False, False, True, False, False, True]


def _own(optim: OptimWrapper) -> list[nn.Parameter]:
    return [parameter for group in optim.optimizer.param_groups for parameter in group["params"]]


def test_scale_loss_knows_the_last_group() -> None:
    model = network()
    optim = OptimWrapper(sgd(model), 4)
    assert float(optim.scale_loss(torch.tensor(4.0))) == 1.0
    optim.initialize_count_status(model, 8, 10)
    assert float(optim.scale_loss(torch.tensor(4.0))) == 2.0


def test_accumulation_warns_of_batch_normalisation_and_of_a_start_in_the_middle() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optim = OptimWrapper(sgd(model), 4)
    with pytest.warns(UserWarning, match="micro-batches that gradients are accumulated"):
        optim.initialize_count_status(model, 0, 8)
    with pytest.warns(UserWarning, match="no multiple of the 4"):
        optim.initialize_count_status(network(), 3, 8)
    with pytest.raises(ValueError, match="init_counts=9"):
        optim.initialize_count_status(network(), 9, 8)


def test_losses_with_and_without_weights_do_not_mix() -> None:
    model = network()
    optim = OptimWrapper(sgd(model), 2)
    optim.update_params(model(torch.ones(1, 6)).sum(), 3.0)
    with pytest.raises(TrainingError, match="some losses of an update have weights"):
        optim.update_params(model(torch.ones(1, 6)).sum())
    with pytest.raises(TrainingError, match="weight -1"):
        OptimWrapper(sgd(model)).update_params(model(torch.ones(1, 6)).sum(), -1.0)


def test_a_loss_that_cannot_be_differentiated_is_named() -> None:
    optim = OptimWrapper(sgd(network()))
    with pytest.raises(TrainingError, match=r"shape \[2\] with requires_grad=False"):
        optim.update_params(torch.ones(2))


@pytest.mark.parametrize("counts", [1, 2])
def test_nothing_that_counts_changes_nothing(counts: int) -> None:
    model = network()
    before = copy.deepcopy(model)
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), counts)
    for _ in range(counts):
        optim.update_params(LossSum(model(torch.ones(1, 6)).sum() * 0.0, torch.tensor(0)))
    assert_equal(model, before)
    assert optim.steps == 1


class Clears(torch.optim.SGD):
    """Has a way of its own to forget gradients."""

    cleared = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.cleared += 1
        super().zero_grad(set_to_none)


def test_zero_grad_leaves_no_gradient_in_any_group() -> None:
    model = network()
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    optim = OptimWrapper(torch.optim.SGD(groups, lr=0.1))
    inputs, targets = samples(4)
    optim.backward(nn.functional.cross_entropy(model(inputs), targets))
    assert len(gradients(model)) == len(groups) > 1
    optim.zero_grad()
    assert not gradients(model)
    optim.backward(nn.functional.cross_entropy(model(inputs), targets))
    optim.zero_grad(set_to_none=False)
    assert len(gradients(model)) == len(groups)
    assert not any(bool(gradient.any()) for gradient in gradients(model))


def test_zero_grad_is_the_optimizers_own_where_it_has_one() -> None:
    optimizer = Clears(network().parameters(), lr=0.1)
    optim = OptimWrapper(optimizer)
    optim.zero_grad()
    assert optimizer.cleared == 1


def test_zero_grad_is_the_one_that_somebody_put_in_place_of_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    optim = OptimWrapper(sgd(network()))
    cleared = []
    monkeypatch.setattr(optim.optimizer, "zero_grad", lambda: cleared.append("of this optimizer"))
    optim.zero_grad()
    monkeypatch.undo()
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda _: cleared.append("of all"))
    optim.zero_grad()
    assert cleared == ["of this optimizer", "of all"]


def test_zero_grad_in_an_accumulation_begins_it_anew() -> None:
    model = nn.Linear(1, 1, bias=False)
    optim = Seen(model, 4)
    optim.update_params(model(torch.ones(1, 1)).sum())
    optim.zero_grad()
    optim.seen.clear()
    done = [optim.update_params(model(torch.ones(1, 1)).sum()) is not None for _ in range(4)]
    assert done == [False, False, False, True]
    assert_near(optim.seen[0], [torch.ones(1, 1)])


def test_a_state_between_accumulations_leaves_what_was_accumulated_behind() -> None:
    model = nn.Linear(1, 1, bias=False)
    optim = Seen(model, 4)
    state = optim.state_dict()
    for _ in range(2):
        optim.update_params(model(torch.ones(1, 1)).sum() * torch.nan)
    optim.load_state_dict(state)
    optim.seen.clear()
    done = [optim.update_params(model(torch.ones(1, 1)).sum()) is not None for _ in range(4)]
    assert done == [False, False, False, True]
    assert_near(optim.seen[0], [torch.ones(1, 1)])


# Precision: bit for bit what torch's own recipe gives


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("counts", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_mixed_precision_is_the_recipe_of_torch(precision: Precision, counts: int, clip: float | None) -> None:
    ours, theirs = network(), network()
    optim = OptimWrapper(sgd(ours), counts, precision=precision, clip_norm=clip)
    optimizer = sgd(theirs)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "float16")
    inputs, targets = samples(8 * 12)
    for index, (x, y) in enumerate(zip(inputs.view(-1, 8, 6), targets.view(-1, 8), strict=True)):
        with optim.optim_context(ours):
            loss = nn.functional.cross_entropy(ours(x), y)
            assert ours(x).dtype == dtype
        outcome = optim.update_params(loss)
        with torch.autocast("cpu", dtype):
            expected = nn.functional.cross_entropy(theirs(x), y)
        torch.autograd.backward(scaler.scale(expected / counts if counts > 1 else expected))
        assert torch.equal(loss, expected)
        if (index + 1) % counts:
            assert outcome is None
            continue
        if clip is not None:
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(theirs.parameters(), clip)
            assert isinstance(outcome, Stepped)
            assert outcome.grad_norm is not None
            assert torch.equal(outcome.grad_norm, norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert_equal(ours, theirs)


def test_backward_inside_of_the_context_is_the_same() -> None:
    inside, outside = network(), network()
    x, y = samples(16)
    for model in (inside, outside):
        optim = OptimWrapper(sgd(model), precision="bfloat16")
        context = optim.optim_context(model)
        with context:
            loss = nn.functional.cross_entropy(model(x), y)
            if model is inside:
                optim.update_params(loss)
        if model is outside:
            optim.update_params(loss)
    assert_equal(inside, outside)


def test_an_overflow_skips_the_step_lowers_the_scale_and_is_counted() -> None:
    model = network()
    before = copy.deepcopy(model)
    optim = OptimWrapper(sgd(model), precision="float16", loss_scale=2.0**40)
    x, y = samples(8)
    with optim.optim_context(model):
        loss = nn.functional.cross_entropy(model(x), y) * 1e30
    outcome = optim.update_params(loss)
    assert isinstance(outcome, Skipped)
    assert "overflowed" in outcome.reason
    assert (optim.skipped, optim.steps) == (1, 0)
    assert optim.loss_scaler is not None
    assert optim.loss_scaler.get_scale() == 2.0**39
    assert_equal(model, before)


def test_gradients_that_are_never_finite_end_a_training_in_float16() -> None:
    model = network()
    optim = OptimWrapper(sgd(model), precision="float16")
    outcomes = [optim.update_params(model(torch.ones(1, 6)).sum() * torch.nan) for _ in range(40)]
    assert all(isinstance(outcome, Skipped) for outcome in outcomes)
    with pytest.raises(TrainingError, match="not finite in float16 at whatever loss scale"):
        optim.update_params(model(torch.ones(1, 6)).sum() * torch.nan)


def test_the_last_outcome_is_kept() -> None:
    model = nn.Linear(1, 1)
    optim = OptimWrapper(sgd(model), skip_nonfinite=True)
    for value, kind in ((1.0, Stepped), (math.inf, Skipped)):
        outcome = optim.update_params(model(torch.tensor([[value]])).sum())
        assert outcome is optim.outcome
        assert isinstance(outcome, kind)


def test_the_scale_may_be_a_number_or_arguments_of_the_scaler() -> None:
    number = OptimWrapper(sgd(network()), precision="float16", loss_scale=512.0).loss_scaler
    settings_ = {"init_scale": 64.0, "growth_interval": 7}
    settings_given = OptimWrapper(sgd(network()), precision="float16", loss_scale=settings_).loss_scaler
    assert number is not None
    assert settings_given is not None
    assert number.get_scale() == 512.0
    assert (settings_given.get_scale(), settings_given.get_growth_interval()) == (64.0, 7)
    with pytest.raises(ValueError, match="GradScaler knows init_scale"):
        OptimWrapper(sgd(network()), precision="float16", loss_scale={"scale": 2.0})
    with pytest.raises(ValueError, match="loss_scale is for the precision float16"):
        OptimWrapper(sgd(network()), loss_scale=2.0)


def test_a_scaled_step_without_gradients_says_so() -> None:
    optim = OptimWrapper(sgd(network()), precision="float16")
    with pytest.raises(TrainingError, match="no parameter of the optimizer has a gradient"):
        optim.step()


def test_precision_float32_changes_nothing() -> None:
    ours, theirs = network(), network()
    optim, optimizer = OptimWrapper(sgd(ours)), sgd(theirs)
    x, y = samples(16)
    for _ in range(3):
        with optim.optim_context(ours):
            optim.update_params(nn.functional.cross_entropy(ours(x), y))
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(theirs(x), y))
        optimizer.step()
    assert_equal(ours, theirs)


# Clipping


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_the_norm_is_clipped_as_torch_does_and_reported(norm_type: float) -> None:
    ours, theirs = network(), network()
    x, y = samples(16)
    optim = OptimWrapper(sgd(ours), clip_norm=0.01, norm_type=norm_type)
    outcome = optim.update_params(nn.functional.cross_entropy(ours(x), y))
    optimizer = sgd(theirs)
    torch.autograd.backward(nn.functional.cross_entropy(theirs(x), y))
    norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.01, norm_type)
    optimizer.step()
    assert isinstance(outcome, Stepped)
    assert outcome.grad_norm is not None
    assert torch.equal(outcome.grad_norm, norm)
    assert_equal(ours, theirs)


def test_values_are_clipped_and_a_norm_is_measured_before() -> None:
    model = nn.Linear(2, 1, bias=False)
    seen: list[Tensor] = []
    optim = OptimWrapper(sgd(model), clip_value=0.5, measure_norm=True)
    optim.optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(model)[0]))
    outcome = optim.update_params(model(torch.tensor([[3.0, -4.0]])).sum())
    assert seen[0].tolist() == [[0.5, -0.5]]
    assert isinstance(outcome, Stepped)
    assert outcome.grad_norm is not None
    assert float(outcome.grad_norm) == 5.0


def test_gradients_that_are_not_finite_are_skipped_where_asked() -> None:
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.detach().clone()
    optim = OptimWrapper(sgd(model), skip_nonfinite=True)
    outcome = optim.update_params(model(torch.tensor([[math.inf]])).sum())
    assert isinstance(outcome, Skipped)
    assert "inf" in outcome.reason
    assert torch.equal(model.weight, before)
    assert isinstance(optim.update_params(model(torch.ones(1, 1)).sum()), Stepped)
    assert (optim.skipped, optim.steps) == (1, 1)


# What others look at


def test_learning_rates_and_momenta_of_each_group() -> None:
    one, two = list(network().parameters()), list(network(1).parameters())
    groups: list[dict[str, object]] = [{"params": one}, {"params": two, "lr": 0.5}]
    optim = OptimWrapper(torch.optim.SGD(groups, lr=0.01, momentum=0.8))
    assert optim.get_lr() == {"lr": [0.01, 0.5]}
    assert optim.get_momentum() == {"momentum": [0.8, 0.8]}
    adam = OptimWrapper(
        torch.optim.Adam(network().parameters(), lr=torch.tensor(0.25), betas=(0.7, 0.9), foreach=False)
    )
    assert adam.get_lr() == {"lr": [0.25]}
    assert adam.get_momentum() == {"momentum": [0.7]}
    assert OptimWrapper(torch.optim.Adagrad(network().parameters())).get_momentum() == {"momentum": [0.0]}
    assert adam.param_groups is adam.optimizer.param_groups
    assert adam.defaults is adam.optimizer.defaults


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("stop", [4, 5])
def test_a_state_goes_on_bit_for_bit_in_the_middle_of_an_accumulation_too(precision: Precision, stop: int) -> None:
    inputs, targets = samples(9 * 4)
    batches = list(zip(inputs.view(-1, 4, 6), targets.view(-1, 4), strict=True))

    def go_on(model: nn.Module, optim: OptimWrapper, begin: int, end: int) -> None:
        for x, y in batches[begin:end]:
            with optim.optim_context(model):
                loss = nn.functional.cross_entropy(model(x), y)
            optim.update_params(loss, float(len(x)))

    model = network()
    optim = OptimWrapper(sgd(model), 3, precision=precision)
    go_on(model, optim, 0, 9)
    first = network()
    begun = OptimWrapper(sgd(first), 3, precision=precision)
    go_on(first, begun, 0, stop)
    state = copy.deepcopy((first.state_dict(), begun.optimizer.state_dict(), begun.state_dict()))
    second = network(5)
    resumed = OptimWrapper(sgd(second), 3, precision=precision)
    second.load_state_dict(state[0])
    resumed.optimizer.load_state_dict(state[1])
    resumed.load_state_dict(state[2])
    go_on(second, resumed, stop, 9)
    assert_equal(model, second)


def test_between_updates_a_state_has_no_gradients() -> None:
    model = network()
    optim = OptimWrapper(sgd(model), 2)
    for _ in range(2):
        optim.update_params(model(torch.ones(1, 6)).sum())
    assert optim.state_dict() == {"skipped": 0}


def test_states_of_another_form_are_refused() -> None:
    model = network()
    optim = OptimWrapper(sgd(model), 2)
    optim.update_params(model(torch.ones(1, 6)).sum())
    state = optim.state_dict()
    other = OptimWrapper(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0))
    with pytest.raises(StateError, match="parameter 0 has another shape"):
        other.load_state_dict(state)
    wrong: list[dict[str, object]] = [
        {"skipped": "many"},
        {"accumulation": {}},
        {"accumulation": {"gradients": {}, "inner_count": 1}},
    ]
    for state in wrong:
        with pytest.raises(StateError):
            optim.load_state_dict(state)
    scaled = OptimWrapper(sgd(model), precision="float16")
    scalers: list[dict[str, object]] = [{}, {"x": 1}]
    for scaler in scalers:
        with pytest.raises(StateError, match="no state of torch's GradScaler"):
            scaled.load_state_dict({"loss_scaler": scaler})


def test_its_representation_says_what_it_is() -> None:
    lines = repr(OptimWrapper(sgd(network()), 2)).splitlines()
    assert lines[:3] == ["Type: OptimWrapper", "accumulative_counts: 2", "optimizer: "]
    assert lines[3] == "SGD ("


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accumulative_counts": 0}, "accumulative_counts is 0"),
        ({"accumulative_counts": 1.5}, "accumulative_counts is 1.5"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"clip_value": 0.0}, "clip_value is 0.0"),
        ({"clip_norm": "1"}, "clip_norm is '1', must be a positive number"),
        ({"clip_norm": math.nan}, "clip_norm is nan"),
        ({"norm_type": 0.0}, "norm_type is 0.0"),
        ({"precision": "half"}, "precision is 'half', must be one of float32, bfloat16, float16"),
        ({"precision": "float16", "loss_scale": "static"}, "loss_scale is 'static'"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimWrapper(sgd(network()), **arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_what_is_no_optimizer_is_named() -> None:
    with pytest.raises(TypeError, match="optimizer is a Sequential"):
        OptimWrapper(network())  # type: ignore[arg-type]  # wrong on purpose


def test_what_cannot_be_updated_is_named() -> None:
    groups: list[dict[str, object]] = [{"params": []}]
    with pytest.raises(ValueError, match="the optimizer has no parameters"):
        OptimWrapper(torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(ValueError, match="precision float16 is for weights of float32"):
        OptimWrapper(sgd(network().half()), precision="float16")
    optim = OptimWrapper(torch.optim.LBFGS(network().parameters()))
    with pytest.raises(TrainingError, match="LBFGS evaluates the loss several times a step; call step"):
        optim.step()
    with pytest.raises(TrainingError, match="a step in float16 takes no closure"):
        OptimWrapper(sgd(network()), precision="float16").step(lambda: 0.0)
    for loss in (None, 1.0, (torch.ones(()), 1)):
        with pytest.raises(TrainingError, match=r"the loss is a (NoneType|float|tuple)"):
            OptimWrapper(sgd(network())).update_params(loss)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "arguments", [{"accumulative_counts": 2}, {"clip_norm": 1.0}, {"precision": "float16"}, {"measure_norm": True}]
)
def test_an_optimizer_that_evaluates_several_times_takes_no_clipping(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        OptimWrapper(torch.optim.LBFGS(network().parameters()), **arguments)  # type: ignore[arg-type]  # by name


def test_a_device_without_mixed_precision_is_named() -> None:
    model = nn.Linear(2, 2, device="meta")
    with pytest.raises(ValueError, match="no automatic mixed precision on meta"):
        OptimWrapper(sgd(model), precision="bfloat16")

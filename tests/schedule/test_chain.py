"""Several schedules on one parameter; resuming; and what others do to the same groups."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from tests.schedule.runs import adam, assert_close, sgd, trace, values
from treenail.adapters.checkpoint import Snapshot, freeze, thaw
from treenail.adapters.hooks import BoundSchedule, Schedules
from treenail.adapters.schedule import (
    Constant,
    Cosine,
    CosineRestarts,
    DecayShape,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Step,
    Together,
    WarmupStableDecay,
    compat,
)
from treenail.kernel import late

few = settings(deadline=None, max_examples=25)

MAKERS: list[Callable[[Optimizer], Schedule]] = [
    lambda o: Linear(o, start_factor=0.01, end=7),
    lambda o: Cosine(o, begin=7, end=20, eta_min=0.003),
    lambda o: Polynomial(o, begin=4, end=15, eta_min_ratio=0.1, power=0.7),
    lambda o: Exponential(o, gamma=0.93),
    lambda o: Step(o, step_size=3, gamma=0.7, begin=2),
    lambda o: MultiStep(o, milestones=(9, 4, 9), gamma=0.5),
    lambda o: Constant(o, factor=0.3, begin=3, end=9),
    lambda o: CosineRestarts(o, periods=(5, 8), weights=(1.0, 0.6), eta_min=0.001),
    lambda o: OneCycle(o, eta_max=0.4, begin=5, end=25),
    lambda o: WarmupStableDecay(o, warmup=4, decay=6, end=18, shape="one_minus_sqrt"),
    lambda o: Exponential(o, gamma=0.97, param="momentum"),
    lambda o: Cosine(o, period=9, param="weight_decay"),
]


@pytest.fixture(autouse=True)
def _nobody_steps_the_optimizers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def again(state: object) -> dict[str, Any]:
    tree, tensors = freeze(state)
    return cast("dict[str, Any]", thaw(Snapshot(json.loads(json.dumps(tree)), load(save(tensors)))))


@few
@given(
    st.lists(st.sampled_from(MAKERS), min_size=1, max_size=4),
    st.integers(0, 20),
    st.sampled_from([sgd, adam]),
    st.booleans(),
    st.integers(-1, 20),
    st.booleans(),
)
def test_a_resumed_run_goes_on_bit_for_bit_without_replay(
    makers: list[Callable[[Optimizer], Schedule]],
    steps: int,
    make: Callable[[], Optimizer],
    optimizer_first: bool,
    halved_at: int,
    with_plateau: bool,
) -> None:
    def build() -> tuple[Optimizer, Schedules]:
        optimizer = make()
        bound = [BoundSchedule(maker(optimizer)) for maker in makers]
        if with_plateau:
            bound.append(BoundSchedule(ReduceOnPlateau(optimizer, patience=1), metric="loss"))
        return optimizer, Schedules(bound)

    def go_on(optimizer: Optimizer, schedules: Schedules, first: int, count: int) -> list[dict[str, object]]:
        found = []
        for index in range(first, first + count):
            for each in schedules.schedules:
                if not isinstance(each.scheduler, ReduceOnPlateau):
                    each.scheduler.step()
                elif index % 3 == 2:
                    each.scheduler.step(1.0)
            if index == halved_at:  # somebody else does this, after the schedules
                optimizer.param_groups[0]["lr"] *= 0.5
            found.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
        return cast("list[dict[str, object]]", found)

    optimizer, schedules = build()
    go_on(optimizer, schedules, 0, steps)
    state = again({"optimizer": optimizer.state_dict(), "schedules": schedules.state_dict()})
    resumed, its = build()
    if optimizer_first:
        resumed.load_state_dict(state["optimizer"])
    its.load_state_dict(state["schedules"])
    if not optimizer_first:
        resumed.load_state_dict(state["optimizer"])
    assert values(resumed) == values(optimizer)
    assert go_on(resumed, its, steps, 10) == go_on(optimizer, schedules, steps, 10)


def test_the_order_in_which_schedules_began_is_resumed() -> None:
    def build() -> tuple[Optimizer, list[Schedule]]:
        optimizer = sgd(0.1)
        late_one = Polynomial(optimizer, begin=5, end=15, eta_min=0.02)
        return optimizer, [late_one, Cosine(optimizer, begin=3, period=10, eta_min=0.05)]

    optimizer, schedules = build()
    for _ in range(8):
        for each in schedules:
            each.step()
    resumed, its = build()
    for mine, other in zip(its, schedules, strict=True):
        mine.load_state_dict(again(other.state_dict()))
    assert values(resumed) == values(optimizer)
    for each in (*its, *schedules):
        each.step()
    assert values(resumed) == values(optimizer)


@few
@given(st.sampled_from(MAKERS[:10]), st.integers(0, 40))
def test_any_step_is_reached_at_once(make: Callable[[Optimizer], Schedule], goal: int) -> None:
    walked = trace(sgd(), make, goal)
    optimizer = sgd()
    make(optimizer).step(goal)
    assert values(optimizer) == walked[-1]


@few
@given(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=3), st.integers(1, 30))
def test_all_ways_to_step_give_the_same_value(makers: list[Callable[[Optimizer], Schedule]], steps: int) -> None:
    """A single group's, several groups', to a given step, and together: to the last bit."""
    one, two, given_step, together = sgd(0.1), sgd(0.1, 0.1), sgd(0.1), sgd(0.1)
    alone, several, jumping, joined = ([make(each) for make in makers] for each in (one, two, given_step, together))
    stepped_together = Together(joined)
    for step in range(1, steps + 1):
        for schedule in (*alone, *several):
            schedule.step()
        for schedule in jumping:
            schedule.step(step)
        stepped_together.step()
        for param in ("lr", "momentum", "weight_decay"):
            (expected,) = values(one, param)
            assert values(two, param) == [expected, expected]
            assert values(given_step, param) == values(together, param) == [expected]


def test_a_schedule_goes_on_after_a_step_without_a_state() -> None:
    walked = trace(sgd(), lambda o: Cosine(o, period=20), 6)
    makers: list[Callable[[Optimizer], Schedule]] = [
        lambda o: Cosine(o, period=20, last_step=5),
        lambda o: compat.CosineAnnealingLR(o, T_max=20, last_step=5),
    ]
    for make in makers:
        optimizer = sgd()
        for group in optimizer.param_groups:
            group["initial_lr"], group["lr"] = group["lr"], 0.123
        make(optimizer)
        assert values(optimizer) == walked[6]
        with pytest.raises(ValueError, match="without 'initial_lr' cannot be resumed"):
            make(sgd())


@few
@given(st.integers(1, 100), st.integers(0, 20))
def test_many_factors_multiply(count: int, steps: int) -> None:
    found = trace(sgd(0.1), lambda o: [Exponential(o, gamma=0.999) for _ in range(count)], steps)
    assert_close([found[-1]], [[0.1 * 0.999 ** (count * steps)]])


@few
@given(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=5), st.sampled_from([sgd, adam]), st.integers(-1, 25))
def test_steps_together_are_steps_one_after_the_other(
    makers: list[Callable[[Optimizer], Schedule]], make: Callable[[], Optimizer], halved_at: int
) -> None:
    def steps(optimizer: Optimizer, stepped: Sequence[Schedule | Together]) -> list[object]:
        found: list[object] = []
        for step in range(30):
            for each in stepped:
                each.step()
            if step == halved_at:
                optimizer.param_groups[0]["lr"] *= 0.5
            found.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
        return found

    one, other = make(), make()
    apart, together = [each(one) for each in makers], [each(other) for each in makers]
    assert steps(one, apart) == steps(other, [Together(together)])
    assert [each.state_dict() for each in apart] == [each.state_dict() for each in together]


def test_a_hundred_step_together() -> None:
    one, other = sgd(0.1), sgd(0.1)
    apart = [Exponential(one, gamma=0.9 + index / 1000) for index in range(100)]
    together = Together([Exponential(other, gamma=0.9 + index / 1000) for index in range(100)])
    for _ in range(5):
        for each in apart:
            each.step()
        together.step()
        assert values(one) == values(other)


def test_only_neighbours_that_step_plainly_are_put_together() -> None:
    class Louder(Exponential):
        def step(self, epoch: int | None = None) -> None:
            super().step(epoch)

    optimizer = sgd(0.1)
    plain = [Linear(optimizer, end=5), Cosine(optimizer, period=9), compat.LinearLR(optimizer, end=5)]
    others = [
        lr_scheduler.StepLR(optimizer, 2),
        Louder(optimizer, gamma=0.9),
        compat.ExponentialLR(optimizer, 0.9, verbose=True),
        Step(optimizer, step_size=3),
    ]
    found = Together.where_possible([*plain, *others])
    assert isinstance(found[0], Together)
    assert found[1:] == others
    before = [each.last_epoch for each in plain]
    found[0].step()
    assert [each.last_epoch for each in plain] == [step + 1 for step in before]


def test_torchs_schedulers_act_beside_ours() -> None:
    def mixed(optimizer: Optimizer) -> list[lr_scheduler.LRScheduler]:
        first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
        return [first, Step(optimizer, step_size=2, gamma=0.5), lr_scheduler.ExponentialLR(optimizer, 0.9)]

    def of_torch(optimizer: Optimizer) -> list[lr_scheduler.LRScheduler]:
        first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
        return [first, lr_scheduler.StepLR(optimizer, 2, 0.5), lr_scheduler.ExponentialLR(optimizer, 0.9)]

    assert_close(trace(sgd(), mixed, 12), trace(sgd(), of_torch, 12))


def test_what_somebody_sets_stays_as_a_factor_and_the_base_value_undoes_it() -> None:
    optimizer = sgd(0.1)
    schedule = Exponential(optimizer, gamma=0.5)
    schedule.step()
    optimizer.param_groups[0]["lr"] *= 10
    schedule.step()
    assert values(optimizer) == [pytest.approx(0.25)]
    optimizer.param_groups[0]["lr"] = 0.1
    schedule.step()
    assert values(optimizer) == [0.1 * 0.125]


def test_a_floor_holds_for_what_began_before() -> None:
    def down(optimizer: Optimizer) -> Schedule:
        return Linear(optimizer, start_factor=1, end_factor=0.1, end=5)

    def to_the_floor(optimizer: Optimizer) -> Schedule:
        return Cosine(optimizer, begin=5, period=5, eta_min=0.003)

    for found in (
        trace(sgd(0.1), lambda o: [down(o), to_the_floor(o)], 10),
        trace(sgd(0.1), lambda o: [to_the_floor(o), down(o)], 10),
    ):
        assert found[4] == [pytest.approx(0.01)]
        assert found[10] == [0.003]


@pytest.mark.parametrize("eta_min", [0.0, 1e-3])
def test_a_group_added_later_takes_part_from_the_next_step_on(eta_min: float) -> None:
    def make(optimizer: Optimizer) -> Schedule:
        return Cosine(optimizer, period=10, eta_min=eta_min)

    optimizer = sgd(0.1)
    schedule = make(optimizer)
    for _ in range(4):
        schedule.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.3})
    schedule.step()
    assert values(optimizer) == trace(sgd(0.1, 0.3), make, 5)[-1]
    del optimizer.param_groups[0]
    schedule.step()
    assert values(optimizer) == [trace(sgd(0.1, 0.3), make, 6)[-1][1]]


def test_a_tensor_is_written_in_place_so_that_compiled_steps_see_it() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=rate)
    schedule = Linear(optimizer, start_factor=0.5, end=6)
    for _ in range(2):
        schedule.step()
    held = optimizer.param_groups[0]["lr"]
    assert held is rate
    assert rate.item() == 0.1 * (0.5 + 0.5 * 2 / 5)
    rate *= 2
    schedule.step()
    assert rate.item() == pytest.approx(0.2 * (0.5 + 0.5 * 3 / 5), rel=1e-12)
    returned = schedule.get_last_lr()[0]
    assert isinstance(returned, torch.Tensor)
    assert returned is not rate


def test_a_copy_goes_its_own_way() -> None:
    optimizer = sgd(0.1)
    schedule = Exponential(optimizer, gamma=0.5)
    other_optimizer, other = copy.deepcopy((optimizer, schedule))
    other.step()
    assert (values(optimizer), values(other_optimizer)) == ([0.1], [0.05])


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5), ("one_minus_sqrt", 1 - 0.5**0.5)])
def test_wsd_warms_up_stays_and_decays(shape: DecayShape, middle: float) -> None:
    found = trace(sgd(1.0), lambda o: WarmupStableDecay(o, warmup=4, decay=4, end=20, shape=shape), 25)
    factors = [value for (value,) in found]
    assert factors[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert factors[4:17] == [1.0] * 13
    assert factors[18] == pytest.approx(middle)
    assert factors[16] > factors[17] > factors[18] > factors[19] > factors[20] == factors[25] == 0.0


@pytest.mark.parametrize("begin", [0, 0.5, 3])
@pytest.mark.parametrize("decay", [0, 1, 2.5, 4])
def test_wsd_arrives_where_it_ends_and_stays(begin: float, decay: float) -> None:
    found = trace(
        sgd(1.0), lambda o: WarmupStableDecay(o, begin=begin, end=10, warmup=2, decay=decay, end_factor=0.1), 14
    )
    factors = [value for (value,) in found]
    assert factors[9] > 0.1
    assert factors[10 + bool(begin % 1)] == factors[-1] == pytest.approx(0.1 if decay else 1.0)


def test_lengths_in_epochs_become_steps() -> None:
    in_epochs = WarmupStableDecay(sgd(1.0), warmup=1, decay=0.5, end=10, convert_to_iter_based=True, epoch_length=8)
    assert [in_epochs.curve(at) for at in (4, 8, 76, 78)] == [0.5, 1.0, 1.0, 0.5]


def test_a_schedule_is_what_configs_and_frameworks_take() -> None:
    built = late(Cosine)(period=10).build(sgd())
    assert isinstance(built, lr_scheduler.LRScheduler)
    assert (built.last_epoch, built.get_last_lr(), built.base_lrs) == (0, [0.1, 0.025], [0.1, 0.025])
    assert not hasattr(built.optimizer.step, "_wrapped_by_lr_sched")
    plateau = late(ReduceOnPlateau)(patience=2).build(sgd())
    assert isinstance(plateau, lr_scheduler.ReduceLROnPlateau)


def test_a_plateau_keeps_to_its_minimum_and_interval() -> None:
    optimizer = sgd(0.1)
    plateau = ReduceOnPlateau(optimizer, patience=0, minimum=0.004, begin=2, end=5)
    found = []
    for _ in range(8):
        plateau.step(1.0)
        found += values(optimizer)
    assert found == [0.1] * 3 + [pytest.approx(0.01)] + [pytest.approx(0.004)] * 4
    momentum = ReduceOnPlateau(adam(), param="momentum", patience=0, factor=0.5)
    momentum.step(1.0)
    momentum.step(1.0)
    assert (momentum.get_last_value(), momentum.get_last_lr()) == ([0.45, 0.45], [0.1, 0.025])

"""ZeRO on two real processes: the optimizer's own results and checkpoints, with its states divided."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import cast

import msgspec
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, OneCycleLR

from tests.parallel.models import Net, batches, made
from tests.processes import Starter
from tests.ranks.ranked_run import run as ranked_run
from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.comm import SingleProcess, run_threads, use_communicator
from treenail.adapters.config import load_run
from treenail.adapters.files import LocalFiles
from treenail.adapters.loops import EpochLoop
from treenail.adapters.parallel import data_parallel, fully_sharded
from treenail.adapters.parallel.zero import zero_redundancy
from treenail.adapters.parallel.zero_optimizer import ZeroOptimizer
from treenail.adapters.runtime import train as train_run
from treenail.kernel import Late, late

Make = Late[Iterable[nn.Parameter], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adamw": late(AdamW)(lr=0.05, weight_decay=0.1),
    "fused adamw": late(AdamW)(lr=0.05, fused=True, amsgrad=True),
    "sgd": late(SGD)(lr=0.05, momentum=0.9, nesterov=True),
    "sgd without states": late(SGD)(lr=0.05),
    "adagrad": late(Adagrad)(lr=0.05),
}
STEPS = 4


class Training:
    """A model that two ranks train, in groups of different rates, with a schedule and clipping."""

    def __init__(self, optimizer: Callable[[list[dict[str, object]]], Optimizer]) -> None:
        self.model = data_parallel(made(Net))
        named = list(self.model.named_parameters())
        self.optimizer = optimizer(
            [
                {"params": [each for name, each in named if name.endswith("weight")]},
                {"params": [each for name, each in named if not name.endswith("weight")], "lr": 0.01},
            ]
        )
        self.schedule = LinearLR(self.optimizer, 0.1, total_iters=3)

    def step(self, steps: range) -> None:
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for number, (inputs, targets) in enumerate(batches(steps=steps.stop)):
            if number in steps:
                self.optimizer.zero_grad()
                (self.model(inputs[rank::size]) - targets[rank::size]).square().mean().backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
                self.optimizer.step()
                self.schedule.step()

    def weights(self) -> list[torch.Tensor]:
        return [each.detach().clone() for each in self.model.parameters()]


def divided(kind: str) -> Callable[[list[dict[str, object]]], Optimizer]:
    return lambda groups: zero_redundancy(groups, optimizer=OPTIMIZERS[kind])  # type: ignore[arg-type]  # groups, as torch takes


def undivided(kind: str) -> Callable[[list[dict[str, object]]], Optimizer]:
    return OPTIMIZERS[kind].build  # type: ignore[return-value]  # groups, as torch takes


def assert_same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def elements(states: Iterable[dict[str, object]]) -> int:
    return sum(value.numel() for state in states for value in state.values() if isinstance(value, torch.Tensor))


def in_group(check: Callable[..., object]) -> None:
    """Run a check in the processes' group."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    try:
        check()
        dist.barrier()  # the first rank keeps what the others meet at
    finally:
        dist.destroy_process_group()


def train_both(directory: Path) -> dict[str, list[int]]:
    """Return elements of this rank's states, and of all states, by the kind of optimizer."""
    found: dict[str, list[int]] = {}

    def check() -> None:
        for kind in OPTIMIZERS:
            zero, plain = Training(divided(kind)), Training(undivided(kind))
            assert isinstance(zero.optimizer, ZeroOptimizer)
            for first, last in pairwise(range(STEPS + 1)):
                zero.step(range(first, last))
                plain.step(range(first, last))
                assert_same(zero.weights(), plain.weights())
                assert_same([group["lr"] for group in zero.optimizer.param_groups], zero.schedule.get_last_lr())
            found[kind] = [elements(each.state.values()) for each in (zero.optimizer.optim, plain.optimizer)]
            state, whole = zero.optimizer.state_dict(), plain.optimizer.state_dict()
            assert_same(state["param_groups"], whole["param_groups"])
            numbers = zero.optimizer._numbers()
            mine = {number for parameter, number in numbers.items() if parameter in zero.optimizer.optim.state}
            kept = {number: each for number, each in whole["state"].items() if dist.get_rank() == 0 or number in mine}
            assert_same(state["state"], kept)

    in_group(check)
    return found


def test_training_and_its_state_are_the_optimizers_own_and_each_rank_keeps_half(
    tmp_path: Path, starter: Starter
) -> None:
    first, second = cast("list[dict[str, list[int]]]", starter.launch(train_both, tmp_path, 2))
    for kind in OPTIMIZERS:
        (mine, whole), (theirs, _) = first[kind], second[kind]
        assert mine + theirs == whole
        assert (whole == 0) == (kind == "sgd without states")
        assert max(mine, theirs) <= 0.6 * whole


def go_on(directory: Path) -> None:
    """Go on from a state of either in either."""

    def check() -> None:
        for kind in OPTIMIZERS:
            for before, after in ((divided, divided), (undivided, divided), (divided, undivided)):
                saved, resumed = Training(before(kind)), Training(after(kind))
                saved.step(range(2))
                state = copy.deepcopy(saved.optimizer.state_dict())
                if after is undivided:  # which needs what rank 0 has
                    carried = [state]
                    dist.broadcast_object_list(carried, 0)
                    state = carried[0]
                keys = set(state["state"])
                resumed.model.load_state_dict(saved.model.state_dict())
                resumed.optimizer.load_state_dict(state)
                resumed.schedule.load_state_dict(saved.schedule.state_dict())
                assert set(state["state"]) == keys, "the given state was changed"
                assert not isinstance(resumed.optimizer, ZeroOptimizer) or not resumed.optimizer.state
                saved.step(range(2, STEPS))
                resumed.step(range(2, STEPS))
                assert_same(resumed.weights(), saved.weights())

    in_group(check)


def test_a_state_is_gone_on_with_bit_for_bit_divided_or_not(tmp_path: Path, starter: Starter) -> None:
    starter.launch(go_on, tmp_path, 2)


def scale(directory: Path) -> list[float]:
    """Train with a scaler of losses, whose second step overflows on one rank."""
    scales: list[float] = []

    def check() -> None:
        trained = []
        for make in (divided("adamw"), undivided("adamw")):
            training = Training(make)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            for number, (inputs, targets) in enumerate(batches()):
                training.optimizer.zero_grad()
                loss = (training.model(inputs) - targets).square().mean()
                infinite = float("inf") if number == 1 and dist.get_rank() == 1 else 1.0
                scaler.scale(loss * infinite).backward()
                scaler.unscale_(training.optimizer)
                nn.utils.clip_grad_norm_(training.model.parameters(), 0.1)
                scaler.step(training.optimizer)
                scaler.update()
            trained.append(training.weights())
            scales.append(scaler.get_scale())
        assert_same(*trained)

    in_group(check)
    return scales


def test_scaled_losses_skip_a_step_on_all_ranks(tmp_path: Path, starter: Starter) -> None:
    assert starter.launch(scale, tmp_path, 2) == [[2.0**9, 2.0**9]] * 2


def few_parameters(directory: Path) -> None:
    def check() -> None:
        weight = nn.Parameter(torch.ones(3))
        optimizer = zero_redundancy([weight], optimizer=OPTIMIZERS["fused adamw"])
        assert isinstance(optimizer, ZeroOptimizer)
        OneCycleLR(optimizer, 0.1, total_steps=20, cycle_momentum=True)  # reads the optimizer's defaults
        weight.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizer.step()
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        assert len(optimizer.optim.state) == (dist.get_rank() == 0)
        assert len(state["state"]) == (dist.get_rank() == 0)
        optimizer.step()
        gathered = [torch.empty(3), torch.empty(3)]
        dist.all_gather(gathered, weight.detach())
        assert_same(gathered[0], gathered[1])
        assert not gathered[0].equal(torch.ones(3))

    in_group(check)


def test_a_rank_may_have_no_parameter(tmp_path: Path, starter: Starter) -> None:
    starter.launch(few_parameters, tmp_path, 2)


def refuse(directory: Path) -> None:
    def check() -> None:
        model = fully_sharded(made(Net))
        with pytest.raises(ValueError, match=r"spread over ranks.*use AdamW without ZeRO"):
            zero_redundancy(model.parameters(), optimizer=OPTIMIZERS["adamw"])
        weight = nn.Parameter(torch.ones(3))
        with pytest.raises(ValueError, match="LBFGS evaluates the loss several times a step"):
            zero_redundancy([weight], optimizer=late(torch.optim.LBFGS)())
        with pytest.raises(ValueError, match="same dense type"):
            zero_redundancy([weight, nn.Parameter(torch.ones(2).double())], optimizer=OPTIMIZERS["adamw"])
        optimizer = zero_redundancy([weight], optimizer=OPTIMIZERS["adamw"])
        with pytest.raises(ValueError, match="different number of parameter groups"):
            optimizer.load_state_dict({"state": {}, "param_groups": []})
        with use_communicator(SingleProcess()):
            alone = zero_redundancy([weight], optimizer=OPTIMIZERS["adamw"])
        assert type(alone) is AdamW

    in_group(check)


def test_what_cannot_be_divided_is_refused(tmp_path: Path, starter: Starter) -> None:
    starter.launch(refuse, tmp_path, 2)


def test_one_process_has_the_optimizer_itself() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = zero_redundancy([weight], optimizer=OPTIMIZERS["sgd"])
    assert type(optimizer) is SGD
    assert optimizer.param_groups[0]["params"] == [weight]


def test_threads_are_no_processes() -> None:
    def check(_: object) -> None:
        with pytest.raises(ValueError, match=r"ranks are those of a \w+; ZeRO needs processes"):
            zero_redundancy([nn.Parameter(torch.ones(3))], optimizer=OPTIMIZERS["sgd"])

    run_threads(2, check)


def whole_run(directory: Path, tasks: list[tuple[str, bool, int, str | None]]) -> None:
    """Train runs: name, whether divided, epochs, and the name of the run to go on with."""
    dist.init_process_group("gloo")
    for name, zero, epochs, before in tasks:
        place = directory / name
        if before is not None and dist.get_rank() == 0:
            shutil.copytree(directory / before, place)
        dist.barrier()
        optimizer: Make = late(AdamW)(lr=0.01)
        described = msgspec.structs.replace(
            ranked_run,
            optimizer=late(zero_redundancy)(optimizer=optimizer) if zero else optimizer,
            loop=late(EpochLoop)(max_epochs=epochs),
            hooks={"progress": None},
        )
        train_run(described, place, resume="latest" if before else None, allow_changes=True)
    dist.barrier()
    dist.destroy_process_group()


def state_of(directory: Path) -> dict[str, dict[str, object]]:
    state = CheckpointStore(LocalFiles(directory / "checkpoints")).load("latest")[1]
    return {part: state[part] for part in ("model", "optimizer")}  # type: ignore[misc]  # as runs save them


def test_a_run_saves_and_goes_on_as_with_the_optimizer_itself_on_any_number_of_ranks(
    tmp_path: Path, starter: Starter
) -> None:
    tasks = [
        ("plain", False, 2, None),
        ("zero", True, 2, None),
        ("first", True, 1, None),
        ("again", True, 2, "first"),
        ("undivided", False, 2, "first"),
    ]
    starter.launch(whole_run, tmp_path, 2, tasks)
    expected = state_of(tmp_path / "plain")
    for name in ("zero", "again", "undivided"):
        assert_same(state_of(tmp_path / name), expected)
    starter.launch(whole_run, tmp_path, 1, [("alone", True, 2, "first")])
    torch.testing.assert_close(state_of(tmp_path / "alone"), expected)


def test_a_config_names_it_around_any_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        """
model: {type: Linear, in_features: 2, out_features: 1}
loss: {type: mse_loss}
imports: [treenail.adapters.parallel]
optimizer: {type: "treenail.adapters.parallel.zero:zero_redundancy", optimizer: {type: AdamW, lr: 1e-3}}
train: {dataset: {type: digits, split: train}, batch_size: 4}
loop: {type: epochs, max_epochs: 1}
"""
    )
    run = load_run(path)
    assert isinstance(run.optimizer, Late)
    optimizer = run.optimizer.build(nn.Linear(2, 1).parameters())
    assert type(optimizer) is AdamW
    assert optimizer.param_groups[0]["lr"] == 1e-3

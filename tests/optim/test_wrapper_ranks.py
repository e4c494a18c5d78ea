"""OptimWrapper on ranks: nothing is communicated before the last pass of an update, and weights count over all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.optim.test_wrapper import assert_near, gradients, network, samples, sgd
from tests.parallel.worlds import run_worlds
from treenail.adapters.comm import current_communicator
from treenail.adapters.optim import OptimWrapper
from treenail.adapters.parallel import fully_sharded
from treenail.contracts import LossSum, Stepped
from treenail.kernel import TrainingError

SIZES = ((3, 1, 2), (4, 0, 5))
"""Samples of each micro-batch of each rank."""


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> LossSum:
    if not len(targets):  # a pass all the same, as all ranks make as many
        return LossSum(model(torch.zeros(1, 6)).sum() * 0.0, torch.tensor(0))
    return LossSum(nn.functional.cross_entropy(model(inputs), targets, reduction="sum"), torch.tensor(len(targets)))


def weights_count_over_ranks(directory: Path) -> None:
    ranks = current_communicator()
    inputs, targets = samples(sum(map(sum, SIZES)))
    alone = network()
    torch.autograd.backward(nn.functional.cross_entropy(alone(inputs), targets))
    whole = gradients(alone)

    model = DistributedDataParallel(network())
    optim = OptimWrapper(sgd(model), 3, communicator=ranks)
    seen: list[list[Tensor]] = []
    optim.optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(model)))
    begin = sum(map(sum, SIZES[: ranks.rank]))
    for index, size in enumerate(SIZES[ranks.rank]):
        rows = slice(begin, begin := begin + size)
        with optim.optim_context(model):
            outcome = optim.update_params(loss_of(model, inputs[rows], targets[rows]))
        if index == 0:
            mine = torch.cat([gradient.flatten() for gradient in gradients(model)])
            first, second = ranks.all_gather(mine)
            assert not torch.equal(first, second), "gradients were communicated before the last pass"
    assert isinstance(outcome, Stepped)
    assert_near(seen[0], whole)


def nothing_that_counts_changes_nothing(directory: Path) -> None:
    model = DistributedDataParallel(network())
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), communicator=current_communicator())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optim.update_params(loss_of(model, *samples(0)))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def a_tail_that_was_not_communicated_is_refused(directory: Path) -> None:
    ranks = current_communicator()
    model = DistributedDataParallel(network())
    optim = OptimWrapper(sgd(model), 4, communicator=ranks)
    inputs, targets = samples(8, seed=ranks.rank)

    def add(rows: slice, last: bool | None = None) -> None:
        with optim.optim_context(model, last=last):
            optim.update_params(nn.functional.cross_entropy(model(inputs[rows]), targets[rows]))

    add(slice(0, 2))
    with pytest.raises(TrainingError, match="were not brought together over the ranks"):
        optim.flush()
    add(slice(2, 4), last=True)
    assert isinstance(optim.flush(), Stepped)
    first, second = ranks.all_gather(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(first, second)


def overflow_on_one_rank_skips_on_all(directory: Path) -> None:
    ranks = current_communicator()
    model = fully_sharded(network())
    optim = OptimWrapper(sgd(model), precision="float16", clip_norm=1.0)
    stepped = []
    for index in range(3):
        inputs, _ = samples(4, seed=index)
        with optim.optim_context(model):
            loss = model(inputs * (1e30 if index == 1 and ranks.rank == 1 else 1.0)).float().square().mean()
        stepped.append(isinstance(optim.update_params(loss), Stepped))
    assert stepped == [True, False, True]


def test_on_two_ranks(tmp_path: Path) -> None:
    checks = (
        weights_count_over_ranks,
        nothing_that_counts_changes_nothing,
        a_tail_that_was_not_communicated_is_refused,
        overflow_on_one_rank_skips_on_all,
    )
    assert run_worlds([(2, checks)], tmp_path) == {}
